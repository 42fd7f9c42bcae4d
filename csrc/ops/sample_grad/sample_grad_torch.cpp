#include "common/math.h"
#include "ops/sample_grad/sample_grad_binding.h"

#include <ATen/Context.h>
#include <ATen/ops/zeros.h>
#include <sys/mman.h>

#include <algorithm>
#include <string>
#include <tuple>

namespace pynas {
namespace sample_grad_binding {
namespace {

void check_dtypes(const char* op, const at::Tensor& grad_output, const at::Tensor& input) {
  check::floating(op, "grad_output", grad_output);
  check::same_dtype(op, "input", input, "grad_output", grad_output);
}

void check_batch(const char* op, const at::Tensor& grad_output, const at::Tensor& input, int64_t group_size) {
  TORCH_CHECK_VALUE(input.size(0) == grad_output.size(0), op, ": input: expected ", grad_output.size(0),
                    " samples (axis 0) as in grad_output, got ", input.size(0));
  check::group_size(op, group_size, input.size(0));
}

// Whether every gradient, also that of the bias, is zero. Kernels are then not called: they need not plan for
// tensors of size zero whose other sizes are in the billions.
bool is_empty(const SampleGradParams& p) {
  return p.batch == 0 || p.out_channels == 0 || p.out_height == 0 || p.out_width == 0;
}

size_t workspace_bytes(const SampleGradParams& params, [[maybe_unused]] const at::Tensor& like) {
  size_t bytes = 0;
#if defined(PYNAS_WITH_CUDA)
  if (like.is_cuda()) {
    cuda::sample_grad_workspace(params, bytes);
    return bytes;
  }
#endif
  PYNAS_DISPATCH_ISA(sample_grad_workspace, params, at::get_num_threads(), bytes)
  return bytes;
}

// Faulting in fresh pages is more expensive than the sums that go into them: large results use huge pages.
at::Tensor allocate(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor tensor = at::empty(sizes, options);
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  if (tensor.device().is_cpu() && tensor.nbytes() >= 2 * kHuge) {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(tensor.data_ptr());
    const uintptr_t first = ceil_div(begin, kHuge) * kHuge, last = (begin + tensor.nbytes()) / kHuge * kHuge;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
  return tensor;
}

void run(SampleGradParams& params, const at::Tensor& like) {
  // PyTorch's setting for matrix products holds for convolutions too: cuDNN's own is on by default, and
  // statistics that subtract nearly equal gradients should lose digits only where the user asked for it.
  // Not allowTF32CuBLAS(), which throws where the setting was made by fp32_precision.
  params.allow_tf32 = like.is_cuda() &&
                      at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) ==
                          at::Float32Precision::TF32;
  constexpr int64_t kAlign = 64;
  const int64_t bytes = static_cast<int64_t>(workspace_bytes(params, like));
  const at::Tensor workspace = allocate({bytes + kAlign}, like.options().dtype(at::kByte));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(workspace.data_ptr());
  params.workspace = reinterpret_cast<void*>(ceil_div(begin, kAlign) * kAlign);
  PYNAS_DISPATCH_DEVICE(like, sample_grad, params);
}

at::TensorOptions result_options(const SampleGradParams& params, const at::Tensor& like) {
  return like.options().dtype(accumulate_type(params.dtype)).memory_format(c10::nullopt);
}

}  // namespace
}  // namespace sample_grad_binding

SampleGradParams conv2d_sample_grad(const char* op, const at::Tensor& grad_output, const at::Tensor& input,
                                    const ConvGeometry& geometry, int64_t group_size, bool bias) {
  using namespace sample_grad_binding;
  check_dtypes(op, grad_output, input);
  for (const auto& [tensor, name, axes] :
       {std::tuple{&grad_output, "grad_output", "[B, O, Ho, Wo]"}, {&input, "input", "[B, C, H, W]"}})
    TORCH_CHECK_VALUE(tensor->dim() == 4, op, ": ", name, ": expected 4 axes ", axes, ", got shape ",
                      check::Shape{tensor->sizes()});
  check_batch(op, grad_output, input, group_size);
  check::pair(op, "kernel_size", geometry.kernel_size, 1);
  check::pair(op, "stride", geometry.stride, 1);
  check::pair(op, "padding", geometry.padding, 0);
  check::pair(op, "dilation", geometry.dilation, 1);
  TORCH_CHECK_VALUE(geometry.groups >= 1 && input.size(1) % geometry.groups == 0 &&
                        grad_output.size(1) % geometry.groups == 0,
                    op, ": groups: expected a positive divisor of the ", input.size(1), " input and ",
                    grad_output.size(1), " output channels, got ", geometry.groups);
  SampleGradParams p;
  p.dtype = dtype_of(grad_output, op, "grad_output");
  p.grad_output = grad_output.const_data_ptr();
  p.input = input.const_data_ptr();
  p.batch = input.size(0);
  p.group_size = group_size;
  p.with_bias = bias;
  p.in_channels = input.size(1);
  p.out_channels = grad_output.size(1);
  p.groups = geometry.groups;
  p.height = input.size(2);
  p.width = input.size(3);
  p.out_height = grad_output.size(2);
  p.out_width = grad_output.size(3);
  for (int axis = 0; axis < 2; ++axis) {
    p.kernel[axis] = geometry.kernel_size[axis];
    p.stride[axis] = geometry.stride[axis];
    p.padding[axis] = geometry.padding[axis];
    p.dilation[axis] = geometry.dilation[axis];
    const int64_t reach =
        input.size(2 + axis) + 2 * p.padding[axis] - p.dilation[axis] * (p.kernel[axis] - 1) - 1;
    const int64_t expected = reach < 0 ? 0 : reach / p.stride[axis] + 1;
    TORCH_CHECK_VALUE(grad_output.size(2 + axis) == expected, op, ": grad_output: expected ",
                      axis == 0 ? "height " : "width ", expected, " for an input of ", input.size(2 + axis),
                      " with kernel_size ", p.kernel[axis], ", stride ", p.stride[axis], ", padding ",
                      p.padding[axis], ", dilation ", p.dilation[axis], ", got ", grad_output.size(2 + axis),
                      "; pass the geometry of the layer that made grad_output");
  }
  check::product(op, "weight", {p.out_channels, p.group_channels(), p.kernel[0], p.kernel[1]});
  check::product(op, "padded input",
                 {p.batch, p.in_channels, p.height + 2 * p.padding[0], p.width + 2 * p.padding[1]});
  for (int axis = 0; axis < 4; ++axis) {
    p.grad_output_strides[axis] = grad_output.stride(axis);
    p.input_strides[axis] = input.stride(axis);
  }
  return p;
}

LinearOperands flatten_positions(const char* op, const at::Tensor& grad_output, const at::Tensor& input,
                                 int64_t group_size) {
  using namespace sample_grad_binding;
  check_dtypes(op, grad_output, input);
  TORCH_CHECK_VALUE(grad_output.dim() >= 2, op, ": grad_output: expected [B, ..., O], got shape ",
                    check::Shape{grad_output.sizes()});
  TORCH_CHECK_VALUE(input.dim() >= 2, op, ": input: expected [B, ..., I], got shape ",
                    check::Shape{input.sizes()});
  check_batch(op, grad_output, input, group_size);
  const auto positions = [](const at::Tensor& tensor) { return tensor.sizes().slice(1, tensor.dim() - 2); };
  TORCH_CHECK_VALUE(positions(input) == positions(grad_output), op, ": input: expected the positions ",
                    check::Shape{positions(grad_output)},
                    " of grad_output between the batch and the feature axis, got ",
                    check::Shape{positions(input)});
  const int64_t batch = input.size(0), count = c10::multiply_integers(positions(input));
  return {grad_output.reshape({batch, count, grad_output.size(-1)}),
          input.reshape({batch, count, input.size(-1)})};
}

SampleGradParams linear_sample_grad(const char* op, const LinearOperands& operands, int64_t group_size,
                                    bool bias) {
  const auto& [grad_output, input] = operands;
  SampleGradParams p;
  p.dtype = dtype_of(grad_output, op, "grad_output");
  p.grad_output = grad_output.const_data_ptr();
  p.input = input.const_data_ptr();
  p.batch = input.size(0);
  p.group_size = group_size;
  p.with_bias = bias;
  p.in_channels = input.size(2);
  p.out_channels = grad_output.size(2);
  p.height = p.out_height = 1;
  p.width = p.out_width = input.size(1);
  check::product(op, "weight", {p.out_channels, p.in_channels});
  const auto strides = [](const at::Tensor& tensor, int64_t* to) {
    to[0] = tensor.stride(0);
    to[1] = tensor.stride(2);
    to[2] = tensor.stride(0);
    to[3] = tensor.stride(1);
  };
  strides(grad_output, p.grad_output_strides);
  strides(input, p.input_strides);
  return p;
}

std::pair<at::Tensor, at::Tensor> run_moments(const char* op, SampleGradParams params, const at::Tensor& like,
                                              int64_t moments, at::IntArrayRef weight_sizes) {
  using namespace sample_grad_binding;
  TORCH_CHECK_VALUE(moments >= 1 && moments <= int64_t{kMomentAll}, op,
                    ": moments: expected a bit mask from 1 to ", int64_t{kMomentAll}, ", got ", moments);
  params.sink = SampleGradSink::kMoments;
  params.moments = static_cast<uint32_t>(moments);
  const int64_t rows = count_moments(params.moments);
  const at::TensorOptions options = result_options(params, like);
  std::vector<int64_t> sizes{rows};
  sizes.insert(sizes.end(), weight_sizes.begin(), weight_sizes.end());
  if (is_empty(params)) {
    return {at::zeros(sizes, options),
            params.with_bias ? at::zeros({rows, params.out_channels}, options) : at::empty({0}, options)};
  }
  at::Tensor weight = allocate(sizes, options);
  at::Tensor bias =
      params.with_bias ? at::empty({rows, params.out_channels}, options) : at::empty({0}, options);
  params.weight = weight.mutable_data_ptr();
  params.bias = bias.mutable_data_ptr();
  run(params, like);
  return {weight, bias};
}

at::Tensor run_products(SampleGradParams params, const at::Tensor& like, SampleGradSink sink) {
  using namespace sample_grad_binding;
  params.sink = sink;
  const int64_t groups = params.sample_groups();
  const at::TensorOptions options = result_options(params, like);
  if (is_empty(params))
    return at::zeros(
        sink == SampleGradSink::kGram ? at::IntArrayRef({groups, groups}) : at::IntArrayRef({groups}),
        options);
  at::Tensor result =
      sink == SampleGradSink::kGram ? at::empty({groups, groups}, options) : at::empty({groups}, options);
  params.weight = result.mutable_data_ptr();
  run(params, like);
  return result;
}

}  // namespace pynas
