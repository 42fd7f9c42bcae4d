// The weighted sum of K batch-normalised inputs z_k [outer, channels, inner]:
//
//   y_m    = sum_k w_k n_k(z_km)
//   n_k(z) = gamma_kc (z - mu_kc) r_kc + beta_kc,   or z where input k is added as it is
//
// m runs over the M = outer inner values of a channel c. mu and r = 1 / sqrt(var + eps) are those of the
// batch, or given. The type S of sums and coefficients is float32, and float64 for float64 inputs.
//
//   statistics        mu_kc        = 1/M sum_m z_km
//                     var_kc       = 1/M sum_m (z_km - mu_kc)^2
//
//   apply             y_m          = sum_k s_kc z_km + t_c
//                     s_kc         = w_k gamma_kc r_kc
//                     t_c          = sum_k (w_k beta_kc - s_kc mu_kc)
//
//   reduce            A_c          = sum_m g_m,   g = dL/dy
//                     B_kc         = sum_m g_m (z_km - mu_kc)
//                     dL/dw_k      = sum_c (gamma_kc r_kc B_kc + beta_kc A_c)
//                     dL/dgamma_kc = w_k r_kc B_kc
//                     dL/dbeta_kc  = w_k A_c
//
//   input gradients   dL/dz_km     = a_kc g_m + b_kc z_km + c_kc
//                     a_kc         = s_kc
//                     b_kc         = -s_kc r_kc^2 B_kc / M          (0 where the statistics are given)
//                     c_kc         = -s_kc A_c / M - b_kc mu_kc     (0 where the statistics are given)
//
// Inputs that are added as they are have gamma = 1, beta = 0, mu = 0, r = 1 and b = c = 0.
// An input whose weight is 0 is not read: its batch statistics and all gradients of it are zeros.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct NormalizedSumParams {
  static constexpr int kMaxInputs = 64;

  int count = 0;                           // K
  const void* inputs[kMaxInputs] = {};     // each [outer, channels, inner] of dtype, contiguous
  const void* gamma[kMaxInputs] = {};      // each [channels] of S, or null for ones
  const void* beta[kMaxInputs] = {};       // each [channels] of S, or null for zeros
  void* input_gradients[kMaxInputs] = {};  // each like an input, or null where it is not wanted
  const void* weights = nullptr;           // [K] of S, or null for ones
  const void* grad_output = nullptr;       // like an input
  void* output = nullptr;                  // like an input
  void* mean = nullptr;                    // [K, channels] of S; written by statistics, read by the rest
  void* rstd = nullptr;                    // likewise
  void* var = nullptr;                     // [K, channels] of S, biased; written by statistics only
  void* coefficients = nullptr;            // [3, K, channels] of S: a, b, c; from reduce to input_gradients
  void* grad_weights = nullptr;            // [K] of S
  void* grad_gamma = nullptr;              // [K, channels] of S
  void* grad_beta = nullptr;               // [K, channels] of S
  void* workspace = nullptr;               // normalized_sum_workspace bytes
  int64_t outer = 0, channels = 0, inner = 1;  // inner = 1 for channels_last
  uint64_t normalized = 0;                     // bit k: z_k is batch-normalised
  bool batch_statistics = true;
  double eps = 1e-5;
  DType dtype = DType::kFloat32;

  bool is_normalized(int k) const { return (normalized >> k & 1u) != 0; }
};

// running_mean_k <- (1 - momentum) running_mean_k + momentum mean_k
// running_var_k  <- (1 - momentum) running_var_k  + momentum unbias var_k
// for every k whose weight is not 0 and whose running_mean is not null.
struct NormalizedSumRunningParams {
  static constexpr int kMaxInputs = NormalizedSumParams::kMaxInputs;

  int count = 0;
  void* running_mean[kMaxInputs] = {};  // each [channels] of S, or null
  void* running_var[kMaxInputs] = {};
  const void* mean = nullptr;  // [K, channels] of S
  const void* var = nullptr;
  const void* weights = nullptr;  // [K] of S, or null for ones
  int64_t channels = 0;
  double momentum = 0.1, unbias = 1.0;  // unbias = M / (M - 1)
  bool is_double = false;
};

namespace cpu {
// `bytes` is enough for each of the operations below.
PYNAS_DECLARE_PER_ISA(void normalized_sum_workspace(const NormalizedSumParams&, const Parallel&,
                                                    int64_t& bytes);
                      void normalized_sum_statistics(const NormalizedSumParams&, const Parallel&);
                      void normalized_sum_apply(const NormalizedSumParams&, const Parallel&);
                      void normalized_sum_reduce(const NormalizedSumParams&, const Parallel&);
                      void normalized_sum_input_gradients(const NormalizedSumParams&, const Parallel&))
}  // namespace cpu
namespace cuda {
void normalized_sum_workspace(const NormalizedSumParams&, int64_t& bytes);
void normalized_sum_statistics(const NormalizedSumParams&, void* stream);  // stream: a cudaStream_t
void normalized_sum_apply(const NormalizedSumParams&, void* stream);
void normalized_sum_reduce(const NormalizedSumParams&, void* stream);
void normalized_sum_input_gradients(const NormalizedSumParams&, void* stream);
void normalized_sum_update_running(const NormalizedSumRunningParams&, void* stream);
}  // namespace cuda

}  // namespace pynas
