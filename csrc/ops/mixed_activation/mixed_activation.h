// The mixture of activations that makes one node of a recurrent supernet cell (Liu, Simonyan & Yang, "DARTS",
// ICLR 2019). Predecessor j of J has states s_jbd and products c_jbd, h_jbd for batch entry b of B and
// feature d of D; activation k has function f_k and weight w_jk. Sums over k leave out "none":
//
//   sigma(x) = 1 / (1 + e^-x)
//   W_j      = sum_k w_jk
//   F_jbd    = sum_k w_jk f_k(h_jbd)
//   s_bd     = sum_j sum_k w_jk [s_jbd + sigma(c_jbd) (f_k(h_jbd) - s_jbd)]
//            = sum_j [W_j s_jbd (1 - sigma(c_jbd)) + sigma(c_jbd) F_jbd]
//   y_bd     = (s_bd - mean_d) rstd_d,   rstd_d = 1 / sqrt(var_d + eps),   or s_bd where not normalised
//
// Backward, with g = dL/dy, G_d = 1/B sum_b g_bd and H_d = 1/B sum_b g_bd y_bd:
//
//   e_bd      = dL/ds_bd = rstd_d (g_bd - G_d - y_bd H_d)                  (statistics of the batch)
//                        = rstd_d g_bd                                     (given statistics)
//                        = g_bd                                            (not normalised)
//   dL/ds_jbd = W_j e_bd (1 - sigma(c_jbd))
//   dL/dc_jbd = e_bd (F_jbd - W_j s_jbd) sigma(c_jbd) (1 - sigma(c_jbd))
//   dL/dh_jbd = e_bd sigma(c_jbd) sum_k w_jk f_k'(h_jbd)
//   dL/dw_jk  = sum_{b,d} e_bd [s_jbd (1 - sigma(c_jbd)) + sigma(c_jbd) f_k(h_jbd)]
//
// A weight of exactly zero costs nothing: its activation is not evaluated and its gradient is zero.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/math.h"
#include "common/parallel.h"

namespace pynas {

enum class Activation : int32_t { kTanh = 0, kRelu = 1, kSigmoid = 2, kIdentity = 3 };
constexpr int kActivations = 4;
enum class Normalization : int32_t { kNone = 0, kBatch = 1, kGiven = 2 };

// "Sums" are float64 where the elements are, else float32.
struct MixedActivationParams {
  const void* states = nullptr;    // [J, B, D] elements, contiguous
  const void* products = nullptr;  // [J, B, 2 D] elements, contiguous: c, then h
  const void* weights = nullptr;   // [J, K] sums
  int64_t predecessors = 0, batch = 0, features = 0;
  int64_t candidates = 0;                           // K
  int32_t column[kActivations] = {-1, -1, -1, -1};  // of each activation in weights; -1: not a candidate
  Normalization normalization = Normalization::kNone;
  double eps = 1e-5;
  DType dtype = DType::kFloat32;
  void* mean = nullptr;  // [D] sums: written for kBatch, read for kGiven
  void* var = nullptr;   // [D] sums, biased; likewise, and read by backward
  void* y = nullptr;     // [B, D] elements: written by forward, read by backward of kBatch
  // [B, D] sums, scratch: s, or e in backward. May be the memory of y in forward and, where the node is not
  // normalised, that of grad in backward, which is then not written.
  void* sums = nullptr;

  void* columns = nullptr;  // scratch where normalised: [D] sums in forward, [3, D] in backward

  const void* grad = nullptr;     // backward: dL/dy [B, D] elements, contiguous
  void* grad_states = nullptr;    // [J, B, D] elements
  void* grad_products = nullptr;  // [J, B, 2 D] elements
  void* grad_weights = nullptr;   // [J, K] sums
  double* partial = nullptr;      // scratch, see the functions below
};

// Rows of a block of CPU work and the number of blocks. They do not depend on threads, so neither does any
// sum.
inline int64_t mixed_activation_block_rows(int64_t features) {
  const int64_t rows = 4096 / (features > 0 ? features : 1);
  return rows < 1 ? 1 : rows > 64 ? 64 : rows;
}
inline int64_t mixed_activation_blocks(int64_t batch, int64_t features) {
  const int64_t rows = mixed_activation_block_rows(features);
  return ceil_div(batch, rows);
}
// Blocks of CUDA threads of one predecessor in backward: 4 elements to a thread, at most two blocks for each
// of an H100's 132 multiprocessors. `partial` has J kActivations values for each of them; forward needs none.
inline int64_t mixed_activation_cuda_blocks(int64_t batch, int64_t features) {
  const int64_t blocks = (batch * features + 1023) / 1024;
  return blocks < 1 ? 1 : blocks > 264 ? 264 : blocks;
}

// Values of `partial` on the CPU: in backward every block's share of dL/dw, for kBatch its column sums.
inline int64_t mixed_activation_scratch(const MixedActivationParams& p, bool backward) {
  const int64_t shares = backward ? p.predecessors * kActivations : 0;
  const int64_t columns = p.normalization == Normalization::kBatch ? 2 * p.features : 0;
  return mixed_activation_blocks(p.batch, p.features) * (shares + columns);
}

namespace cpu {
PYNAS_DECLARE_PER_ISA(void mixed_activation(const MixedActivationParams&, const Parallel&);
                      void mixed_activation_backward(const MixedActivationParams&, const Parallel&))
}
namespace cuda {
void mixed_activation(const MixedActivationParams&, void* stream);  // stream: a cudaStream_t
void mixed_activation_backward(const MixedActivationParams&, void* stream);
}  // namespace cuda

}  // namespace pynas
