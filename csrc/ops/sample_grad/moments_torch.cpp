#include <tuple>

#include "ops/sample_grad/sample_grad_binding.h"

namespace pynas::sample_grad_moments_binding {
namespace {

std::tuple<at::Tensor, at::Tensor> conv2d_grad_moments(const at::Tensor& grad_output, const at::Tensor& input,
                                                       at::IntArrayRef kernel_size, at::IntArrayRef stride,
                                                       at::IntArrayRef padding, at::IntArrayRef dilation,
                                                       int64_t groups, int64_t moments, int64_t group_size,
                                                       bool bias) {
  constexpr const char* kOp = "conv2d_grad_moments";
  const SampleGradParams params = conv2d_sample_grad(
      kOp, grad_output, input, {kernel_size, stride, padding, dilation, groups}, group_size, bias);
  return run_moments(kOp, params, grad_output, moments,
                     {params.out_channels, params.group_channels(), params.kernel[0], params.kernel[1]});
}

std::tuple<at::Tensor, at::Tensor> linear_grad_moments(const at::Tensor& grad_output, const at::Tensor& input,
                                                       int64_t moments, int64_t group_size, bool bias) {
  constexpr const char* kOp = "linear_grad_moments";
  const LinearOperands operands = flatten_positions(kOp, grad_output, input, group_size);
  const SampleGradParams params = linear_sample_grad(kOp, operands, group_size, bias);
  return run_moments(kOp, params, grad_output, moments, {params.out_channels, params.in_channels});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.conv2d_grad_moments");
  m.def(
      "conv2d_grad_moments(Tensor grad_output, Tensor input, SymInt[2] kernel_size, SymInt[2] stride, "
      "SymInt[2] padding, "
      "SymInt[2] dilation, SymInt groups, int moments, SymInt group_size, bool bias) -> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}
TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.linear_grad_moments");
  m.def(
      "linear_grad_moments(Tensor grad_output, Tensor input, int moments, SymInt group_size, bool bias) -> "
      "(Tensor, "
      "Tensor)",
      {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(conv2d_grad_moments, conv2d_grad_moments)
PYNAS_REGISTER(linear_grad_moments, linear_grad_moments)

}  // namespace pynas::sample_grad_moments_binding
