#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "bindings/tensor.h"
#include "ops/affine_grad_moments/affine_grad_moments.h"

namespace pynas::affine_grad_moments_binding {
namespace {

// Whether a kernel reads both tensors along one contiguous axis.
bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  const auto contiguous = [](const at::Tensor& tensor, int64_t axis) {
    return tensor.stride(axis) == 1 || tensor.size(axis) == 1;
  };
  return (contiguous(a, 1) && contiguous(b, 1)) || (contiguous(a, 2) && contiguous(b, 2));
}

void set_strides(const at::Tensor& tensor, int64_t (&strides)[3]) {
  for (int axis = 0; axis < 3; ++axis) strides[axis] = tensor.size(axis) == 1 ? 0 : tensor.stride(axis);
}

// Mean and rstd in the type of the sums, expanded to one shape, without a copy where they have both.
std::pair<at::Tensor, at::Tensor> statistics_of(const char* op, const at::Tensor& input,
                                                const at::Tensor& mean, const at::Tensor& rstd) {
  const int64_t batch = input.size(0), channels = input.size(1), positions = input.size(2);
  for (const auto& [tensor, name] : {std::pair{&mean, "mean"}, {&rstd, "rstd"}}) {
    check::floating(op, name, *tensor);
    const at::IntArrayRef sizes = tensor->sizes();
    TORCH_CHECK_VALUE(sizes.size() == 3 && (sizes[0] == 1 || sizes[0] == batch) &&
                          (sizes[1] == 0 ? channels == 0 : channels % sizes[1] == 0) &&
                          (sizes[2] == 1 || sizes[2] == positions),
                      op, ": ", name, ": expected [", batch, " or 1, a divisor of the ", channels,
                      " channels, ", positions, " or 1], got ", check::Shape{sizes});
  }
  TORCH_CHECK_VALUE(mean.size(1) == rstd.size(1) || mean.size(1) == 1 || rstd.size(1) == 1, op,
                    ": rstd: expected as many channel groups as mean, ", mean.size(1), ", or 1, got ",
                    rstd.size(1));
  const at::ScalarType sums = accumulate_type(dtype_of(input, op, "input"));
  int64_t shape[3];
  for (int axis = 0; axis < 3; ++axis) shape[axis] = mean.size(axis) == 1 ? rstd.size(axis) : mean.size(axis);
  return {mean.to(sums).expand(shape), rstd.to(sums).expand(shape)};
}

// Checks the arguments and fills all parameters but the results; run() adds the
// workspace. The members keep the tensors alive.
struct Call {
  AffineGradMomentsParams params;
  at::Tensor grad_output, input, mean, rstd, workspace;

  Call(const char* op, const at::Tensor& grad_output_, const at::Tensor& input_, const at::Tensor& mean_,
       const at::Tensor& rstd_, int64_t group_size)
      : grad_output(grad_output_), input(input_) {
    AffineGradMomentsParams& p = params;
    p.dtype = dtype_of(grad_output, op, "grad_output");
    check::same_dtype(op, "input", input, "grad_output", grad_output);
    for (const auto& [tensor, name] : {std::pair{&grad_output, "grad_output"}, {&input, "input"}})
      TORCH_CHECK_VALUE(tensor->dim() == 3, op, ": ", name,
                        ": expected [B, C, T] (channels, then the flattened positions), got shape ",
                        check::Shape{tensor->sizes()}, "; use ", name, ".flatten(2), or ", name,
                        ".transpose(1, 2) for channels last");
    TORCH_CHECK_VALUE(input.sizes() == grad_output.sizes(), op, ": input: expected the shape ",
                      check::Shape{grad_output.sizes()}, " of grad_output, got ",
                      check::Shape{input.sizes()});
    p.batch = input.size(0);
    p.channels = input.size(1);
    p.positions = input.size(2);
    p.group_size = group_size;
    check::group_size(op, group_size, p.batch);
    std::tie(mean, rstd) = statistics_of(op, input, mean_, rstd_);
    if (!same_layout(grad_output, input)) {
      // An expanded or transposed gradient is copied into the layout of the input. Where the input has no
      // contiguous axis either, both are copied.
      if (!same_layout(input, input)) input = input.contiguous();
      at::Tensor copy = at::empty_like(input);
      grad_output = same_layout(copy, input) ? copy.copy_(grad_output) : grad_output.contiguous();
      if (!same_layout(grad_output, input)) input = input.contiguous();
    }
    p.grad_output = grad_output.const_data_ptr();
    p.input = input.const_data_ptr();
    p.mean = mean.const_data_ptr();
    p.rstd = rstd.const_data_ptr();
    p.channel_groups = mean.size(1);
    for (int axis = 0; axis < 3; ++axis) {
      p.grad_output_strides[axis] = grad_output.stride(axis);
      p.input_strides[axis] = input.stride(axis);
    }
    set_strides(mean, p.mean_strides);
    set_strides(rstd, p.rstd_strides);
  }

  void run() {
    size_t bytes = 0;
    if (params.batch == 0 || params.channels == 0) return;
#if defined(PYNAS_WITH_CUDA)
    if (input.is_cuda()) {
      cuda::affine_grad_moments_workspace(params, bytes);
    } else
#endif
    {
      PYNAS_DISPATCH_ISA(affine_grad_moments_workspace, params, bytes);
    }
    workspace = at::empty({static_cast<int64_t>(bytes)}, input.options().dtype(at::kByte));
    params.workspace = workspace.mutable_data_ptr();
    PYNAS_DISPATCH_DEVICE(input, affine_grad_moments, params);
  }
};

std::tuple<at::Tensor, at::Tensor> affine_grad_moments_torch(const at::Tensor& grad_output,
                                                             const at::Tensor& input, const at::Tensor& mean,
                                                             const at::Tensor& rstd, int64_t moments,
                                                             int64_t group_size) {
  const char* op = "affine_grad_moments";
  TORCH_CHECK_VALUE(moments > 0 && moments <= kMomentAll, op, ": moments: expected a mask of 1 to ",
                    +kMomentAll, ", got ", moments);
  Call call(op, grad_output, input, mean, rstd, group_size);
  call.params.moments = static_cast<uint32_t>(moments);
  const auto options = input.options().dtype(accumulate_type(call.params.dtype));
  const std::vector<int64_t> shape = {count_moments(call.params.moments), call.params.channels};
  // Zeros are right where there is no sample.
  at::Tensor weight = call.params.batch == 0 ? at::zeros(shape, options) : at::empty(shape, options);
  at::Tensor bias = call.params.batch == 0 ? at::zeros(shape, options) : at::empty(shape, options);
  call.params.weight = weight.mutable_data_ptr();
  call.params.bias = bias.mutable_data_ptr();
  call.run();
  return {weight, bias};
}

// Numbers in one block of explicit gradients: bounds memory whatever the numbers of groups and channels are.
constexpr int64_t kBlock = int64_t{1} << 18;

// Calls use(gradients [1 or 2, G, channels of a block]) with those of the scale and, with `bias`, the shift,
// block by block, to be added to what it returns: [G], or [G, G] with `pairs`.
template <class Use>
at::Tensor sum_over_blocks(const char* op, const at::Tensor& grad_output, const at::Tensor& input,
                           const at::Tensor& mean, const at::Tensor& rstd, int64_t group_size, bool bias,
                           bool pairs, const Use& use) {
  const Call whole(op, grad_output, input, mean, rstd, group_size);
  const int64_t count = whole.params.batch / group_size, channels = whole.params.channels;
  const auto options = input.options().dtype(accumulate_type(whole.params.dtype));
  at::Tensor total = pairs ? at::zeros({count, count}, options) : at::zeros({count}, options);
  if (total.numel() == 0 || channels == 0) return total;
  // A block holds whole channel groups, so that its statistics are a slice too.
  const int64_t groups = whole.params.channel_groups, per_group = groups == 1 ? 1 : channels / groups;
  const int64_t width = std::max<int64_t>(1, kBlock / (2 * count) / per_group) * per_group;
  for (int64_t begin = 0; begin < channels; begin += width) {
    const int64_t size = std::min(width, channels - begin);
    const auto block = [&](const at::Tensor& tensor) { return tensor.narrow(1, begin, size); };
    const auto slice = [&](const at::Tensor& statistic) {
      return groups == 1 ? statistic : statistic.narrow(1, begin / per_group, size / per_group);
    };
    Call call(op, block(whole.grad_output), block(whole.input), slice(whole.mean), slice(whole.rstd),
              group_size);
    at::Tensor rows = at::empty({2, count, size}, options);
    call.params.rows = rows.mutable_data_ptr();
    call.run();
    use(total, bias ? rows : rows.narrow(0, 0, 1));
  }
  return total;
}

at::Tensor affine_grad_norms_torch(const at::Tensor& grad_output, const at::Tensor& input,
                                   const at::Tensor& mean, const at::Tensor& rstd, int64_t group_size,
                                   bool bias) {
  return sum_over_blocks(
      "affine_grad_norms", grad_output, input, mean, rstd, group_size, bias, false,
      [](at::Tensor& total, const at::Tensor& rows) { total.add_(rows.square().sum({0, 2})); });
}

at::Tensor affine_grad_gram_torch(const at::Tensor& grad_output, const at::Tensor& input,
                                  const at::Tensor& mean, const at::Tensor& rstd, int64_t group_size,
                                  bool bias) {
  return sum_over_blocks("affine_grad_gram", grad_output, input, mean, rstd, group_size, bias, true,
                         [](at::Tensor& total, const at::Tensor& rows) {
                           for (const at::Tensor& part : rows.unbind()) total.addmm_(part, part.t());
                         });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.affine_grad_moments");
  m.def(
      "affine_grad_moments(Tensor grad_output, Tensor input, Tensor mean, Tensor rstd, int moments, SymInt "
      "group_size) "
      "-> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}
TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.affine_grad_norms");
  m.def(
      "affine_grad_norms(Tensor grad_output, Tensor input, Tensor mean, Tensor rstd, SymInt group_size, "
      "bool bias) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "affine_grad_gram(Tensor grad_output, Tensor input, Tensor mean, Tensor rstd, SymInt group_size, "
      "bool bias) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(affine_grad_moments, affine_grad_moments_torch)
PYNAS_REGISTER(affine_grad_norms, affine_grad_norms_torch)
PYNAS_REGISTER(affine_grad_gram, affine_grad_gram_torch)

}  // namespace pynas::affine_grad_moments_binding
