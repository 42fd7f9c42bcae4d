// The composition of stages with weights that only the kernels read, as on a GPU: forward and backward in one
// operator, so that tests on a CPU run it.
#include <ATen/ops/zeros_like.h>

#include "bindings/tensor.h"
#include "ops/mixed_op/mixed_op_binding.h"

namespace pynas::darts_stages_gated_binding {
namespace {

// y, statistics, and the gradients of x, the weights and all parameters.
std::vector<at::Tensor> darts_stages_gated_torch(const at::Tensor& x, const at::Tensor& weights,
                                                 at::TensorList parameters, at::TensorList running,
                                                 at::IntArrayRef candidates, int64_t stride, bool affine,
                                                 bool training, double eps, int64_t save,
                                                 const at::Tensor& grad_output) {
  EdgeCall call = make_edge_call(
      x, weights, parameters, running,
      {candidates.vec(), static_cast<int64_t>(Family::kDarts), stride, affine, training, eps, save});
  const int64_t sizes[] = {call.batch(), call.channels(), call.out_height(), call.out_width()};
  TORCH_CHECK_VALUE(
      grad_output.sizes() == at::IntArrayRef(sizes) && grad_output.scalar_type() == x.scalar_type(),
      "darts_stages_gated: grad_output: expected ", x.scalar_type(), " ", at::IntArrayRef(sizes), ", got ",
      grad_output.scalar_type(), " ", grad_output.sizes());
  call.host_weights.clear();
  EdgeOutput output = darts_stages_forward(call);
  std::vector<at::Tensor> results = {output.y, output.statistics};
  output.y = at::Tensor();
  EdgeGradients gradients =
      darts_stages_backward(call, output, grad_output.contiguous(at::MemoryFormat::ChannelsLast));
  results.push_back(gradients.x);
  results.push_back(gradients.weights);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor& gradient = gradients.parameters[i];
    results.push_back(gradient.defined() ? gradient : at::zeros_like(parameters[i]));
  }
  return results;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.def(
      "darts_stages_gated(Tensor x, Tensor weights, Tensor[] parameters, Tensor[] running, int[] candidates, "
      "int stride, bool affine, bool training, float eps, int save, Tensor grad_output) -> Tensor[]");
}
PYNAS_REGISTER(darts_stages_gated, darts_stages_gated_torch, 1)

}  // namespace pynas::darts_stages_gated_binding
