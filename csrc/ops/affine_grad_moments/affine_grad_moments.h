// Moments over sample groups of the gradients of a norm layer's scale gamma and shift beta. The layer, for
// sample b, channel c of channel group k = c / (C / K), and position t:
//
//   y[b,c,t]     = gamma[c] xhat[b,c,t] + beta[c]
//   xhat[b,c,t]  = (input[b,c,t] - mean[b,k,t]) rstd[b,k,t]
//
// With sample group s = {s m, ..., s m + m - 1} of m = group_size samples:
//
//   g_gamma[s,c] = sum_{b in s} sum_t grad_output[b,c,t] xhat[b,c,t]
//   g_beta[s,c]  = sum_{b in s} sum_t grad_output[b,c,t]
//   weight[j,c]  = the j-th requested moment (common/moments.h) over s of g_gamma[s,c]
//   bias[j,c]    = the same of g_beta[s,c]
//
// The same kernel gives the gradients themselves (`rows`), from which callers make norms and inner products.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/moments.h"
#include "common/parallel.h"

namespace pynas {

// Strides count elements. "acc" is float64 where dtype is float64, else float32.
struct AffineGradMomentsParams {
  const void* grad_output = nullptr;  // [B, C, T] of dtype, any strides
  const void* input = nullptr;        // [B, C, T] of dtype, any strides
  const void* mean = nullptr;         // [B, K, T] of acc; stride 0 along an axis of one value
  const void* rstd = nullptr;         // [B, K, T] of acc; stride 0 along an axis of one value
  void* weight = nullptr;      // [count_moments(moments), C] of acc, contiguous; null when rows are asked for
  void* bias = nullptr;        // [count_moments(moments), C] of acc, contiguous; null when rows are asked for
  void* rows = nullptr;        // [2, B / group_size, C] of acc, contiguous: g_gamma, then g_beta; or null
  void* workspace = nullptr;   // affine_grad_moments_workspace() bytes, 64-byte aligned, uninitialised
  int64_t batch = 0;           // B
  int64_t channels = 0;        // C
  int64_t positions = 0;       // T
  int64_t channel_groups = 0;  // K, a divisor of C
  int64_t group_size = 1;      // m, a divisor of B
  int64_t grad_output_strides[3] = {};  // of B, C, T
  int64_t input_strides[3] = {};        // of B, C, T
  int64_t mean_strides[3] = {};         // of B, K, T
  int64_t rstd_strides[3] = {};         // of B, K, T
  uint32_t moments = 0;                 // mask of Moment; unused when rows are asked for
  DType dtype = DType::kFloat32;
};

namespace cpu {
// The same bits for every number of threads.
PYNAS_DECLARE_PER_ISA(void affine_grad_moments_workspace(const AffineGradMomentsParams&, size_t& bytes))
PYNAS_DECLARE_PER_ISA(void affine_grad_moments(const AffineGradMomentsParams&, const Parallel&))
}  // namespace cpu
namespace cuda {
void affine_grad_moments_workspace(const AffineGradMomentsParams&, size_t& bytes);
void affine_grad_moments(const AffineGradMomentsParams&, void* stream);  // stream: a cudaStream_t
}  // namespace cuda

}  // namespace pynas
