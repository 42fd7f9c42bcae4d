#include "ops/sample_grad/sample_grad_binding.h"

namespace pynas {
namespace {

at::Tensor conv2d_grad_gram(const at::Tensor& grad_output, const at::Tensor& input,
                            at::IntArrayRef kernel_size, at::IntArrayRef stride, at::IntArrayRef padding,
                            at::IntArrayRef dilation, int64_t groups, int64_t group_size, bool bias) {
  const SampleGradParams params =
      conv2d_sample_grad("conv2d_grad_gram", grad_output, input,
                         {kernel_size, stride, padding, dilation, groups}, group_size, bias);
  return run_products(params, grad_output, SampleGradSink::kGram);
}

at::Tensor linear_grad_gram(const at::Tensor& grad_output, const at::Tensor& input, int64_t group_size,
                            bool bias) {
  const SampleGradParams params =
      linear_sample_grad("linear_grad_gram", grad_output, input, group_size, bias);
  return run_products(params, grad_output, SampleGradSink::kGram);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.conv2d_grad_gram");
  m.def(
      "conv2d_grad_gram(Tensor grad_output, Tensor input, SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] "
      "padding, "
      "SymInt[2] dilation, SymInt groups, SymInt group_size, bool bias) -> Tensor",
      {at::Tag::pt2_compliant_tag});
}
TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.linear_grad_gram");
  m.def("linear_grad_gram(Tensor grad_output, Tensor input, SymInt group_size, bool bias) -> Tensor",
        {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(conv2d_grad_gram, conv2d_grad_gram)
PYNAS_REGISTER(linear_grad_gram, linear_grad_gram)

}  // namespace pynas
