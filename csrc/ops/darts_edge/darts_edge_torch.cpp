// DARTS edges with float32 images on the CPU: tensors as the pointers that darts_edge takes.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "bindings/tensor.h"
#include "ops/darts_edge/darts_edge.h"
#include "ops/mixed_op/mixed_op_binding.h"

namespace pynas {
namespace darts_edge_binding {
namespace {

float* data(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<float*>(tensor.data_ptr()) : nullptr;
}

// The rows of batch norm `index` in statistics [norms, 3, C], and its running statistics where the edge
// normalises by them. Backward is given the variance, and leaves it as it is.
void set_norm(DartsNorm& norm, const EdgeCall& call, int64_t index, const at::Tensor& statistics,
              bool forward) {
  const int64_t channels = call.channels();
  norm.mean = data(statistics) + 3 * index * channels;
  norm.rstd = norm.mean + channels;
  if (forward) norm.variance = norm.rstd + channels;
  if (call.training) return;
  norm.running_mean = data(call.running[2 * index]);
  norm.running_var = data(call.running[2 * index + 1]);
}

// gamma, the parameter behind it beta, and their gradients.
void set_affine(DartsNorm& norm, const EdgeCall& call, EdgeGradients* gradients, int64_t gamma) {
  norm.gamma = data(call.parameters[gamma]);
  norm.beta = data(call.parameters[gamma + 1]);
  if (gradients == nullptr || !call.needs_parameters) return;
  norm.grad_gamma = data(gradients->parameters[gamma]);
  norm.grad_beta = data(gradients->parameters[gamma + 1]);
}

// One candidate. products[stage]: room for z of that convolution stage, undefined where it is not computed.
void set_candidate(DartsCandidateParams& params, const EdgeCall& call, const EdgeCandidate& candidate,
                   const at::Tensor* products, const at::Tensor& statistics, EdgeGradients* gradients) {
  const bool wanted = gradients != nullptr && call.needs_parameters;
  const bool reduces = candidate.stages.starts_with(StageKind::kReduction);
  int64_t parameter = candidate.parameter;
  for (int64_t stage = 0; stage < candidate.norms; ++stage) {
    DartsStage& target = params.stages[stage];
    set_norm(target.norm, call, candidate.norm + stage, statistics, gradients == nullptr);
    if (candidate.stages.is_pool()) continue;
    target.product = data(products[stage]);
    const float* first = data(call.parameters[parameter]);
    const float* second = data(call.parameters[parameter + 1]);
    float* grad_first = wanted ? data(gradients->parameters[parameter]) : nullptr;
    float* grad_second = wanted ? data(gradients->parameters[parameter + 1]) : nullptr;
    const bool halves = reduces && call.channels() > 1;
    target.depthwise = reduces ? nullptr : first;
    target.pointwise = reduces ? (halves ? first : nullptr) : second;
    target.pointwise_2 = reduces ? second : nullptr;
    target.grad_depthwise = reduces ? nullptr : grad_first;
    target.grad_pointwise = reduces ? (halves ? grad_first : nullptr) : grad_second;
    target.grad_pointwise_2 = reduces ? grad_second : nullptr;
    parameter += 2;
    if (call.affine) {
      set_affine(target.norm, call, gradients, parameter);
      parameter += 2;
    }
  }
}

DartsEdgeParams params_of(const EdgeCall& call, const std::vector<at::Tensor>& products,
                          const at::Tensor& statistics, EdgeGradients* gradients) {
  DartsEdgeParams params;
  params.samples = call.batch();
  params.channels = call.channels();
  params.height = call.x.size(2);
  params.width = call.x.size(3);
  params.stride = static_cast<int>(call.stride);
  params.x = data(call.x);
  params.batch_statistics = call.training;
  params.eps = call.eps;
  for (size_t k = 0; k < call.candidates.size(); ++k) {
    const EdgeCandidate& candidate = call.candidates[k];
    DartsCandidateParams& target = params.candidates[static_cast<int64_t>(candidate.kind)];
    target.weight = static_cast<float>(call.host_weights[k]);
    if (gradients != nullptr && call.needs_weights) target.grad_weight = data(gradients->weights) + k;
    set_candidate(target, call, candidate, products.data() + candidate.norm, statistics, gradients);
  }
  return params;
}

// Room for the products of the candidates that are computed, at the positions of their batch norms.
std::vector<at::Tensor> make_products(const EdgeCall& call) {
  std::vector<at::Tensor> products(call.norms);
  const int64_t rows = call.batch() * call.out_height() * call.out_width();
  for (size_t k = 0; k < call.candidates.size(); ++k) {
    const EdgeCandidate& candidate = call.candidates[k];
    if (candidate.stages.is_pool() || !call.active(static_cast<int64_t>(k))) continue;
    for (int64_t stage = 0; stage < candidate.norms; ++stage) {
      products[candidate.norm + stage] = at::empty({rows, call.channels()}, call.x.options());
    }
  }
  return products;
}

// The products that forward kept, at the positions of their batch norms; empty where one
// that backward reads is missing.
std::vector<at::Tensor> kept_products(const EdgeCall& call, const EdgeOutput& forward) {
  std::vector<at::Tensor> products(call.norms);
  for (size_t k = 0; k < call.candidates.size(); ++k) {
    const EdgeCandidate& candidate = call.candidates[k];
    if (candidate.stages.is_pool() || !call.active(static_cast<int64_t>(k))) continue;
    for (int64_t stage = 0; stage < candidate.norms; ++stage) {
      if (call.save == Save::kNothing || !forward.saved[candidate.saved + stage].defined()) return {};
      products[candidate.norm + stage] = forward.saved[candidate.saved + stage];
    }
  }
  return products;
}

at::Tensor workspace_of(DartsEdgeParams& params, const Parallel& parallel, bool backward) {
  int64_t forward_bytes = 0, backward_bytes = 0;
  PYNAS_DISPATCH_ISA(darts_edge_workspace, params, parallel.threads, &forward_bytes, &backward_bytes);
  at::Tensor workspace = at::empty({backward ? backward_bytes : forward_bytes}, at::kByte);
  params.workspace = workspace.data_ptr();
  return workspace;
}

}  // namespace
}  // namespace darts_edge_binding

bool darts_engine_supports(const EdgeCall& call) {
  using namespace darts_edge_binding;
  if (!call.x.is_cpu() || call.x.scalar_type() != at::kFloat) return false;
  uint64_t seen = 0;
  for (const EdgeCandidate& candidate : call.candidates) {
    const uint64_t bit = uint64_t{1} << static_cast<int64_t>(candidate.kind);
    if ((seen & bit) != 0 && candidate.kind != Candidate::kNone) return false;
    seen |= bit;
  }
  return true;
}

EdgeOutput darts_engine_forward(const EdgeCall& call) {
  using namespace darts_edge_binding;
  const Parallel parallel = torch_parallel();
  EdgeOutput output;
  output.statistics = at::zeros({call.norms, 3, call.channels()}, call.weights.options());
  output.y = at::empty({call.batch(), call.channels(), call.out_height(), call.out_width()},
                       call.x.options().memory_format(at::MemoryFormat::ChannelsLast));
  const std::vector<at::Tensor> products = make_products(call);
  DartsEdgeParams params = params_of(call, products, output.statistics, nullptr);
  params.out = data(output.y);
  const at::Tensor workspace = workspace_of(params, parallel, false);
  PYNAS_DISPATCH_ISA(darts_edge_forward, params, parallel);
  output.saved.resize(call.slots);
  if (call.save == Save::kNothing) return output;
  for (const EdgeCandidate& candidate : call.candidates) {
    for (int64_t stage = 0; stage < candidate.norms; ++stage) {
      output.saved[candidate.saved + stage] = products[candidate.norm + stage];
    }
  }
  return output;
}

EdgeGradients darts_engine_backward(const EdgeCall& call, const EdgeOutput& forward, const at::Tensor& grad) {
  using namespace darts_edge_binding;
  const Parallel parallel = torch_parallel();
  EdgeGradients gradients;
  gradients.parameters.resize(call.parameters.size());
  if (call.needs_parameters) {
    for (size_t i = 0; i < call.parameters.size(); ++i) {
      gradients.parameters[i] = at::empty(call.parameters[i].sizes(), call.parameters[i].options());
      // The half of a reduction that has no outputs (one channel): the engine does not write it.
      if (gradients.parameters[i].numel() == 0) gradients.parameters[i].zero_();
    }
  }
  if (call.needs_weights) gradients.weights = at::zeros_like(call.weights);
  if (call.needs_x) gradients.x = at::empty_like(call.x, at::MemoryFormat::ChannelsLast);
  std::vector<at::Tensor> products = kept_products(call, forward);
  const bool recompute = products.empty();
  if (recompute) products = make_products(call);
  DartsEdgeParams params = params_of(call, products, forward.statistics, &gradients);
  params.grad_output = data(grad);
  params.grad_x = data(gradients.x);
  params.recompute_products = recompute;
  const at::Tensor workspace = workspace_of(params, parallel, true);
  PYNAS_DISPATCH_ISA(darts_edge_backward, params, parallel);
  return gradients;
}

}  // namespace pynas
