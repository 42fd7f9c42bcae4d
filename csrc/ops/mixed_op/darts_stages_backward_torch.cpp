#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/threshold_backward.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "ops/mixed_op/darts_stages.h"

namespace pynas {
namespace darts_stages_backward_binding {
namespace {

using namespace darts_stages;

// What the backward pass hands around: the call, its parts with their tensors, and the gradients so far.
struct Backward {
  const EdgeCall& call;
  const at::Tensor& statistics;  // [norms, 3, C]
  std::vector<Part> parts;
  EdgeGradients gradients;

  bool convolutions() const { return call.needs_x || call.needs_parameters; }
  at::Tensor mean(const Part& part, int step) const { return statistics[part.steps[step].norm][0]; }
  at::Tensor rstd(const Part& part, int step) const { return statistics[part.steps[step].norm][1]; }

  void set_parameter(int64_t index, const at::Tensor& gradient) {
    if (index < 0 || !call.needs_parameters) return;
    const at::Tensor& parameter = call.parameters[index];
    gradients.parameters[index] = gradient.reshape(parameter.sizes()).to(parameter.scalar_type());
  }

  // Calls add(gradients.x, accumulate), which adds to the gradient of x or, the first time, writes it.
  template <class F>
  void add_to_x(F add) {
    const bool accumulate = gradients.x.defined();
    if (!accumulate) gradients.x = at::empty(call.x.sizes(), call.x.options().memory_format(kChannelsLast));
    add(gradients.x, accumulate);
  }

  // Of a product z = d P^T: sets dL/dP = (dL/dz)^T d, returns dL/dd = dL/dz P.
  at::Tensor through_product(const at::Tensor& grad, const at::Tensor& d, int64_t weight) {
    const at::Tensor rows = rows_of(grad);
    if (call.needs_parameters) set_parameter(weight, at::mm(rows.t(), rows_of(d)));
    return image_of(call, at::mm(rows, pointwise_weight(call.parameters[weight])));
  }
};

// Fills the parts with what forward saved, and computes the rest again.
void restore(Backward& b, const std::vector<at::Tensor>& saved) {
  const EdgeCall& call = b.call;
  for (Part& part : b.parts) {
    const EdgeCandidate& candidate = call.candidates[part.k];
    int64_t slot = candidate.saved;
    const int64_t end = candidate.saved + candidate.slots;
    const auto take = [&](at::Tensor& image) {
      if (slot < end && saved[slot].defined() && saved[slot].size(0) > 0) image = image_of(call, saved[slot]);
      ++slot;
    };
    for (size_t n = 0; n < part.steps.size(); ++n) take(part.z[n]);
    if (call.save != Save::kEverything) continue;
    const int products = part.is_reduction() ? 2 : part.is_conv() ? static_cast<int>(part.steps.size()) : 0;
    for (int n = 0; n < products; ++n) take(part.d[n]);
  }
  compute_pools(call, b.parts);
  compute_reductions(call, b.parts);
  compute_first_step(call, b.parts);
  for (Part& part : b.parts)
    if (part.is_sep()) compute_second_step(call, part, b.mean(part, 0), b.rstd(part, 0));
}

NormalizedSumStatistics statistics_of(const Backward& b, const std::vector<Part*>& parts) {
  std::vector<at::Tensor> rows;
  for (const Part* part : parts) {
    if (!part->steps.empty()) {
      rows.push_back(b.statistics[part->steps.back().norm]);
    } else {
      rows.push_back(at::zeros({3, b.call.channels()}, b.statistics.options()));
      rows.back()[1].fill_(1);
    }
  }
  const at::Tensor all = at::stack(rows, 1);
  return {all[0], all[1], b.call.training ? all[2] : at::empty({0}, all.options())};
}

void set_norm(Backward& b, const Step& step, const NormalizedSumGradients& sums, int64_t j) {
  if (step.gamma < 0) return;
  // Copies, since these are rows of one tensor and gradients of parameters share no memory.
  b.set_parameter(step.gamma, sums.gamma[j].clone());
  b.set_parameter(step.beta, sums.beta[j].clone());
}

// From dL/dz_2 to dL/dz_1 of a separable convolution; sets the gradients of its second step and of BN_1.
at::Tensor through_second_step(Backward& b, Part& part, const at::Tensor& grad) {
  const EdgeCall& call = b.call;
  const at::Tensor grad_d = b.through_product(grad, part.d[1], part.steps[1].pointwise);
  const DepthwiseInput input = second_input(call, part, b.mean(part, 0), b.rstd(part, 0));
  const std::vector<DepthwiseFilter> filters = {filter_of(call, part, 1)};
  if (call.needs_parameters)
    b.set_parameter(part.steps[1].depthwise, depthwise_backward_weight(input, filters, {grad_d})[0]);
  at::Tensor grad_norm = at::empty(part.z[0].sizes(), part.z[0].options().memory_format(kChannelsLast));
  depthwise_backward_input(input, filters, {grad_d}, grad_norm, false);
  // The inner batch norm is a sum of one term. Its weight is one: the candidate's is in grad_norm already.
  NormalizedSumCall norm = sum_of(call, {&part}, false);
  norm.weights = at::Tensor();
  const at::Tensor row = b.statistics[part.steps[0].norm].unsqueeze(1);
  const NormalizedSumStatistics statistics{row[0], row[1],
                                           call.training ? row[2] : at::empty({0}, row.options())};
  const NormalizedSumGradients sums = normalized_sum_reduce(grad_norm, norm, statistics);
  set_norm(b, part.steps[0], sums, 0);
  return normalized_sum_input_gradients(grad_norm, norm, sums.coefficients, 1)[0];
}

// From dL/dz of every convolution's last product to its parameters and to x.
void through_convolutions(Backward& b, std::vector<at::Tensor>& grads) {
  const EdgeCall& call = b.call;
  for (const std::vector<Part*>& group : convolution_groups(b.parts)) {
    std::vector<DepthwiseFilter> filters;
    std::vector<at::Tensor> grad_d;
    for (Part* part : group) {
      at::Tensor& grad = grads[part - b.parts.data()];
      if (part->is_sep()) grad = through_second_step(b, *part, grad);
      grad_d.push_back(b.through_product(grad, part->d[0], part->steps[0].pointwise));
      grad.reset();
      filters.push_back(filter_of(call, *part, 0));
    }
    const DepthwiseInput input = first_input(call);
    if (call.needs_parameters) {
      const std::vector<at::Tensor> gradients = depthwise_backward_weight(input, filters, grad_d);
      for (size_t i = 0; i < group.size(); ++i) b.set_parameter(group[i]->steps[0].depthwise, gradients[i]);
    }
    if (call.needs_x)
      b.add_to_x([&](at::Tensor& x, bool accumulate) {
        depthwise_backward_input(input, filters, grad_d, x, accumulate);
      });
  }
}

void through_pools(Backward& b, const std::vector<at::Tensor>& grads) {
  for (const std::vector<Part*>& pair : pool_pairs(b.parts)) {
    at::Tensor max, average;
    for (const Part* part : pair) (part->is_max_pool() ? max : average) = grads[part - b.parts.data()];
    b.add_to_x([&](at::Tensor& x, bool accumulate) {
      pool3x3_backward(pool_call(b.call, pair), max, average, x, accumulate);
    });
  }
}

void through_reduction(Backward& b, const Part& part, const at::Tensor& grad) {
  const EdgeCall& call = b.call;
  const Step& step = part.steps[0];
  const at::Tensor rows = rows_of(grad);
  const int64_t first = call.channels() / 2;
  for (int half : {0, 1}) {
    const at::Tensor own =
        half == 0 ? rows.narrow(1, 0, first) : rows.narrow(1, first, call.channels() - first);
    const int64_t index = half == 0 ? step.depthwise : step.pointwise;
    if (call.needs_parameters) b.set_parameter(index, at::mm(own.t(), rows_of(part.d[half])));
    if (!call.needs_x) continue;
    const at::Tensor grad_d = image_of(call, at::mm(own, pointwise_weight(call.parameters[index])));
    const at::Tensor rectified = at::threshold_backward(grad_d, part.d[half], 0);
    b.add_to_x([&](at::Tensor& x, bool accumulate) {
      if (!accumulate) x.zero_();
      at::Tensor pixels = reduction_pixels(call, x, half);
      pixels.add_(rectified.narrow(2, 0, pixels.size(2)).narrow(3, 0, pixels.size(3)));
    });
  }
}

// The gradients of the parts' weights at their places among all candidates, zeros elsewhere.
at::Tensor weight_gradients(const Backward& b, const at::Tensor& of_parts) {
  const at::Tensor zero = at::zeros({1}, b.call.weights.options());
  std::vector<at::Tensor> all(b.call.candidates.size(), zero);
  for (size_t j = 0; j < b.parts.size(); ++j)
    all[b.parts[j].k] = of_parts.narrow(0, static_cast<int64_t>(j), 1);
  return at::cat(all);
}

}  // namespace
}  // namespace darts_stages_backward_binding

EdgeGradients darts_stages_backward(const EdgeCall& call, const EdgeOutput& forward, const at::Tensor& grad) {
  using namespace darts_stages_backward_binding;
  Backward b{call, forward.statistics, parts_of(call), {}};
  b.gradients.parameters.resize(call.parameters.size());
  if (b.parts.empty()) {
    b.gradients.x = at::zeros_like(call.x);
    b.gradients.weights = at::zeros_like(call.weights);
    return b.gradients;
  }
  restore(b, forward.saved);
  std::vector<Part*> all;
  for (Part& part : b.parts) all.push_back(&part);
  const NormalizedSumCall sum = sum_of(call, all, true);
  const NormalizedSumGradients sums = normalized_sum_reduce(grad, sum, statistics_of(b, all));
  b.gradients.weights = weight_gradients(b, sums.weights);
  uint64_t wanted = 0;
  for (size_t j = 0; j < all.size(); ++j) {
    const Part& part = *all[j];
    if (!part.steps.empty()) set_norm(b, part.steps.back(), sums, static_cast<int64_t>(j));
    const bool needed = part.is_pool() || part.is_identity() ? call.needs_x : b.convolutions();
    if (needed && !part.is_identity()) wanted |= uint64_t{1} << j;
    if (needed && part.is_identity()) {
      b.add_to_x([&](at::Tensor& x, bool accumulate) {
        const at::Tensor weight = call.weights[part.k];
        if (accumulate) {
          x.addcmul_(grad, weight.to(x.scalar_type()));
        } else {
          at::mul_out(x, grad, weight);
        }
      });
    }
  }
  if (wanted != 0) {
    std::vector<at::Tensor> grads(all.size());
    size_t next = 0;
    std::vector<at::Tensor> given = normalized_sum_input_gradients(grad, sum, sums.coefficients, wanted);
    for (size_t j = 0; j < all.size(); ++j)
      if (wanted >> j & 1u) grads[j] = std::move(given[next++]);
    for (size_t j = 0; j < all.size(); ++j)
      if (all[j]->is_reduction() && grads[j].defined()) through_reduction(b, *all[j], grads[j]);
    if (call.needs_x) through_pools(b, grads);
    if (b.convolutions()) through_convolutions(b, grads);
  }
  if (!b.gradients.x.defined() && call.needs_x) b.gradients.x = at::zeros_like(call.x);
  return b.gradients;
}

}  // namespace pynas
