// Edges of NAS-Bench-201 and TransNAS-Bench-101 on any device, composed of products, pools and
// normalized_sum:
//
//   y   = sum_k w_k n_k(z_k)
//   z_k = x, avg_pool(x), conv_k(relu(x)), or the factorised reduction of relu(x)
//
// n_k is batch normalisation of the products (convolutions and reduction), and leaves x and its
// pool as they are. x is a candidate at stride 1, its factorised reduction at stride 2. Backward,
// with g = dL/dy and ^T the transposed operation:
//
//   dL/dx = w_skip g + avg_pool^T(w_pool g) + [x > 0] sum_k conv_k^T(dL/dz_k)
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/threshold_backward.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <array>
#include <optional>
#include <utility>

#include "bindings/tensor.h"
#include "ops/conv3x3/conv3x3_api.h"
#include "ops/mixed_op/edge.h"
#include "ops/mixed_op/plain_gradient.h"
#include "ops/mixed_op/pointwise.h"
#include "ops/normalized_sum/normalized_sum_api.h"
#include "ops/pool3x3/pool3x3_api.h"

namespace pynas {
namespace nasbench201_binding {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;
constexpr int64_t kOnes[] = {1, 1}, kTwos[] = {2, 2}, kZeros[] = {0, 0};

at::IntArrayRef strides(const EdgeCall& call) { return call.stride == 1 ? kOnes : kTwos; }

// [N, C, H, W] in channels_last as [N H W, C], without a copy.
at::Tensor rows_of(const at::Tensor& image) {
  return image.permute({0, 2, 3, 1}).reshape({-1, image.size(1)});
}

// And back, to an image of the output's size.
at::Tensor image_of(const at::Tensor& rows, const EdgeCall& call) {
  return rows.view({call.batch(), call.out_height(), call.out_width(), rows.size(1)}).permute({0, 3, 1, 2});
}

// Every second pixel of an image, the first at (shift, shift).
at::Tensor every_second(const at::Tensor& image, int64_t shift) {
  return image.slice(2, shift, std::nullopt, 2).slice(3, shift, std::nullopt, 2);
}

// What the products of one edge read, each made when first asked for.
class Inputs {
 public:
  explicit Inputs(const EdgeCall& call) : call_(call) {}

  const at::Tensor& rectified() {
    if (!rectified_.defined()) rectified_ = at::relu(call_.x);
    return rectified_;
  }
  // Every second pixel of relu(x), and zeros where the image ends before.
  const at::Tensor& sampled(int64_t shift) {
    at::Tensor& result = sampled_[shift];
    if (!result.defined()) {
      const at::Tensor source = every_second(call_.x, shift);
      result = at::empty({call_.batch(), call_.channels(), call_.out_height(), call_.out_width()},
                         call_.x.options().memory_format(kChannelsLast));
      at::Tensor inside = result.slice(2, 0, source.size(2)).slice(3, 0, source.size(3));
      if (inside.sizes() != result.sizes()) result.zero_();
      inside.copy_(source).relu_();
    }
    return result;
  }

  const at::Tensor& pointwise() { return call_.stride == 1 ? rectified() : sampled(0); }

 private:
  const EdgeCall& call_;
  at::Tensor rectified_;
  std::array<at::Tensor, 2> sampled_;
};

bool is_convolution(const EdgeCandidate& candidate, int kernel) {
  const CandidateStages& stages = candidate.stages;
  return stages.starts_with(StageKind::kConvolution) && stages.stages[0].kernel == kernel;
}

bool fast3x3(const EdgeCall& call, const at::Tensor& weight) {
  return call.stride == 1 && conv3x3_supports(call.x, weight);
}

Pool3x3Call pool_of(const EdgeCall& call) {
  Pool3x3Call pool;
  pool.x = call.x;
  pool.stride = call.stride;
  pool.max = false;
  return pool;
}

// The columns of rows [N H W, C] that one half of the factorised reduction makes: C / 2, then C - C / 2.
at::Tensor columns(const at::Tensor& image, const EdgeCall& call, int64_t half) {
  const int64_t split = call.channels() / 2;
  return rows_of(image).slice(1, half == 0 ? 0 : split, half == 0 ? split : call.channels());
}

// z_k of a candidate, which has one stage or, as the identity, none.
at::Tensor product(const EdgeCall& call, const EdgeCandidate& candidate, Inputs& inputs) {
  if (candidate.stages.count == 0) return call.x;
  if (candidate.stages.is_pool()) return pool3x3_forward(pool_of(call)).second;
  const at::Tensor* weight = call.parameters.data() + candidate.parameter;
  if (is_convolution(candidate, 1)) {
    if (call.stride == 1 && fast1x1(call)) {
      return image_of(pointwise(call, rows_of(call.x), *weight, true), call);
    }
    return image_of(pointwise(call, rows_of(inputs.pointwise()), *weight, false), call);
  }
  if (is_convolution(candidate, 3)) {
    if (fast3x3(call, *weight)) return conv3x3_forward(call.x, *weight, true);
    return at::convolution(inputs.rectified(), *weight, {}, strides(call), kOnes, kOnes, false, kZeros, 1)
        .contiguous(kChannelsLast);
  }
  at::Tensor z = at::empty({call.batch(), call.channels(), call.out_height(), call.out_width()},
                           call.x.options().memory_format(kChannelsLast));
  for (int64_t half = 0; half < 2; ++half) {
    if (weight[half].size(0) == 0) continue;
    columns(z, call, half).copy_(pointwise(call, rows_of(inputs.sampled(half)), weight[half], false));
  }
  return z;
}

bool is_product(const EdgeCandidate& candidate) { return candidate.norms > 0; }

// Whether forward keeps this candidate's product for backward. By default only that of a 3x3 convolution: a
// 1x1 product takes a ninth of its operations to compute again.
bool keeps(const EdgeCall& call, const EdgeCandidate& candidate) {
  return candidate.slots > 0 && (call.save == Save::kEverything || is_convolution(candidate, 3));
}

// The candidates that take part, as normalized_sum takes them.
struct Terms {
  std::vector<int64_t> candidates;
  NormalizedSumCall sum;
};

// `plain`: also the candidates that are not normalised.
Terms terms_of(const EdgeCall& call, bool plain) {
  Terms terms;
  terms.sum.normalized = 0;
  terms.sum.batch_statistics = call.training;
  terms.sum.eps = call.eps;
  std::vector<at::Tensor> weights;
  for (size_t k = 0; k < call.candidates.size(); ++k) {
    const EdgeCandidate& candidate = call.candidates[k];
    if (!call.active(static_cast<int64_t>(k)) || !(plain || is_product(candidate))) continue;
    if (candidate.norms > 0) terms.sum.normalized |= uint64_t{1} << terms.candidates.size();
    terms.candidates.push_back(static_cast<int64_t>(k));
    weights.push_back(call.weights.select(0, static_cast<int64_t>(k)));
    const bool affine = call.affine && candidate.norms > 0;
    const int64_t gamma = candidate.parameter + candidate.parameters - 2;
    terms.sum.gamma.push_back(affine ? call.parameters[gamma] : at::Tensor());
    terms.sum.beta.push_back(affine ? call.parameters[gamma + 1] : at::Tensor());
    if (call.training) continue;
    const bool normalized = candidate.norms > 0;
    terms.sum.running_mean.push_back(normalized ? call.running[2 * candidate.norm] : at::Tensor());
    terms.sum.running_var.push_back(normalized ? call.running[2 * candidate.norm + 1] : at::Tensor());
  }
  if (!weights.empty()) {
    terms.sum.weights = weights.size() == call.candidates.size() ? call.weights : at::stack(weights);
  }
  return terms;
}

// Statistics by batch norm of the edge from statistics by term, and back.
at::Tensor pack(const EdgeCall& call, const Terms& terms, const NormalizedSumStatistics& statistics) {
  at::Tensor packed = at::zeros({call.norms, 3, call.channels()}, call.weights.options());
  for (size_t i = 0; i < terms.candidates.size(); ++i) {
    const EdgeCandidate& candidate = call.candidates[terms.candidates[i]];
    if (candidate.norms == 0) continue;
    at::Tensor rows = packed.select(0, candidate.norm);
    rows.select(0, 0).copy_(statistics.mean.select(0, i));
    rows.select(0, 1).copy_(statistics.rstd.select(0, i));
    rows.select(0, 2).copy_(call.training ? statistics.var.select(0, i) : terms.sum.running_var[i]);
  }
  return packed;
}

NormalizedSumStatistics unpack(const EdgeCall& call, const Terms& terms, const at::Tensor& packed) {
  NormalizedSumStatistics statistics;
  const int64_t count = static_cast<int64_t>(terms.candidates.size());
  statistics.mean = at::zeros({count, call.channels()}, packed.options());
  statistics.rstd = at::ones({count, call.channels()}, packed.options());
  statistics.var = at::zeros({call.training ? count : 0, call.channels()}, packed.options());
  for (int64_t i = 0; i < count; ++i) {
    const EdgeCandidate& candidate = call.candidates[terms.candidates[i]];
    if (candidate.norms == 0) continue;
    const at::Tensor rows = packed.select(0, candidate.norm);
    statistics.mean.select(0, i).copy_(rows.select(0, 0));
    statistics.rstd.select(0, i).copy_(rows.select(0, 1));
    if (call.training) statistics.var.select(0, i).copy_(rows.select(0, 2));
  }
  return statistics;
}

// From dL/dz of products to the gradients of their weights and of x.
class ProductGradients {
 public:
  // `sum`: what the other candidates add to dL/dx, or undefined.
  ProductGradients(const EdgeCall& call, Inputs& inputs, EdgeGradients& gradients, at::Tensor sum)
      : call_(call), inputs_(inputs), gradients_(gradients), sum_(std::move(sum)) {}

  void add(const EdgeCandidate& candidate, const at::Tensor& grad) {
    const at::Tensor* weight = call_.parameters.data() + candidate.parameter;
    at::Tensor* result = gradients_.parameters.data() + candidate.parameter;
    if (is_convolution(candidate, 3)) {
      add_3x3(*weight, *result, grad);
    } else if (is_convolution(candidate, 1)) {
      add_1x1(*weight, *result, rows_of(grad));
    } else {
      for (int64_t half = 0; half < 2; ++half) {
        if (weight[half].size(0) > 0)
          add_sampled(weight[half], result[half], columns(grad, call_, half), half);
      }
    }
  }

  at::Tensor total() {
    if (rectified_.defined()) {
      const at::Tensor masked = at::threshold_backward(rectified_, call_.x, 0);
      sum_ = sum_.defined() ? sum_.add_(masked) : masked;
    }
    return sum_;
  }

 private:
  void add_3x3(const at::Tensor& weight, at::Tensor& result, const at::Tensor& grad) {
    if (fast3x3(call_, weight)) {
      if (call_.needs_x) sum_ = conv3x3_backward_input(grad, weight, call_.x, true, optional(sum_));
      if (call_.needs_parameters) {
        result = conv3x3_backward_weight(grad, call_.x, true).squeeze(0).to(weight.scalar_type());
      }
      return;
    }
    auto [dx, dweight, _] = at::convolution_backward(
        grad, inputs_.rectified(), weight, std::nullopt, strides(call_), kOnes, kOnes, false, kZeros, 1,
        std::array<bool, 3>{call_.needs_x, call_.needs_parameters, false});
    if (call_.needs_x) accumulate(dx);
    if (call_.needs_parameters) result = dweight.contiguous();
  }

  void add_1x1(const at::Tensor& weight, at::Tensor& result, const at::Tensor& grad) {
    if (call_.stride == 2) return add_sampled(weight, result, grad, 0);
    const bool fused = fast1x1(call_);
    const at::Tensor input = rows_of(fused ? call_.x : inputs_.rectified());
    if (call_.needs_parameters) result = pointwise_weight(call_, grad, input, weight, fused);
    if (!call_.needs_x) return;
    if (fused) {
      const at::Tensor addend = sum_.defined() ? rows_of(sum_) : sum_;
      sum_ = image_of(pointwise_input(call_, grad, weight, input, addend), call_);
    } else if (rectified_.defined()) {
      rows_of(rectified_).addmm_(grad, matrix(weight));
    } else {
      rectified_ = image_of(pointwise_input(call_, grad, weight), call_);
    }
  }

  // A 1x1 convolution of every second pixel.
  void add_sampled(const at::Tensor& weight, at::Tensor& result, const at::Tensor& grad, int64_t shift) {
    if (call_.needs_parameters) {
      result = pointwise_weight(call_, grad, rows_of(inputs_.sampled(shift)), weight, false);
    }
    if (!call_.needs_x) return;
    if (!rectified_.defined()) {
      rectified_ = at::zeros(call_.x.sizes(), call_.x.options()).contiguous(kChannelsLast);
    }
    at::Tensor target = every_second(rectified_, shift);
    const at::Tensor image = image_of(pointwise_input(call_, grad, weight), call_);
    target.add_(image.slice(2, 0, target.size(2)).slice(3, 0, target.size(3)));
  }

  void accumulate(const at::Tensor& image) {
    rectified_ = rectified_.defined() ? rectified_.add_(image) : image.contiguous(kChannelsLast);
  }

  static std::optional<at::Tensor> optional(const at::Tensor& tensor) {
    return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
  }

  const EdgeCall& call_;
  Inputs& inputs_;
  EdgeGradients& gradients_;
  at::Tensor sum_;        // of dL/dx
  at::Tensor rectified_;  // of dL/drelu(x), where a product's kernel does not apply the mask itself
};

// dL/dx of the candidates that are not normalised, from shares[i] = w_k g of each: first
// that of x, then that of the pool added to it.
at::Tensor plain_gradient(const EdgeCall& call, const Terms& terms, const std::vector<at::Tensor>& shares) {
  at::Tensor sum;
  for (const bool pools : {false, true}) {
    for (size_t i = 0; i < shares.size(); ++i) {
      const EdgeCandidate& candidate = call.candidates[terms.candidates[i]];
      if (is_product(candidate) || pools != candidate.stages.is_pool()) continue;
      if (!pools) {
        sum = sum.defined() ? sum.add_(shares[i]) : shares[i];
        continue;
      }
      const bool accumulate = sum.defined();
      if (!accumulate) sum = at::empty_like(call.x, kChannelsLast);
      pool3x3_backward(pool_of(call), at::Tensor(), shares[i], sum, accumulate);
    }
  }
  return sum;
}

// Whether one pass, plain_gradient.h, gives dL/dx of x and of its pool and the gradients of their weights.
bool fuses_plain(const EdgeCall& call) {
  return call.x.is_cpu() && call.x.scalar_type() == at::kFloat && call.stride == 1;
}

at::Tensor fused_plain_gradient(const EdgeCall& call, const at::Tensor& grad, at::Tensor& weights) {
  PlainGradientParams params;
  bool any = false;
  for (size_t k = 0; k < call.candidates.size(); ++k) {
    if (is_product(call.candidates[k]) || !call.active(static_cast<int64_t>(k))) continue;
    const bool pool = call.candidates[k].stages.is_pool();
    (pool ? params.pool : params.skip) += static_cast<float>(call.host_weights[k]);
    any = true;
  }
  if (!any) return {};
  const Parallel parallel = torch_parallel();
  params.samples = call.batch();
  params.channels = call.channels();
  params.height = call.x.size(2);
  params.width = call.x.size(3);
  const at::Tensor out = call.needs_x ? at::empty_like(call.x, kChannelsLast) : at::Tensor();
  const at::Tensor sums = at::empty({params.samples * params.height, 2}, at::kDouble);
  const at::Tensor workspace =
      at::empty({parallel.threads, (params.width + 2) * params.channels}, at::kFloat);
  params.grad = grad.const_data_ptr<float>();
  params.x = call.x.const_data_ptr<float>();
  params.out = call.needs_x ? out.mutable_data_ptr<float>() : nullptr;
  params.sums = sums.mutable_data_ptr<double>();
  params.workspace = workspace.mutable_data_ptr<float>();
  PYNAS_DISPATCH_ISA(plain_gradient, params, parallel);
  if (!call.needs_weights) return out;
  const at::Tensor totals = sums.sum(0);
  for (size_t k = 0; k < call.candidates.size(); ++k) {
    if (is_product(call.candidates[k]) || !call.active(static_cast<int64_t>(k))) continue;
    const int64_t which = call.candidates[k].stages.is_pool() ? 1 : 0;
    weights.mutable_data_ptr<float>()[k] = static_cast<float>(totals.const_data_ptr<double>()[which]);
  }
  return out;
}

// Sets the gradients of all `terms` and returns dL/dx; `sum`, if defined, is that of the
// candidates that are not among them.
at::Tensor term_gradients(const EdgeCall& call, Terms terms, const EdgeOutput& forward,
                          const at::Tensor& grad, at::Tensor sum, EdgeGradients& gradients) {
  Inputs inputs(call);
  uint64_t wanted = 0;
  for (size_t i = 0; i < terms.candidates.size(); ++i) {
    const EdgeCandidate& candidate = call.candidates[terms.candidates[i]];
    const bool kept = keeps(call, candidate) && forward.saved[candidate.saved].defined();
    terms.sum.inputs.push_back(kept ? image_of(forward.saved[candidate.saved], call)
                                    : product(call, candidate, inputs));
    if (call.needs_x || (is_product(candidate) && call.needs_parameters)) wanted |= uint64_t{1} << i;
  }
  const NormalizedSumStatistics statistics = unpack(call, terms, forward.statistics);
  const NormalizedSumGradients reduced = normalized_sum_reduce(grad, terms.sum, statistics);
  // dL/dz_k, and w_k g of candidates that are not normalised, from one reading of g.
  std::vector<at::Tensor> grads(terms.candidates.size());
  if (wanted != 0) {
    const auto made = normalized_sum_input_gradients(grad, terms.sum, reduced.coefficients, wanted);
    for (size_t i = 0, next = 0; i < grads.size(); ++i) {
      if ((wanted >> i & 1) != 0) grads[i] = made[next++];
    }
  }
  if (call.needs_x && !sum.defined()) sum = plain_gradient(call, terms, grads);
  ProductGradients products(call, inputs, gradients, sum);
  for (size_t i = 0; i < terms.candidates.size(); ++i) {
    const int64_t k = terms.candidates[i];
    const EdgeCandidate& candidate = call.candidates[k];
    if (call.needs_weights) gradients.weights.select(0, k).copy_(reduced.weights.select(0, i));
    if (!is_product(candidate) || !grads[i].defined()) continue;
    products.add(candidate, grads[i]);
    if (call.affine && call.needs_parameters) {
      const int64_t gamma = candidate.parameter + candidate.parameters - 2;
      gradients.parameters[gamma] = reduced.gamma.select(0, i).clone();
      gradients.parameters[gamma + 1] = reduced.beta.select(0, i).clone();
    }
  }
  return call.needs_x ? products.total() : at::Tensor();
}

}  // namespace
}  // namespace nasbench201_binding

EdgeOutput nasbench201_forward(const EdgeCall& call) {
  using namespace nasbench201_binding;
  Inputs inputs(call);
  Terms terms = terms_of(call, true);
  EdgeOutput output;
  output.saved.resize(call.slots);
  for (const int64_t k : terms.candidates) {
    const EdgeCandidate& candidate = call.candidates[k];
    const at::Tensor z = product(call, candidate, inputs);
    terms.sum.inputs.push_back(z);
    if (keeps(call, candidate)) output.saved[candidate.saved] = rows_of(z);
  }
  const NormalizedSumStatistics statistics = normalized_sum_statistics(terms.sum);
  output.y = normalized_sum_apply(terms.sum, statistics);
  output.statistics = pack(call, terms, statistics);
  return output;
}

EdgeGradients nasbench201_backward(const EdgeCall& call, const EdgeOutput& forward, const at::Tensor& grad) {
  using namespace nasbench201_binding;
  EdgeGradients gradients;
  gradients.parameters.resize(call.parameters.size());
  if (call.needs_weights) gradients.weights = at::zeros_like(call.weights);
  const bool fused = fuses_plain(call);
  const at::Tensor sum = fused ? fused_plain_gradient(call, grad, gradients.weights) : at::Tensor();
  const Terms terms = terms_of(call, !fused);
  gradients.x = terms.candidates.empty() ? sum : term_gradients(call, terms, forward, grad, sum, gradients);
  return gradients;
}

}  // namespace pynas
