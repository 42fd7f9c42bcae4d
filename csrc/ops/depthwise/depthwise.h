// Depthwise convolutions of one rectified input, channels_last, several of them in one call. With stride s
// and padding p_k = d_k (kernel_k - 1) / 2,
//
//   h[n,y,x,c]     = max(scale_c x[n,y,x,c] + offset_c, 0)       (scale 1 and offset 0 where they are null)
//   out_k[n,i,j,c] = sum_{u,v} weight_k[c,u,v] h[n, s i + d_k u - p_k, s j + d_k v - p_k, c]
//
// where h is zero outside the image. Backward, with g_k = dL/dout_k:
//
//   grad_weight_k[c,u,v] = sum_{n,i,j} g_k[n,i,j,c] h[n, s i + d_k u - p_k, s j + d_k v - p_k, c]
//   grad_h[n,y,x,c]      = sum_k sum_{u,v} weight_k[c,u,v] g_k[n,i,j,c]
//   grad_input[n,y,x,c]  = [scale_c x[n,y,x,c] + offset_c > 0] grad_h[n,y,x,c]     (or += with `accumulate`)
//
// where grad_h sums over the u, v for which there are i, j with s i + d_k u - p_k = y, s j + d_k v - p_k = x.
// grad_input is the gradient of scale x + offset, not yet multiplied by scale. As in PyTorch a NaN passes the
// rectifier, and so does its gradient.
//
// A convolution whose gate is zero is not computed: its out and grad_weight are zeros, its g is not read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

constexpr int kMaxDepthwise = 4;

struct DepthwiseConv {
  int64_t kernel = 3, dilation = 1;  // 3 or 5; 1 or 2
  const void* weight = nullptr;      // [channels, kernel, kernel] of dtype
  void* out = nullptr;          // [batch, out_height, out_width, channels] of dtype; backward: g, read only
  void* grad_weight = nullptr;  // [channels, kernel, kernel] of the sums' type
  int64_t gate = -1;            // index into gates; -1: always computed
};

struct DepthwiseParams {
  const void* x = nullptr;      // [batch, height, width, channels] of dtype
  const void* scale = nullptr;  // [channels] of the sums' type, with offset, or both null
  const void* offset = nullptr;
  const void* gates = nullptr;  // of the sums' type, on the device of x; null: everything is computed
  void* grad_input = nullptr;   // like x
  bool accumulate = false;      // add to grad_input what comes out, instead of writing it
  DepthwiseConv convs[kMaxDepthwise];
  int count = 0;
  void* workspace = nullptr;  // depthwise_workspace() bytes of the device
  int64_t batch = 0, channels = 0, height = 0, width = 0, out_height = 0, out_width = 0, stride = 1;
  DType dtype = DType::kFloat32;  // sums are float32, and float64 for float64
};

// The number of taps of all convolutions together.
inline int64_t depthwise_taps(const DepthwiseParams& p) {
  int64_t taps = 0;
  for (int k = 0; k < p.count; ++k) taps += p.convs[k].kernel * p.convs[k].kernel;
  return taps;
}

namespace cpu {
// Bytes for the filters, tap by tap, and the sums of `threads` threads, which only backward_weight needs.
inline size_t depthwise_workspace(const DepthwiseParams& p, int threads) {
  return static_cast<size_t>(depthwise_taps(p) * p.channels * (1 + threads)) * sizeof(double);
}
PYNAS_DECLARE_PER_ISA(void depthwise_forward(const DepthwiseParams&, const Parallel&);
                      void depthwise_backward_input(const DepthwiseParams&, const Parallel&);
                      void depthwise_backward_weight(const DepthwiseParams&, const Parallel&))
}  // namespace cpu
namespace cuda {
size_t depthwise_workspace(const DepthwiseParams&);            // for backward_weight alone
void depthwise_forward(const DepthwiseParams&, void* stream);  // stream: a cudaStream_t
void depthwise_backward_input(const DepthwiseParams&, void* stream);
void depthwise_backward_weight(const DepthwiseParams&, void* stream);
}  // namespace cuda

}  // namespace pynas
