// Training-mode batch normalisation over rows [rows, channels] (channels_last images, or [N, C] features),
// without running statistics and without gradients of the affine parameters: what a probing pass needs of it.
//
// Forward, with M = rows:
//
//   mean_c   = 1/M sum_m x_mc
//   var_c    = 1/M sum_m (x_mc - mean_c)^2
//   rstd_c   = 1 / sqrt(var_c + eps)
//   y_mc     = weight_c rstd_c (x_mc - mean_c) + bias_c
//
// Backward, with g = dL/dy:
//
//   G_c      = sum_m g_mc
//   H_c      = rstd_c sum_m g_mc (x_mc - mean_c)
//   dL/dx_mc = weight_c rstd_c [g_mc - G_c / M - rstd_c (x_mc - mean_c) H_c / M]
//
// With several groups each run of rows is normalised by itself, and M is the number of its rows.
// Second order, with a the adjoint of dL/dx, n = rstd (x - mean) and <.> the mean over a channel's rows:
//
//   adjoint of g =  weight rstd [a - <a> - n <a n>]
//   adjoint of x = -weight rstd^2 [n (<a g> - <a> <g> - 3 <a n> <g n>) + <g n> (a - <a>) + <a n> (g - <g>)]
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct BatchNormParams {
  const void* x = nullptr;            // [rows, channels] of dtype, contiguous
  const void* grad_output = nullptr;  // backward: [rows, channels] of dtype, contiguous
  const void* adjoint = nullptr;      // double backward: likewise, the adjoint of dL/dx
  void* out = nullptr;                // [rows, channels] of dtype: y, dL/dx, or the adjoint of x
  void* out_grad = nullptr;           // double backward: likewise, the adjoint of g
  const float* weight = nullptr;      // [channels] or null for ones
  const float* bias = nullptr;        // forward: [channels] or null for zeros
  float* mean = nullptr;              // [groups, channels], written by forward, read by backward
  float* rstd = nullptr;              // [groups, channels], likewise
  double* workspace = nullptr;        // [threads, 4, channels], in double backward [threads + 1, 5, channels]
  int64_t rows = 0;
  int64_t groups = 1;  // equal runs of rows; double backward takes one
  int64_t channels = 0;
  double eps = 1e-5;
  DType dtype = DType::kFloat32;  // kFloat32 or kBFloat16
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void batch_norm(const BatchNormParams&, const Parallel&);
                      void batch_norm_backward(const BatchNormParams&, const Parallel&);
                      void batch_norm_double_backward(const BatchNormParams&, const Parallel&))
}

}  // namespace pynas
