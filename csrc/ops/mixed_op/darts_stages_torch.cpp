#include <ATen/ops/addcmul.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "ops/depthwise/depthwise.h"
#include "ops/mixed_op/darts_stages.h"

namespace pynas {
namespace darts_stages {
namespace {

std::vector<Step> steps_of(const EdgeCall& call, const EdgeCandidate& candidate) {
  std::vector<Step> steps;
  int64_t next = candidate.parameter;
  int64_t norm = candidate.norm;
  for (const CandidateStage& stage : candidate.stages) {
    Step step{-1, -1, -1, -1, norm++};
    if (stage.weights() == 2) {
      step.depthwise = next++;
      step.pointwise = next++;
    }
    if (call.affine && stage.norm == StageNorm::kAffine) {
      step.gamma = next++;
      step.beta = next++;
    }
    steps.push_back(step);
  }
  TORCH_INTERNAL_ASSERT(next == candidate.parameter + candidate.parameters);
  return steps;
}

// The weights of these parts: a view where they are neighbours.
at::Tensor weights_of(const EdgeCall& call, const std::vector<Part*>& parts) {
  const int64_t n = static_cast<int64_t>(parts.size());
  if (parts.back()->k - parts.front()->k == n - 1) return call.weights.narrow(0, parts.front()->k, n);
  std::vector<at::Tensor> each;
  for (const Part* part : parts) each.push_back(call.weights.narrow(0, part->k, 1));
  return at::cat(each);
}

at::Tensor gates_of(const EdgeCall& call) { return call.host_weights.empty() ? call.weights : at::Tensor(); }
int64_t gate_of(const EdgeCall& call, const Part& part) { return call.host_weights.empty() ? part.k : -1; }

at::Tensor product(const EdgeCall& call, const at::Tensor& d, int64_t weight) {
  return image_of(call, at::mm(rows_of(d), pointwise_weight(call.parameters[weight]).t()));
}

}  // namespace

std::vector<Part> parts_of(const EdgeCall& call) {
  std::vector<Part> parts;
  for (int64_t k = 0; k < static_cast<int64_t>(call.candidates.size()); ++k) {
    if (!call.active(k)) continue;
    Part part;
    part.k = k;
    part.stages = call.candidates[k].stages;
    part.steps = steps_of(call, call.candidates[k]);
    if (part.is_identity()) part.z[0] = call.x;
    parts.push_back(part);
  }
  return parts;
}

at::Tensor image_of(const EdgeCall& call, const at::Tensor& rows) {
  return rows.view({call.batch(), call.out_height(), call.out_width(), call.channels()})
      .permute({0, 3, 1, 2});
}

at::Tensor rows_of(const at::Tensor& image) { return image.permute({0, 2, 3, 1}).flatten(0, 2); }

DepthwiseInput first_input(const EdgeCall& call) { return {call.x, call.stride, {}, {}, gates_of(call)}; }

// BN(z) = scale z + offset with scale = gamma rstd, offset = beta - mean scale.
DepthwiseInput second_input(const EdgeCall& call, const Part& part, const at::Tensor& mean,
                            const at::Tensor& rstd) {
  const Step& step = part.steps[0];
  const at::Tensor scale = step.gamma < 0 ? rstd.contiguous() : rstd.mul(call.parameters[step.gamma]);
  const at::Tensor offset =
      step.beta < 0 ? mean.mul(scale).neg() : at::addcmul(call.parameters[step.beta], mean, scale, -1);
  return {part.z[0], 1, scale, offset, gates_of(call)};
}

DepthwiseFilter filter_of(const EdgeCall& call, const Part& part, int step) {
  return {call.parameters[part.steps[step].depthwise], part.stages.stages[step].dilation,
          gate_of(call, part)};
}

std::vector<std::vector<Part*>> convolution_groups(std::vector<Part>& parts) {
  std::vector<std::vector<Part*>> groups;
  for (Part& part : parts) {
    if (!part.is_conv()) continue;
    if (groups.empty() || groups.back().size() == kMaxDepthwise) groups.emplace_back();
    groups.back().push_back(&part);
  }
  return groups;
}

std::vector<std::vector<Part*>> pool_pairs(std::vector<Part>& parts) {
  std::vector<std::vector<Part*>> pairs;
  for (Part& part : parts) {
    if (!part.is_pool()) continue;
    if (pairs.empty() || pairs.back().size() == 2 || pairs.back()[0]->is_max_pool() == part.is_max_pool())
      pairs.emplace_back();
    pairs.back().push_back(&part);
  }
  return pairs;
}

Pool3x3Call pool_call(const EdgeCall& call, const std::vector<Part*>& pools) {
  Pool3x3Call pool;
  pool.x = call.x;
  pool.stride = call.stride;
  pool.gates = gates_of(call);
  pool.max = pool.average = false;
  for (const Part* part : pools) {
    const bool max = part->is_max_pool();
    (max ? pool.max : pool.average) = true;
    (max ? pool.max_gate : pool.average_gate) = gate_of(call, *part);
  }
  return pool;
}

void compute_pools(const EdgeCall& call, std::vector<Part>& parts) {
  for (const std::vector<Part*>& pair : pool_pairs(parts)) {
    if (pair[0]->z[0].defined()) continue;
    const auto [max, average] = pool3x3_forward(pool_call(call, pair));
    for (Part* part : pair) part->z[0] = part->is_max_pool() ? max : average;
  }
}

at::Tensor reduction_pixels(const EdgeCall& call, const at::Tensor& x, int half) {
  return x.slice(2, half, std::nullopt, call.stride).slice(3, half, std::nullopt, call.stride);
}

void compute_reductions(const EdgeCall& call, std::vector<Part>& parts) {
  for (Part& part : parts) {
    if (!part.is_reduction()) continue;
    const Step& step = part.steps[0];
    for (int half : {0, 1}) {
      if (part.d[half].defined()) continue;
      const at::Tensor pixels = reduction_pixels(call, call.x, half);
      part.d[half] = at::zeros({call.batch(), call.channels(), call.out_height(), call.out_width()},
                               call.x.options().memory_format(kChannelsLast));
      part.d[half].narrow(2, 0, pixels.size(2)).narrow(3, 0, pixels.size(3)).copy_(pixels.relu());
    }
    if (part.z[0].defined()) continue;
    // The two products go side by side into the channels.
    const int64_t first = call.channels() / 2;
    at::Tensor rows =
        at::empty({call.batch() * call.out_height() * call.out_width(), call.channels()}, call.x.options());
    for (int half : {0, 1}) {
      at::Tensor out = half == 0 ? rows.narrow(1, 0, first) : rows.narrow(1, first, call.channels() - first);
      const at::Tensor& weight = call.parameters[half == 0 ? step.depthwise : step.pointwise];
      if (out.numel() > 0) at::mm_out(out, rows_of(part.d[half]), pointwise_weight(weight).t());
    }
    part.z[0] = image_of(call, rows);
  }
}

void compute_first_step(const EdgeCall& call, std::vector<Part>& parts) {
  for (const std::vector<Part*>& group : convolution_groups(parts)) {
    std::vector<Part*> lacking;
    std::vector<DepthwiseFilter> filters;
    for (Part* part : group) {
      if (part->d[0].defined()) continue;
      lacking.push_back(part);
      filters.push_back(filter_of(call, *part, 0));
    }
    if (!filters.empty()) {
      const std::vector<at::Tensor> outputs = depthwise_forward(first_input(call), filters);
      for (size_t i = 0; i < outputs.size(); ++i) lacking[i]->d[0] = outputs[i];
    }
    for (Part* part : group)
      if (!part->z[0].defined()) part->z[0] = product(call, part->d[0], part->steps[0].pointwise);
  }
}

void compute_second_step(const EdgeCall& call, Part& part, const at::Tensor& mean, const at::Tensor& rstd) {
  if (!part.d[1].defined())
    part.d[1] = depthwise_forward(second_input(call, part, mean, rstd), {filter_of(call, part, 1)})[0];
  if (!part.z[1].defined()) part.z[1] = product(call, part.d[1], part.steps[1].pointwise);
}

NormalizedSumCall sum_of(const EdgeCall& call, const std::vector<Part*>& parts, bool last) {
  NormalizedSumCall sum;
  sum.weights = weights_of(call, parts);
  sum.normalized = 0;
  sum.batch_statistics = call.training;
  sum.eps = call.eps;
  for (size_t j = 0; j < parts.size(); ++j) {
    const Part& part = *parts[j];
    at::Tensor gamma, beta, mean, var;
    if (!part.steps.empty()) {
      const Step& step = last ? part.steps.back() : part.steps.front();
      sum.normalized |= uint64_t{1} << j;
      if (step.gamma >= 0) gamma = call.parameters[step.gamma];
      if (step.beta >= 0) beta = call.parameters[step.beta];
      if (!call.training) {
        mean = call.running[2 * step.norm];
        var = call.running[2 * step.norm + 1];
      }
    }
    sum.inputs.push_back(last ? part.last() : part.z[0]);
    sum.gamma.push_back(gamma);
    sum.beta.push_back(beta);
    sum.running_mean.push_back(mean);
    sum.running_var.push_back(var);
  }
  return sum;
}

namespace {

// Puts statistics [K, C] of the parts as rows [3, C] at their places among the edge's rows.
void place(const EdgeCall& call, const std::vector<Part*>& parts, bool last,
           const NormalizedSumStatistics& statistics, std::vector<at::Tensor>& rows) {
  // Running statistics come without var; the edge's rows have that of `running`.
  for (size_t j = 0; j < parts.size(); ++j) {
    if (parts[j]->steps.empty()) continue;
    const int64_t norm = (last ? parts[j]->steps.back() : parts[j]->steps.front()).norm;
    const int64_t i = static_cast<int64_t>(j);
    rows[norm] = at::stack({statistics.mean[i], statistics.rstd[i],
                            call.training ? statistics.var[i] : call.running[2 * norm + 1]});
  }
}

std::vector<at::Tensor> saved_of(const EdgeCall& call, const std::vector<Part>& parts) {
  std::vector<at::Tensor> saved(call.slots);
  if (call.save == Save::kNothing) return saved;
  const bool everything = call.save == Save::kEverything;
  for (const Part& part : parts) {
    int64_t slot = call.candidates[part.k].saved;
    // Pools are cheap to compute again from x.
    for (size_t n = 0; n < part.steps.size(); ++n) {
      if (everything || !part.is_pool()) saved[slot] = rows_of(part.z[n]);
      ++slot;
    }
    if (!everything) continue;
    for (const at::Tensor& d : part.d) {
      if (d.defined() && slot < call.candidates[part.k].saved + call.candidates[part.k].slots)
        saved[slot++] = rows_of(d);
    }
  }
  return saved;
}

}  // namespace
}  // namespace darts_stages

EdgeOutput darts_stages_forward(const EdgeCall& call) {
  using namespace darts_stages;
  EdgeOutput output;
  std::vector<Part> parts = parts_of(call);
  const auto statistics_options = call.weights.options();
  std::vector<at::Tensor> rows(call.norms);
  if (parts.empty()) {
    output.y = at::zeros({call.batch(), call.channels(), call.out_height(), call.out_width()},
                         call.x.options().memory_format(kChannelsLast));
  } else {
    compute_pools(call, parts);
    compute_reductions(call, parts);
    compute_first_step(call, parts);
    std::vector<Part*> all, seps;
    for (Part& part : parts) {
      all.push_back(&part);
      if (part.is_sep()) seps.push_back(&part);
    }
    if (!seps.empty()) {
      const NormalizedSumStatistics inner = normalized_sum_statistics(sum_of(call, seps, false));
      for (size_t j = 0; j < seps.size(); ++j) {
        const int64_t i = static_cast<int64_t>(j);
        compute_second_step(call, *seps[j], inner.mean[i], inner.rstd[i]);
      }
      place(call, seps, false, inner, rows);
    }
    const NormalizedSumCall sum = sum_of(call, all, true);
    const NormalizedSumStatistics statistics = normalized_sum_statistics(sum);
    output.y = normalized_sum_apply(sum, statistics);
    place(call, all, true, statistics, rows);
  }
  for (at::Tensor& row : rows)
    if (!row.defined()) row = at::zeros({3, call.channels()}, statistics_options);
  output.statistics = rows.empty() ? at::empty({0, 3, call.channels()}, statistics_options) : at::stack(rows);
  output.saved = saved_of(call, parts);
  return output;
}

}  // namespace pynas
