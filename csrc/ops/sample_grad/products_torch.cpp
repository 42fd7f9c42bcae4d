// Norms and Gram matrices of the gradients of samples: the operators of the sinks kNorms and kGram.
#include <string>

#include "ops/sample_grad/sample_grad_binding.h"

namespace pynas::sample_grad_products_binding {
namespace {

template <SampleGradSink kSink>
at::Tensor conv2d_products(const at::Tensor& grad_output, const at::Tensor& input,
                           at::IntArrayRef kernel_size, at::IntArrayRef stride, at::IntArrayRef padding,
                           at::IntArrayRef dilation, int64_t groups, int64_t group_size, bool bias) {
  constexpr const char* kOp = kSink == SampleGradSink::kNorms ? "conv2d_grad_norms" : "conv2d_grad_gram";
  const SampleGradParams params = conv2d_sample_grad(
      kOp, grad_output, input, {kernel_size, stride, padding, dilation, groups}, group_size, bias);
  return run_products(params, grad_output, kSink);
}

template <SampleGradSink kSink>
at::Tensor linear_products(const at::Tensor& grad_output, const at::Tensor& input, int64_t group_size,
                           bool bias) {
  constexpr const char* kOp = kSink == SampleGradSink::kNorms ? "linear_grad_norms" : "linear_grad_gram";
  const LinearOperands operands = flatten_positions(kOp, grad_output, input, group_size);
  return run_products(linear_sample_grad(kOp, operands, group_size, bias), grad_output, kSink);
}

// `module` holds the operator's fake kernel and ends in its name; a literal, because torch keeps the pointer.
void define(torch::Library& m, const char* module, const std::string& geometry) {
  const std::string op = module + std::string(module).rfind('.') + 1;
  const std::string schema =
      op + "(Tensor grad_output, Tensor input, " + geometry + "SymInt group_size, bool bias) -> Tensor";
  m.set_python_module(module);
  m.def(torch::schema(schema.c_str()), {at::Tag::pt2_compliant_tag});
}

constexpr const char* kGeometry =
    "SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, ";

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) { define(m, "pynas.ops.conv2d_grad_norms", kGeometry); }
TORCH_LIBRARY_FRAGMENT(pynas, m) { define(m, "pynas.ops.conv2d_grad_gram", kGeometry); }
TORCH_LIBRARY_FRAGMENT(pynas, m) { define(m, "pynas.ops.linear_grad_norms", ""); }
TORCH_LIBRARY_FRAGMENT(pynas, m) { define(m, "pynas.ops.linear_grad_gram", ""); }

PYNAS_REGISTER(conv2d_grad_norms, conv2d_products<SampleGradSink::kNorms>)
PYNAS_REGISTER(conv2d_grad_gram, conv2d_products<SampleGradSink::kGram>)
PYNAS_REGISTER(linear_grad_norms, linear_products<SampleGradSink::kNorms>)
PYNAS_REGISTER(linear_grad_gram, linear_products<SampleGradSink::kGram>)

}  // namespace pynas::sample_grad_products_binding
