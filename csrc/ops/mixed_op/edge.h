// One edge of a supernet, y = sum_k w_k op_k(x): what mixed_op_torch.cpp checks and hands to an
// implementation, and what it gets back. Only *_torch.cpp files include this.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pynas {

// The codes of pynas/ops/_candidates.py. A mixture may hold the same candidate more than once.
enum class Candidate : int64_t {
  kNone,
  kMaxPool3x3,
  kAvgPool3x3,
  kSkipConnect,
  kSepConv3x3,
  kSepConv5x5,
  kDilConv3x3,
  kDilConv5x5,
  kNorConv1x1,
  kNorConv3x3,
};

// In kDarts every pool is followed by a batch norm that is never affine; elsewhere pools have none.
enum class Family : int64_t { kDarts, kNasBench201, kTransNas };

// What forward keeps for backward: nothing but the statistics, the products that batch norm reads and that
// are not cheap to compute again, or also what is (1x1 products, rectified inputs, depthwise products,
// pools).
enum class Save : int64_t { kNothing, kProducts, kEverything };

struct EdgeCandidate {
  Candidate kind = Candidate::kNone;
  // The weights entry is the position in EdgeCall::candidates. First entry of the others, and how many:
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
  std::vector<at::Tensor>
      running;  // mean, variance of each batch norm [C], accumulate type; empty in training
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
  int64_t out_height() const { return (x.size(2) + stride - 1) / stride; }
  int64_t out_width() const { return (x.size(3) + stride - 1) / stride; }
  // False only where the weight is known to be exactly zero: the candidate is then not computed, nothing of
  // it is saved and its gradients are zero.
  bool active(int64_t k) const {
    return candidates[k].kind != Candidate::kNone && (host_weights.empty() || host_weights[k] != 0.0);
  }
};

struct EdgeOutput {
  at::Tensor y;  // [N, C, out_height, out_width] in channels_last, x's dtype
  // [norms, 3, C] in the accumulate type: mean, 1 / sqrt(variance + eps) and biased variance that each batch
  // norm used (in evaluation those of `running`); rows of candidates that were not computed are anything
  // finite.
  at::Tensor statistics;
  // `slots` entries, each rows of channels [N out_height out_width, C], contiguous in x's dtype, or left
  // undefined when there is nothing to keep. A candidate has under kProducts one slot for each of its batch
  // norms, under kEverything two. Which slot holds what is the implementation's own affair; it computes again
  // what it finds undefined.
  std::vector<at::Tensor> saved;
};

struct EdgeGradients {
  at::Tensor x;        // like EdgeCall::x
  at::Tensor weights;  // [K] accumulate type; zero where the weight is exactly zero
  // Like EdgeCall::parameters, sizes and dtypes; an undefined one stands for zeros. None may share memory.
  std::vector<at::Tensor> parameters;
};

// backward gets `forward` with y undefined, and the gradient of y in channels_last.
EdgeOutput darts_stages_forward(const EdgeCall& call);
EdgeGradients darts_stages_backward(const EdgeCall& call, const EdgeOutput& forward, const at::Tensor& grad);

EdgeOutput nasbench201_forward(const EdgeCall& call);
EdgeGradients nasbench201_backward(const EdgeCall& call, const EdgeOutput& forward, const at::Tensor& grad);

}  // namespace pynas
