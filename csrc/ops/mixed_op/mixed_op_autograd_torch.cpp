// Autograd of mixed_op. In C++ because an edge runs in a few milliseconds and has some thirty tensors to hand
// from forward to backward, which takes a Python formula a good part of a millisecond. The backward of
// mixed_op_backward, which only second-order gradients need, is in pynas/ops/mixed_op.py.
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

#include "ops/mixed_op/mixed_op_binding.h"

namespace pynas::mixed_op_autograd_binding {
namespace {

using at::Tensor;
using at::TensorList;
using torch::autograd::variable_list;

using ForwardSchema = MixedOpForward(const Tensor&, const Tensor&, TensorList, TensorList, at::IntArrayRef,
                                     int64_t, int64_t, bool, bool, double, int64_t);
using BackwardSchema = MixedOpBackward(const Tensor&, const Tensor&, const Tensor&, TensorList, TensorList,
                                       const Tensor&, TensorList, at::IntArrayRef, int64_t, int64_t, bool,
                                       bool, double, int64_t, bool, bool, bool);

const c10::TypedOperatorHandle<ForwardSchema>& forward_op() {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("pynas::mixed_op", "").typed<ForwardSchema>();
  return op;
}

const c10::TypedOperatorHandle<BackwardSchema>& backward_op() {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("pynas::mixed_op_backward", "").typed<BackwardSchema>();
  return op;
}

MixedOpForward call_forward(const Tensor& x, const Tensor& weights, TensorList parameters, TensorList running,
                            const MixedOpOptions& options) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  return forward_op().call(x, weights, parameters, running, options.candidates, options.family,
                           options.stride, options.affine, options.training, options.eps, options.save);
}

// What backward must know of a call beside its tensors: how many of those are parameters and running
// statistics, and the options.
struct Kept {
  size_t parameters = 0, running = 0;
  MixedOpOptions options;

  using Data = decltype(torch::autograd::AutogradContext::saved_data);

  void write(Data& data) const {
    data["parameters"] = static_cast<int64_t>(parameters);
    data["running"] = static_cast<int64_t>(running);
    data["candidates"] = options.candidates;
    data["family"] = options.family;
    data["stride"] = options.stride;
    data["affine"] = options.affine;
    data["training"] = options.training;
    data["eps"] = options.eps;
    data["save"] = options.save;
  }
  static Kept read(Data& data) {
    Kept kept;
    kept.parameters = static_cast<size_t>(data["parameters"].toInt());
    kept.running = static_cast<size_t>(data["running"].toInt());
    kept.options.candidates = data["candidates"].toIntVector();
    kept.options.family = data["family"].toInt();
    kept.options.stride = data["stride"].toInt();
    kept.options.affine = data["affine"].toBool();
    kept.options.training = data["training"].toBool();
    kept.options.eps = data["eps"].toDouble();
    kept.options.save = data["save"].toInt();
    return kept;
  }
};

struct MixedOp : torch::autograd::Function<MixedOp> {
  // backward returns a gradient for x, weights and each of parameters, and one undefined tensor each for
  // running (a vector, not a TensorList) and options, which autograd takes for single values.
  static variable_list forward(torch::autograd::AutogradContext* context, const Tensor& x,
                               const Tensor& weights, TensorList parameters,
                               const std::vector<Tensor>& running, const MixedOpOptions& options) {
    auto [y, statistics, saved] = call_forward(x, weights, parameters, running, options);
    variable_list kept{x, weights, statistics};
    kept.insert(kept.end(), parameters.begin(), parameters.end());
    kept.insert(kept.end(), running.begin(), running.end());
    kept.insert(kept.end(), saved.begin(), saved.end());
    context->save_for_backward(kept);
    context->set_materialize_grads(false);
    Kept{parameters.size(), running.size(), options}.write(context->saved_data);
    variable_list outputs{y, statistics};
    outputs.insert(outputs.end(), saved.begin(), saved.end());
    context->mark_non_differentiable({outputs.begin() + 1, outputs.end()});
    return outputs;
  }

  static variable_list backward(torch::autograd::AutogradContext* context, const variable_list& grads) {
    const Kept call = Kept::read(context->saved_data);
    const MixedOpOptions& options = call.options;
    const size_t parameters = call.parameters, running = call.running;
    variable_list result(2 + parameters + 2);
    if (!grads[0].defined()) return result;
    const variable_list kept = context->get_saved_variables();
    const TensorList all(kept);
    bool needs_parameters = false;
    for (size_t i = 0; i < parameters; ++i) needs_parameters |= context->needs_input_grad(2 + i);
    const auto gradients_of = [&] {
      return backward_op().call(grads[0], kept[0], kept[1], all.slice(3, parameters),
                                all.slice(3 + parameters, running), kept[2],
                                all.slice(3 + parameters + running), options.candidates, options.family,
                                options.stride, options.affine, options.training, options.eps, options.save,
                                context->needs_input_grad(0), context->needs_input_grad(1), needs_parameters);
    };
    MixedOpBackward gradients;
    if (at::GradMode::is_enabled()) {
      gradients = gradients_of();
    } else {
      const at::AutoDispatchBelowADInplaceOrView guard;
      gradients = gradients_of();
    }
    auto& [dx, dweights, dparameters] = gradients;
    if (context->needs_input_grad(0)) result[0] = dx;
    if (context->needs_input_grad(1)) result[1] = dweights;
    if (needs_parameters) std::copy(dparameters.begin(), dparameters.end(), result.begin() + 2);
    return result;
  }
};

MixedOpForward mixed_op_autograd(const Tensor& x, const Tensor& weights, TensorList parameters,
                                 TensorList running, at::IntArrayRef candidates, int64_t family,
                                 int64_t stride, bool affine, bool training, double eps, int64_t save) {
  MixedOpOptions options{candidates.vec(), family, stride, affine, training, eps, save};
  const bool differentiable =
      at::GradMode::is_enabled() &&
      (x.requires_grad() || weights.requires_grad() ||
       std::any_of(parameters.begin(), parameters.end(), [](const Tensor& p) { return p.requires_grad(); }));
  if (!differentiable) return call_forward(x, weights, parameters, running, options);
  variable_list outputs = MixedOp::apply(x, weights, parameters, running.vec(), options);
  return {outputs[0], outputs[1], {outputs.begin() + 2, outputs.end()}};
}

}  // namespace

TORCH_LIBRARY_IMPL(pynas, Autograd, m) { m.impl("mixed_op", &mixed_op_autograd); }

}  // namespace pynas::mixed_op_autograd_binding
