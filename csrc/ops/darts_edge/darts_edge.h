// A mixed edge of DARTS (Liu et al., 2019), forward and backward, on the CPU in float32:
//   y = sum_k w_k op_k(x),   x [N, C, H, W] -> y [N, C, Ho, Wo],   Ho = ceil(H / stride), Wo = ceil(W /
//   stride)
// over {none, max_pool_3x3, avg_pool_3x3, skip_connect, sep_conv_3x3, sep_conv_5x5, dil_conv_3x3,
// dil_conv_5x5}, all computed from one reading of x. With depthwise and pointwise convolutions dw and pw, a
// product z = pw(dw(relu(.))) of M = N Ho Wo values per channel, and batch normalisation
//   BN(z)_c = gamma_c rstd_c (z_c - mean_c) + beta_c,   rstd_c = 1 / sqrt(var_c + eps)
// the candidates are
//   pools           BN(pool(x)), padding 1; the average counts only pixels inside the image
//   skip_connect    x; at stride 2 the factorised reduction BN(cat[conv_1 relu(x)_{2i, 2j}, conv_2
//   relu(x)_{2i+1, 2j+1}]),
//                   where pixels outside the image are zero, with C / 2 and C - C / 2 outputs
//   dil_conv_kxk    BN(z), dw with dilation 2 and the edge's stride
//   sep_conv_kxk    BN_2(z_2), z_2 = pw_2(dw_2(relu(BN_1(z_1)))), z_1 = pw_1(dw_1(relu(x))) with the edge's
//   stride
// so that y = w_skip x + sum_k s_kc z_k + t_c with s_kc = w_k gamma_kc rstd_kc, in one pass over the z_k.
// Kept for the backward pass are x, the products z and the statistics; pools and depthwise convolutions are
// computed again.
//
// Backward, with g = dL/dy, A_c = sum g, B_kc = sum g (z_k - mean_k):
//   dL/dw_k = sum_c gamma rstd B_k + beta A,  dL/dgamma_k = w_k rstd B_k,  dL/dbeta_k = w_k A,
//   dL/dz_k = s_k [g - A / M - rstd^2 (z_k - mean_k) B_k / M]   (running statistics: s_k g)
// which is affine in g and z_k per channel and is formed where the next product reads it, never stored.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

// Index of a candidate in DartsEdgeParams::candidates; also its place in the field's list of primitives.
enum class DartsCandidate : int {
  kNone = 0,
  kMaxPool3x3 = 1,
  kAvgPool3x3 = 2,
  kSkipConnect = 3,
  kSepConv3x3 = 4,
  kSepConv5x5 = 5,
  kDilConv3x3 = 6,
  kDilConv5x5 = 7,
};
constexpr int kDartsCandidates = 8;

// One batch normalisation over C channels.
struct DartsNorm {
  const float* gamma = nullptr;   // [C], null for ones
  const float* beta = nullptr;    // [C], null for zeros
  float* running_mean = nullptr;  // [C]; with batch statistics updated, and null where none are kept;
  float* running_var = nullptr;   // [C]; without, read
  float* mean = nullptr;          // [C], written by the forward and read by the backward pass: what it
  float* rstd = nullptr;          // [C]  normalised by, whichever statistics those were
  float* grad_gamma = nullptr;    // [C] or null
  float* grad_beta = nullptr;     // [C] or null
};

// Convolutions followed by one normalisation. A separable convolution has two of these, a dilated one and
// the factorised reduction (stride 2) one, a pool only the normalisation.
struct DartsStage {
  const float* depthwise = nullptr;  // [C, 1, k, k]; factorised reduction: null
  const float* pointwise =
      nullptr;  // [C, C, 1, 1]; factorised reduction: conv_1 [C / 2, C, 1, 1], null if C is 1
  const float* pointwise_2 = nullptr;  // factorised reduction: conv_2 [C - C / 2, C, 1, 1]; else null
  // N C Ho Wo floats: z, written by the forward and read by the backward pass (or written by it too, see
  // recompute_products). The order inside is the engine's own, [N][C / lanes][Ho Wo][lanes], and depends on
  // the instruction set.
  float* product = nullptr;
  float* grad_depthwise = nullptr;  // gradients are in the shape of their weights; any may be null
  float* grad_pointwise = nullptr;
  float* grad_pointwise_2 = nullptr;
  DartsNorm norm;
};

struct DartsCandidateParams {
  float weight = 0.0f;           // exactly 0: not computed, its pointers but for the gradients may be null
  float* grad_weight = nullptr;  // one float or null
  DartsStage stages[2];          // those that the candidate has, from the first on
};

// Images lie as channels_last: [N, H, W, C] contiguous. Every gradient that is not null is written (not added
// to), with zeros where the candidate's weight is zero. Nothing is kept between calls, and calls may overlap
// on different threads as long as they do not share outputs.
struct DartsEdgeParams {
  int64_t samples = 0;   // N
  int64_t channels = 0;  // C
  int64_t height = 0;    // H
  int64_t width = 0;     // W
  int stride = 1;        // 1 or 2
  DartsCandidateParams candidates[kDartsCandidates];

  const float* x = nullptr;            // [N, H, W, C]
  float* out = nullptr;                // forward: [N, Ho, Wo, C]
  const float* grad_output = nullptr;  // backward: [N, Ho, Wo, C]
  float* grad_x = nullptr;             // backward: [N, H, W, C] or null

  bool batch_statistics = true;  // training, or no running statistics are kept; false: running statistics
  double momentum = 0.1;         // running <- (1 - momentum) running + momentum batch, the variance unbiased
  double eps = 1e-5;
  // Backward: the products are not those of the forward pass but room for them; they are computed first.
  bool recompute_products = false;

  // As many bytes as darts_edge_workspace says for this edge, this pass and this number of threads.
  void* workspace = nullptr;
};

namespace cpu {
// The bytes of workspace come back through pointers so that the call dispatches like any kernel. They depend
// on the sizes and on which candidates have a weight, not on the pointers.
PYNAS_DECLARE_PER_ISA(void darts_edge_workspace(const DartsEdgeParams&, int threads, int64_t* forward_bytes,
                                                int64_t* backward_bytes);
                      void darts_edge_forward(const DartsEdgeParams&, const Parallel&);
                      void darts_edge_backward(const DartsEdgeParams&, const Parallel&))
}  // namespace cpu

}  // namespace pynas
