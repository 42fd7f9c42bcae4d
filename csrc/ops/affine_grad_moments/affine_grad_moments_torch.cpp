#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <tuple>
#include <vector>

#include "bindings/tensor.h"
#include "ops/affine_grad_moments/affine_grad_moments.h"

namespace pynas::affine_grad_moments_binding {
namespace {

constexpr const char* kOp = "affine_grad_moments";

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

// Checks the arguments and fills all parameters but the results; run() adds the
// workspace. The members keep the tensors alive.
struct Call {
  AffineGradMomentsParams params;
  at::Tensor grad_output, input, workspace;

  Call(const at::Tensor& grad_output_, const at::Tensor& input_, const at::Tensor& mean,
       const at::Tensor& rstd, int64_t group_size)
      : grad_output(grad_output_), input(input_) {
    AffineGradMomentsParams& p = params;
    p.dtype = dtype_of(input, kOp, "input");
    TORCH_CHECK_TYPE(grad_output.scalar_type() == input.scalar_type(), kOp, ": grad_output: expected ",
                     input.scalar_type(), " as input, got ", grad_output.scalar_type());
    TORCH_CHECK_VALUE(input.dim() == 3 && grad_output.sizes() == input.sizes(), kOp,
                      ": grad_output: expected [B, C, T] as input, ", input.sizes(), ", got ",
                      grad_output.sizes());
    p.batch = input.size(0);
    p.channels = input.size(1);
    p.positions = input.size(2);
    p.group_size = group_size;
    check::group_size(kOp, group_size, p.batch);
    for (const auto& [tensor, name] : {std::pair{&mean, "mean"}, {&rstd, "rstd"}}) {
      TORCH_CHECK_VALUE(tensor->dim() == 3 && (tensor->size(0) == 1 || tensor->size(0) == p.batch) &&
                            tensor->size(1) >= 1 && p.channels % tensor->size(1) == 0 &&
                            (tensor->size(2) == 1 || tensor->size(2) == p.positions) &&
                            tensor->sizes() == mean.sizes() &&
                            tensor->scalar_type() == accumulate_type(p.dtype),
                        kOp, ": ", name, ": expected ", accumulate_type(p.dtype),
                        " [B or 1, a divisor of C, T or 1] for input ", input.sizes(), ", got ",
                        tensor->scalar_type(), " ", tensor->sizes());
    }
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
  TORCH_CHECK_VALUE(moments > 0 && moments <= kMomentAll, kOp, ": moments: expected a mask of 1 to ",
                    +kMomentAll, ", got ", moments);
  Call call(grad_output, input, mean, rstd, group_size);
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

at::Tensor affine_grad_rows_torch(const at::Tensor& grad_output, const at::Tensor& input,
                                  const at::Tensor& mean, const at::Tensor& rstd, int64_t group_size) {
  Call call(grad_output, input, mean, rstd, group_size);
  at::Tensor rows = at::empty({2, call.params.batch / group_size, call.params.channels},
                              input.options().dtype(accumulate_type(call.params.dtype)));
  call.params.rows = rows.mutable_data_ptr();
  call.run();
  return rows;
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
  m.set_python_module("pynas.ops.affine_grad_rows");
  m.def(
      "affine_grad_rows(Tensor grad_output, Tensor input, Tensor mean, Tensor rstd, SymInt group_size) -> "
      "Tensor",
      {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(affine_grad_moments, affine_grad_moments_torch)
PYNAS_REGISTER(affine_grad_rows, affine_grad_rows_torch)

}  // namespace pynas::affine_grad_moments_binding
