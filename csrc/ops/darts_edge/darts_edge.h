// A mixed edge of DARTS (Liu et al., 2019), forward and backward, on the CPU in float32:
//
//   y = sum_k w_k op_k(x)
//
// from x [N, C, H, W] to y [N, C, Ho, Wo], Ho = ceil(H / stride), Wo = ceil(W / stride), over the
// operations none, max_pool_3x3, avg_pool_3x3, skip_connect, sep_conv_3x3, sep_conv_5x5, dil_conv_3x3
// and dil_conv_5x5, all computed from one reading of x. dw and pw are depthwise and pointwise
// convolutions, and over the M = N Ho Wo values of a channel
//
//   BN(z)_c = gamma_c rstd_c (z_c - mean_c) + beta_c,   rstd_c = 1 / sqrt(var_c + eps)
//
// The candidates are
//
//   pools          BN(z), z = pool(x), padding 1; the average counts only pixels inside the image
//   skip_connect   stride 1: x
//                  stride 2: the factorised reduction BN(z), 1x1 convolutions of C / 2 and C - C / 2 outputs,
//                  z_ij = cat[conv_1 relu(x)_{2i, 2j}, conv_2 relu(x)_{2i+1, 2j+1}],
//                  where pixels outside the image are zero
//   dil_conv_kxk   BN(z), z = pw(dw(relu(x))), dw with dilation 2 and the edge's stride
//   sep_conv_kxk   BN_2(z_2), z_2 = pw_2(dw_2(relu(BN_1(z_1)))),
//                  z_1 = pw_1(dw_1(relu(x))), dw_1 with the edge's stride
//
// so that, in one pass over each candidate's last z,
//
//   y    = w_skip x + sum_k s_kc z_k + t_c       (the first term at stride 1 only)
//   s_kc = w_k gamma_kc rstd_kc
//   t_c  = sum_k (w_k beta_kc - s_kc mean_kc)
//
// Kept for the backward pass are x, the products z of convolutions and the statistics; pools and depthwise
// convolutions are computed again.
//
// Backward, with g = dL/dy and sums over the M values of a channel:
//
//   A_c           = sum g
//   B_kc          = sum g (z_k - mean_kc)
//   dL/dw_k       = sum_c (gamma_kc rstd_kc B_kc + beta_kc A_c)
//   dL/dw_skip    = sum_c sum g x                                                        (stride 1)
//   dL/dgamma_kc  = w_k rstd_kc B_kc
//   dL/dbeta_kc   = w_k A_c
//   dL/dz_k       = s_kc [g - A_c / M - rstd_kc^2 (z_k - mean_kc) B_kc / M]              (batch statistics)
//   dL/dz_k       = s_kc g                                                               (running statistics)
//   dL/dBN_1(z_1) = [BN_1(z_1) > 0] dw_2^T pw_2^T dL/dz_2, and from it dL/dz_1 as above with w = 1
//   dL/dx         = w_skip g                                                             (stride 1)
//                   + sum over the pools of pool^T dL/dz_k
//                   + [x > 0] sum over the convolutions of x of dw^T pw^T dL/dz
//
// ^T is the transposed operation. dL/dz is affine in g and z per channel and is formed, some rows at a time,
// where the transposed product reads it.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "common/parallel.h"
#include "ops/mixed_op/candidates.h"

namespace pynas {

// One batch normalisation over C channels. mean, rstd and variance are what it normalised by, whether that was
// the batch's or the running ones: written by the forward pass; the backward pass reads mean and rstd.
struct DartsNorm {
  const float* gamma = nullptr;         // [C], null for ones
  const float* beta = nullptr;          // [C], null for zeros
  const float* running_mean = nullptr;  // [C], read where batch_statistics is false
  const float* running_var = nullptr;   // [C]
  float* mean = nullptr;                // [C]
  float* rstd = nullptr;                // [C]: 1 / sqrt(variance + eps)
  float* variance = nullptr;            // [C], biased; backward: null
  float* grad_gamma = nullptr;          // [C] or null
  float* grad_beta = nullptr;           // [C] or null
};

// Convolutions followed by one normalisation. A separable convolution has two stages, a dilated one and the
// factorised reduction (stride 2) have one, a pool has one of the normalisation alone.
struct DartsStage {
  const float* depthwise = nullptr;    // [C, 1, k, k]; reduction: null
  const float* pointwise = nullptr;    // [C, C, 1, 1]; reduction: conv_1 [C / 2, C, 1, 1], null if C is 1
  const float* pointwise_2 = nullptr;  // reduction: conv_2 [C - C / 2, C, 1, 1]; else null
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
  float weight = 0.0f;           // exactly 0: not computed, all pointers but the gradients' may be null
  float* grad_weight = nullptr;  // one float or null
  DartsStage stages[2];          // those that the candidate has, from the first on
};

// Images lie as channels_last: [N, H, W, C] contiguous. Every gradient that is not null is written (not added
// to), with zeros where the candidate's weight is zero. Nothing is kept between calls, and calls may overlap
// on different threads as long as they do not share outputs.
struct DartsEdgeParams {
  int64_t samples = 0;                                // N
  int64_t channels = 0;                               // C
  int64_t height = 0;                                 // H
  int64_t width = 0;                                  // W
  int stride = 1;                                     // 1 or 2
  DartsCandidateParams candidates[kDartsCandidates];  // at their codes

  const float* x = nullptr;            // [N, H, W, C]
  float* out = nullptr;                // forward: [N, Ho, Wo, C]
  const float* grad_output = nullptr;  // backward: [N, Ho, Wo, C]
  float* grad_x = nullptr;             // backward: [N, H, W, C] or null

  bool batch_statistics = true;  // training, or no running statistics are kept; false: running statistics
  double eps = 1e-5;
  // Backward: the products are room for those of the forward pass, which are computed first.
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
