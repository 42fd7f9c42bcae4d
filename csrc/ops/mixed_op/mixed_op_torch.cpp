// y = sum_k w_k op_k(x): schemas and kernels of mixed_op and mixed_op_backward.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <c10/core/impl/LocalDispatchKeySet.h>

#include "bindings/tensor.h"
#include "ops/mixed_op/mixed_op_binding.h"

namespace pynas::mixed_op_binding {
namespace {

// Dtypes were chosen before: autocast is not to cast what the composition calls.
using NoAutocast = c10::impl::ExcludeDispatchKeyGuard;

bool anything(const EdgeCall& call) {
  if (call.x.numel() == 0) return false;
  for (size_t k = 0; k < call.candidates.size(); ++k) {
    if (call.active(static_cast<int64_t>(k))) return true;
  }
  return false;
}

EdgeOutput forward_of(const EdgeCall& call) {
  if (call.family != Family::kDarts) return nasbench201_forward(call);
  return darts_engine_supports(call) ? darts_engine_forward(call) : darts_stages_forward(call);
}

EdgeGradients backward_of(const EdgeCall& call, const EdgeOutput& forward, const at::Tensor& grad) {
  if (call.family != Family::kDarts) return nasbench201_backward(call, forward, grad);
  return darts_engine_supports(call) ? darts_engine_backward(call, forward, grad)
                                     : darts_stages_backward(call, forward, grad);
}

// What forward kept, as it gave it; slots without rows are undefined.
EdgeOutput kept_of(const EdgeCall& call, const at::Tensor& statistics, at::TensorList saved) {
  constexpr const char* kOp = "mixed_op_backward";
  const int64_t sizes[] = {call.norms, 3, call.channels()};
  TORCH_CHECK_VALUE(
      statistics.sizes() == at::IntArrayRef(sizes) && statistics.scalar_type() == call.weights.scalar_type(),
      kOp, ": statistics: expected what the forward pass returned, ", call.weights.scalar_type(), " ",
      at::IntArrayRef(sizes), ", got ", statistics.scalar_type(), " ", statistics.sizes());
  TORCH_CHECK_VALUE(static_cast<int64_t>(saved.size()) == call.slots, kOp, ": saved: expected ", call.slots,
                    " tensors, got ", saved.size());
  const int64_t rows = call.batch() * call.out_height() * call.out_width();
  EdgeOutput kept;
  kept.statistics = statistics.contiguous();
  for (size_t i = 0; i < saved.size(); ++i) {
    const at::Tensor& slot = saved[i];
    TORCH_CHECK_VALUE(slot.dim() == 2 && (slot.size(0) == rows || slot.size(0) == 0) &&
                          slot.size(1) == call.channels() && slot.scalar_type() == call.x.scalar_type(),
                      kOp, ": saved[", i, "]: expected what the forward pass returned, ",
                      call.x.scalar_type(), " [", rows, " or 0, ", call.channels(), "], got ",
                      slot.scalar_type(), " ", slot.sizes());
    kept.saved.push_back(slot.size(0) == 0 ? at::Tensor() : slot.contiguous());
  }
  return kept;
}

MixedOpForward mixed_op_torch(const at::Tensor& x, const at::Tensor& weights, at::TensorList parameters,
                              at::TensorList running, at::IntArrayRef candidates, int64_t family,
                              int64_t stride, bool affine, bool training, double eps, int64_t save) {
  const NoAutocast guard(c10::autocast_dispatch_keyset);
  const EdgeCall call = make_edge_call(x, weights, parameters, running,
                                       {candidates.vec(), family, stride, affine, training, eps, save});
  EdgeOutput output;
  if (anything(call)) {
    output = forward_of(call);
  } else {
    output.y =
        at::zeros({call.batch(), call.channels(), call.out_height(), call.out_width()}, call.x.options())
            .contiguous(at::MemoryFormat::ChannelsLast);
  }
  if (!output.statistics.defined()) {
    output.statistics = at::zeros({call.norms, 3, call.channels()}, call.weights.options());
  }
  output.saved.resize(call.slots);
  for (at::Tensor& saved : output.saved) {
    if (!saved.defined()) saved = at::empty({0, call.channels()}, call.x.options());
  }
  return {output.y, output.statistics, output.saved};
}

MixedOpBackward mixed_op_backward_torch(const at::Tensor& grad_output, const at::Tensor& x,
                                        const at::Tensor& weights, at::TensorList parameters,
                                        at::TensorList running, const at::Tensor& statistics,
                                        at::TensorList saved, at::IntArrayRef candidates, int64_t family,
                                        int64_t stride, bool affine, bool training, double eps, int64_t save,
                                        bool needs_x, bool needs_weights, bool needs_parameters) {
  const NoAutocast guard(c10::autocast_dispatch_keyset);
  EdgeCall call = make_edge_call(x, weights, parameters, running,
                                 {candidates.vec(), family, stride, affine, training, eps, save});
  call.needs_x = needs_x;
  call.needs_weights = needs_weights;
  call.needs_parameters = needs_parameters;
  const int64_t sizes[] = {call.batch(), call.channels(), call.out_height(), call.out_width()};
  TORCH_CHECK_VALUE(grad_output.sizes() == at::IntArrayRef(sizes) &&
                        grad_output.scalar_type() == x.scalar_type() && grad_output.device() == x.device(),
                    "mixed_op_backward: grad_output: expected ", x.scalar_type(), " ", at::IntArrayRef(sizes),
                    " on ", x.device(), ", got ", grad_output.scalar_type(), " ", grad_output.sizes(), " on ",
                    grad_output.device());
  EdgeGradients gradients;
  if (anything(call)) {
    gradients = backward_of(call, kept_of(call, statistics, saved),
                            grad_output.contiguous(at::MemoryFormat::ChannelsLast));
  }
  at::Tensor dx = gradients.x;
  if (!needs_x) {
    dx = at::empty({0}, x.options());
  } else if (!dx.defined()) {
    dx = at::zeros_like(call.x, at::MemoryFormat::ChannelsLast);
  }
  at::Tensor dweights;
  if (!needs_weights || !gradients.weights.defined()) {
    dweights = at::zeros({needs_weights ? weights.size(0) : 0}, weights.options());
  } else {
    dweights = gradients.weights.to(weights.device(), weights.scalar_type());
  }
  std::vector<at::Tensor> dparameters;
  if (needs_parameters) {
    gradients.parameters.resize(parameters.size());
    for (size_t i = 0; i < parameters.size(); ++i) {
      at::Tensor& gradient = gradients.parameters[i];
      dparameters.push_back(gradient.defined() ? gradient.to(parameters[i].scalar_type())
                                               : at::zeros(parameters[i].sizes(), parameters[i].options()));
    }
  }
  return {dx, dweights, dparameters};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.mixed_op");
  m.def(
      "mixed_op(Tensor x, Tensor weights, Tensor[] parameters, Tensor[] running, int[] candidates, int "
      "family, int stride, bool affine, bool training, float eps, int save) -> (Tensor, Tensor, Tensor[])",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "mixed_op_backward(Tensor grad_output, Tensor x, Tensor weights, Tensor[] parameters, Tensor[] "
      "running, Tensor statistics, Tensor[] saved, int[] candidates, int family, int stride, bool affine, "
      "bool training, float eps, int save, bool needs_x, bool needs_weights, bool needs_parameters) -> "
      "(Tensor, Tensor, Tensor[])",
      {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(mixed_op, mixed_op_torch, 1)
PYNAS_REGISTER(mixed_op_backward, mixed_op_backward_torch, 2)

}  // namespace pynas::mixed_op_binding
