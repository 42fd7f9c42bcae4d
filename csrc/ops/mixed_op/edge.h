// One edge of a supernet:
//
//   y       = sum_k w_k op_k(x),   x [N, C, H, W] -> y [N, C, ceil(H / stride), ceil(W / stride)]
//   dL/dw_k = sum g op_k(x) over all elements,   g = dL/dy
//   dL/dx   = sum_k w_k (d op_k / dx)^T g
//
// Here is what mixed_op_torch.cpp checks and hands to an implementation, and what it gets back. For the
// formulas of the candidates op_k see ops/darts_edge/darts_edge.h and, for NAS-Bench-201 and
// TransNAS-Bench-101, nasbench201_torch.cpp. Only *_torch.cpp files include this.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "common/math.h"
#include "ops/mixed_op/candidates.h"

namespace pynas {

// What forward keeps for backward, beside the statistics:
//   kNothing      nothing
//   kProducts     what batch norms read, unless it is cheap to compute again: in DARTS all but the pools, in
//                 the other families 3x3 convolutions
//   kEverything   also what is cheap and, in the composition of stages, what pointwise products read; the
//                 engine of ops/darts_edge keeps the same as under kProducts
enum class Save : int64_t { kNothing, kProducts, kEverything };

struct EdgeCandidate {
  Candidate kind = Candidate::kNone;
  CandidateStages stages;  // what it consists of in this edge
  // The candidate's weight stands at its position in EdgeCall::candidates. The first entry
  // of the others, and how many there are:
  int64_t parameter = 0, parameters = 0;  // in EdgeCall::parameters, order of the candidate's state_dict
  int64_t norm = 0, norms = 0;   // rows of statistics; running[2 norm] is the mean, [2 norm + 1] the variance
  int64_t saved = 0, slots = 0;  // in EdgeOutput::saved
};

struct EdgeCall {
  at::Tensor x;        // [N, C, H, W] in channels_last
  at::Tensor weights;  // [K] on x's device, in the accumulate type: float, double for a double x
  // The same values where reading them is free (CPU); empty elsewhere, where kernels must read `weights`
  // themselves and skip a candidate whose weight is zero: the host never waits for them.
  std::vector<double> host_weights;
  std::vector<EdgeCandidate> candidates;  // [K]
  // Contiguous. Convolutions in x's dtype, affine batch norms (gamma, beta) in the accumulate type.
  std::vector<at::Tensor> parameters;
  // Mean and variance [C] of each batch norm, in the accumulate type; empty in training.
  std::vector<at::Tensor> running;
  Family family = Family::kDarts;
  Save save = Save::kProducts;
  int64_t stride = 1;  // 1 or 2; the output has ceil(H / stride) x ceil(W / stride) pixels
  bool affine = false;
  bool training = true;  // batch statistics; otherwise those of `running`
  double eps = 1e-5;
  int64_t norms = 0, slots = 0;  // rows of statistics, entries of saved
  // Backward only: which gradients are wanted. The others may be left undefined.
  bool needs_x = true, needs_weights = true, needs_parameters = true;

  int64_t batch() const { return x.size(0); }
  int64_t channels() const { return x.size(1); }
  int64_t out_height() const { return ceil_div(x.size(2), stride); }
  int64_t out_width() const { return ceil_div(x.size(3), stride); }
  // False only where the weight is known to be exactly zero: the candidate is then not computed, nothing of
  // it is saved and its gradients are zero.
  bool active(int64_t k) const {
    return candidates[k].kind != Candidate::kNone && (host_weights.empty() || host_weights[k] != 0.0);
  }
};

struct EdgeOutput {
  at::Tensor y;  // [N, C, out_height, out_width] in channels_last, x's dtype
  // [norms, 3, C] in the accumulate type: mean, 1 / sqrt(variance + eps) and biased
  // variance that each batch norm used (in evaluation those of `running`). Rows of
  // candidates that were not computed hold any finite numbers.
  at::Tensor statistics;
  // `slots` entries, each rows of channels [N out_height out_width, C], contiguous in x's dtype,
  // or undefined where there is nothing to keep. A candidate has one slot for each of its batch
  // norms under kProducts, and two under kEverything. What a slot holds is up to the
  // implementation; it computes again what it finds undefined.
  std::vector<at::Tensor> saved;
};

struct EdgeGradients {
  at::Tensor x;        // like EdgeCall::x
  at::Tensor weights;  // [K] accumulate type; zero where the weight is exactly zero
  // Of the sizes and dtypes of EdgeCall::parameters; an undefined one stands for zeros.
  // None may share memory.
  std::vector<at::Tensor> parameters;
};

// backward gets `forward` with y undefined, and the gradient of y in channels_last.
EdgeOutput darts_stages_forward(const EdgeCall& call);
EdgeGradients darts_stages_backward(const EdgeCall& call, const EdgeOutput& forward, const at::Tensor& grad);

EdgeOutput nasbench201_forward(const EdgeCall& call);
EdgeGradients nasbench201_backward(const EdgeCall& call, const EdgeOutput& forward, const at::Tensor& grad);

}  // namespace pynas
