// The DARTS mixture as a sequence of stages that know neither CPU nor CUDA: depthwise convolutions and pools
// of ops/depthwise and ops/pool3x3, pointwise products by at::mm, ops/normalized_sum for the rest. Shared by
// forward (darts_stages_torch.cpp) and backward (darts_stages_backward_torch.cpp).
//
// With h = max(0, x), d and z matrices of M = N out_height out_width rows and C channels, depthwise kernels
// D [C, k, k] with the convolution *, and pointwise weights P [C, C]:
//
//   dil    d_1 = D_1 * h,                z_1 = d_1 P_1^T
//   sep    d_1 = D_1 * h,                z_1 = d_1 P_1^T,
//          d_2 = D_2 * max(0, BN(z_1)),  z_2 = d_2 P_2^T
//   pools  z_1 = max or mean of the windows of x
//   skip   stride 1: x
//          stride 2: d_1 = h at even rows and columns, d_2 = h at odd ones, z_1 = [d_1 P_1^T, d_2 P_2^T],
//                    P_1 [C / 2, C], P_2 [C - C / 2, C]
//
//   y      = sum_k w_k BN(z of k's last step), without BN for skip at stride 1
//
// Where the host knows a weight to be zero the candidate is left out. On a GPU the kernels look at
// the weights: the candidate's depthwise convolutions and pools write zeros, and
// ops/normalized_sum does not read what comes of them.
#pragma once

#include <vector>

#include "bindings/tensor.h"
#include "ops/depthwise/depthwise_api.h"
#include "ops/mixed_op/edge.h"
#include "ops/normalized_sum/normalized_sum_api.h"
#include "ops/pool3x3/pool3x3_api.h"

namespace pynas::darts_stages {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

// Depthwise, pointwise and batch norm of a step: positions in EdgeCall::parameters, and `norm` the row of
// statistics. Of the reduction, `depthwise` and `pointwise` are its two halves' weights.
struct Step {
  int64_t depthwise, pointwise, gamma, beta, norm;  // -1 where there is none
};

// A candidate that takes part, with what of it is known: images [N, C, out_height, out_width] channels_last.
struct Part {
  int64_t k = 0;  // position in the mixture
  CandidateStages stages;
  std::vector<Step> steps;  // one for each of them
  at::Tensor d[2], z[2];    // of step 0 and 1 (d of a reduction: its halves); undefined when not there
  bool is_conv() const { return stages.starts_with(StageKind::kSeparable); }
  bool is_sep() const { return is_conv() && stages.count == 2; }
  bool is_max_pool() const { return stages.starts_with(StageKind::kMaxPool); }
  bool is_pool() const { return stages.is_pool(); }
  bool is_identity() const { return stages.count == 0; }
  bool is_reduction() const { return stages.starts_with(StageKind::kReduction); }
  const at::Tensor& last() const { return z[steps.size() > 1 ? 1 : 0]; }
};

// The candidates that take part, in order, without their tensors.
std::vector<Part> parts_of(const EdgeCall& call);

// Each computes what the parts lack: z of pools; d and z of reductions; d[0] and z[0] of convolutions; d[1]
// and z[1] of a separable convolution, from z[0] and its mean and rstd [C].
void compute_pools(const EdgeCall& call, std::vector<Part>& parts);
void compute_reductions(const EdgeCall& call, std::vector<Part>& parts);
void compute_first_step(const EdgeCall& call, std::vector<Part>& parts);
void compute_second_step(const EdgeCall& call, Part& part, const at::Tensor& mean, const at::Tensor& rstd);

// What depthwise convolutions read: the part's second one max(0, BN(z_1)), all first ones max(0, x).
DepthwiseInput second_input(const EdgeCall& call, const Part& part, const at::Tensor& mean,
                            const at::Tensor& rstd);
DepthwiseInput first_input(const EdgeCall& call);
DepthwiseFilter filter_of(const EdgeCall& call, const Part& part, int step);
Pool3x3Call pool_call(const EdgeCall& call, const std::vector<Part*>& pools);

// The sum over the parts of the weighted batch norms of their last step or, without `last`, of their first
// one: the arguments of ops/normalized_sum.
NormalizedSumCall sum_of(const EdgeCall& call, const std::vector<Part*>& parts, bool last);

// Convolutions in groups of as many as one call takes; pools in pairs of a maximum and an
// average, where both are there.
std::vector<std::vector<Part*>> convolution_groups(std::vector<Part>& parts);
std::vector<std::vector<Part*>> pool_pairs(std::vector<Part>& parts);

// From rows [M, C] to an image [N, C, out_height, out_width] in channels_last, and back; both without a copy.
at::Tensor image_of(const EdgeCall& call, const at::Tensor& rows);
at::Tensor rows_of(const at::Tensor& image);

// The pixels of x in even (half 0) or odd (half 1) rows and columns, which that half of a reduction reads: a
// view [N, C, h, w] with h <= out_height, w <= out_width.
at::Tensor reduction_pixels(const EdgeCall& call, const at::Tensor& x, int half);

inline at::Tensor pointwise_weight(const at::Tensor& weight) { return weight.flatten(1); }

}  // namespace pynas::darts_stages
