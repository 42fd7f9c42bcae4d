#include "ops/mixed_activation/mixed_activation.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <tuple>

#include "bindings/tensor.h"

namespace pynas::mixed_activation_binding {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

const void* statistics(const OptionalTensor& tensor, const MixedActivationParams& p, at::ScalarType dtype,
                       const char* op, const char* name) {
  TORCH_CHECK_VALUE(tensor.has_value() && tensor->dim() == 1 && tensor->numel() == p.features &&
                        tensor->is_contiguous() && tensor->scalar_type() == dtype,
                    op, ": ", name, ": expected ", p.features, " contiguous ", dtype, " values, got ",
                    tensor.has_value() ? tensor->toString() : "None");
  return tensor->const_data_ptr();
}

// The tensors as the kernels read them; kept alive while they run.
struct Call {
  MixedActivationParams params;
  at::Tensor states, products, weights;
  at::ScalarType sums;

  Call(const at::Tensor& states_, const at::Tensor& products_, const at::Tensor& weights_,
       at::IntArrayRef columns, int64_t normalization, double eps, const char* op)
      : states(states_.contiguous()), products(products_.contiguous()), weights(weights_.contiguous()) {
    MixedActivationParams& p = params;
    p.dtype = dtype_of(states, op, "states");
    TORCH_CHECK_TYPE(states.is_cuda() || p.dtype != DType::kFloat16, op,
                     ": states: float16 needs a CUDA device; use bfloat16 or float32 on the CPU");
    sums = accumulate_type(p.dtype);
    TORCH_CHECK_VALUE(
        states.dim() == 3 && states.size(0) >= 1, op,
        ": states: expected [predecessors, batch, features] with at least one predecessor, got ",
        states.sizes());
    p.predecessors = states.size(0);
    p.batch = states.size(1);
    p.features = states.size(2);
    TORCH_CHECK_VALUE(products.dim() == 3 && products.size(0) == p.predecessors &&
                          products.size(1) == p.batch && products.size(2) == 2 * p.features &&
                          products.scalar_type() == states.scalar_type(),
                      op, ": products: expected ", states.scalar_type(), " [", p.predecessors, ", ", p.batch,
                      ", ", 2 * p.features, "], got ", products.scalar_type(), " ", products.sizes());
    TORCH_CHECK_VALUE(
        weights.dim() == 2 && weights.size(0) == p.predecessors && weights.scalar_type() == sums, op,
        ": weights: expected ", sums, " [", p.predecessors, ", candidates], got ", weights.scalar_type(), " ",
        weights.sizes());
    p.candidates = weights.size(1);
    TORCH_CHECK_VALUE(static_cast<int>(columns.size()) == kActivations, op, ": columns: expected ",
                      kActivations, " values, got ", columns.size());
    for (int a = 0; a < kActivations; ++a) {
      TORCH_CHECK_VALUE(columns[a] >= -1 && columns[a] < p.candidates, op,
                        ": columns: expected a column of weights or -1, got ", columns[a]);
      for (int other = 0; other < a; ++other)
        TORCH_CHECK_VALUE(columns[a] < 0 || columns[a] != columns[other], op,
                          ": columns: expected each column once, got ", columns);
      p.column[a] = static_cast<int32_t>(columns[a]);
    }
    TORCH_CHECK_VALUE(normalization >= 0 && normalization <= 2, op,
                      ": normalization: expected 0, 1 or 2, got ", normalization);
    p.normalization = static_cast<Normalization>(normalization);
    p.eps = eps;
    p.states = states.const_data_ptr();
    p.products = products.const_data_ptr();
    p.weights = weights.const_data_ptr();
    if (weights.is_cpu()) check_weights(op);
  }

  bool normalized() const { return params.normalization != Normalization::kNone; }
  bool empty() const { return params.batch == 0 || params.features == 0; }
  at::Tensor scratch(at::IntArrayRef shape) const { return at::empty(shape, states.options().dtype(sums)); }

  // Scratch of so many float64 values, set in the parameters.
  at::Tensor partial(int64_t values) {
    at::Tensor scratch = at::empty({values}, states.options().dtype(at::kDouble));
    params.partial = scratch.mutable_data_ptr<double>();
    return scratch;
  }

  // On a GPU the values stay where they are: looking at them would wait for it.
  void check_weights(const char* op) const {
    for (int64_t i = 0; i < weights.numel(); ++i) {
      const double weight = sums == at::kDouble ? weights.const_data_ptr<double>()[i]
                                                : static_cast<double>(weights.const_data_ptr<float>()[i]);
      TORCH_CHECK_VALUE(weight == weight, op, ": weights: expected numbers, got NaN for predecessor ",
                        i / params.candidates, ", candidate ", i % params.candidates);
    }
  }
};

std::tuple<at::Tensor, at::Tensor, at::Tensor> mixed_activation_torch(
    const at::Tensor& states, const at::Tensor& products, const at::Tensor& weights, at::IntArrayRef columns,
    int64_t normalization, const OptionalTensor& mean, const OptionalTensor& var, double eps) {
  const char* op = "mixed_activation";
  Call call(states, products, weights, columns, normalization, eps, op);
  MixedActivationParams& p = call.params;
  const bool batch_statistics = p.normalization == Normalization::kBatch;
  TORCH_CHECK_VALUE(!batch_statistics || p.batch > 1, op,
                    ": states: expected more than 1 value per channel when training, got input size ",
                    states.sizes());
  at::Tensor y = at::empty({p.batch, p.features}, call.states.options());
  at::Tensor new_mean = call.scratch({batch_statistics ? p.features : 0}), new_var = at::empty_like(new_mean);
  if (call.empty()) return {y, new_mean, new_var};
  at::Tensor sums = y.scalar_type() == call.sums ? y : call.scratch({p.batch, p.features});
  at::Tensor scales = call.scratch({call.normalized() ? p.features : 0});
  p.y = y.mutable_data_ptr();
  p.sums = sums.mutable_data_ptr();
  p.columns = scales.mutable_data_ptr();
  at::Tensor partial = call.partial(call.states.is_cuda() ? 0 : mixed_activation_scratch(p, false));
  if (batch_statistics) {
    p.mean = new_mean.mutable_data_ptr();
    p.var = new_var.mutable_data_ptr();
  } else if (call.normalized()) {
    p.mean = const_cast<void*>(statistics(mean, p, call.sums, op, "mean"));
    p.var = const_cast<void*>(statistics(var, p, call.sums, op, "var"));
  }
  PYNAS_DISPATCH_DEVICE(call.states, mixed_activation, p);
  return {y, new_mean, new_var};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> mixed_activation_backward_torch(
    const at::Tensor& grad_output, const at::Tensor& states, const at::Tensor& products,
    const at::Tensor& weights, at::IntArrayRef columns, int64_t normalization, const OptionalTensor& output,
    const OptionalTensor& var, double eps) {
  const char* op = "mixed_activation_backward";
  Call call(states, products, weights, columns, normalization, eps, op);
  MixedActivationParams& p = call.params;
  const auto check_like_output = [&](const at::Tensor& tensor, const char* name) {
    TORCH_CHECK_VALUE(tensor.dim() == 2 && tensor.size(0) == p.batch && tensor.size(1) == p.features &&
                          tensor.scalar_type() == call.states.scalar_type(),
                      op, ": ", name, ": expected ", call.states.scalar_type(), " [", p.batch, ", ",
                      p.features, "], got ", tensor.scalar_type(), " ", tensor.sizes());
  };
  check_like_output(grad_output, "grad_output");
  at::Tensor grad_states = at::empty_like(call.states), grad_products = at::empty_like(call.products),
             grad_weights = at::empty_like(call.weights);
  if (call.empty()) return {grad_states, grad_products, grad_weights.zero_()};
  const at::Tensor grad = grad_output.contiguous();
  p.grad = grad.const_data_ptr();
  at::Tensor y;
  if (p.normalization == Normalization::kBatch) {
    TORCH_CHECK_VALUE(output.has_value(), op, ": output: expected the normalised node, got None");
    check_like_output(*output, "output");
    y = output->contiguous();
    p.y = const_cast<void*>(y.const_data_ptr());
  }
  if (call.normalized()) p.var = const_cast<void*>(statistics(var, p, call.sums, op, "var"));
  const bool as_it_is = !call.normalized() && grad.scalar_type() == call.sums;
  at::Tensor sums = as_it_is ? grad : call.scratch({p.batch, p.features});
  at::Tensor column_sums = call.scratch({call.normalized() ? 3 : 0, p.features});
  p.grad_weights = grad_weights.mutable_data_ptr();
  at::Tensor partial =
      call.partial(call.states.is_cuda()
                       ? mixed_activation_cuda_blocks(p.batch, p.features) * p.predecessors * kActivations
                       : mixed_activation_scratch(p, true));
  p.sums = const_cast<void*>(sums.const_data_ptr());
  p.columns = column_sums.mutable_data_ptr();
  p.grad_states = grad_states.mutable_data_ptr();
  p.grad_products = grad_products.mutable_data_ptr();
  PYNAS_DISPATCH_DEVICE(call.states, mixed_activation_backward, p);
  return {grad_states, grad_products, grad_weights};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pynas, m) {
  m.set_python_module("pynas.ops.mixed_activation");
  // columns: of tanh, relu, sigmoid and identity in weights, or -1. normalization: 0 none, 1 by the batch's
  // statistics, which are returned, 2 by the given mean and (biased) var.
  m.def(
      "mixed_activation(Tensor states, Tensor products, Tensor weights, int[] columns, int normalization, "
      "Tensor? mean, Tensor? var, float eps) -> (Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "mixed_activation_backward(Tensor grad_output, Tensor states, Tensor products, Tensor weights, "
      "int[] columns, int normalization, Tensor? output, Tensor? var, float eps) -> (Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}
PYNAS_REGISTER(mixed_activation, mixed_activation_torch)
PYNAS_REGISTER(mixed_activation_backward, mixed_activation_backward_torch)

}  // namespace pynas::mixed_activation_binding
