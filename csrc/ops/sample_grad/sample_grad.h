// Weight gradients of single samples, or of groups of samples, formed tile by tile and consumed at once:
// nothing of the size groups x weights is ever stored. One kernel family serves convolutions and linear
// layers.
//
// For output channel o, input channel c of o's convolution group and kernel tap (r, s), sample group g (a run
// of `group_size` consecutive samples) has the gradient
//
//   w_g[o,c,r,s] = sum_{b in g} sum_{h,w} grad_output[b,o,h,w] input[b,c,y,x]
//                  y = h stride[0] + r dilation[0] - padding[0]
//                  x = w stride[1] + s dilation[1] - padding[1]
//   v_g[o]       = sum_{b in g} sum_{h,w} grad_output[b,o,h,w]                (of the bias)
//
// with input = 0 outside the image. A linear layer over T positions is the convolution of height =
// out_height = 1, width = out_width = T and a 1x1 kernel. What becomes of the gradients is the sink:
//
//   kMoments   weight[k,o,c,r,s] = sum_g f_k(w_g[o,c,r,s])
//              bias[k,o]         = sum_g f_k(v_g[o])
//              f_k               = the k-th set bit of `moments` among
//                                  g, |g|, g^2, sign g, (g - mean)^2 with the mean over the sample groups
//   kNorms     weight[g]         = sum_{o,c,r,s} w_g^2    [+ sum_o v_g^2   with `with_bias`]
//   kGram      weight[g,h]       = sum_{o,c,r,s} w_g w_h  [+ sum_o v_g v_h with `with_bias`]
//
// The caller checks all arguments, allocates outputs and the workspace, and calls sample_grad with pointers
// that stay valid for the call (CUDA: until the stream has passed it). The entry points write every element
// of the outputs, also when a size is zero (then w_g = 0), read nothing but the inputs, and keep no state
// between calls.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/moments.h"
#include "common/parallel.h"

namespace pynas {

enum class SampleGradSink : int32_t { kMoments = 0, kNorms = 1, kGram = 2 };

struct SampleGradParams {
  const void* grad_output = nullptr;  // [batch, out_channels, out_height, out_width] of dtype, any strides
  const void* input = nullptr;        // [batch, in_channels, height, width] of dtype, any strides
  DType dtype = DType::kFloat32;
  SampleGradSink sink = SampleGradSink::kMoments;
  uint32_t moments = 0;  // bits of Moment, for kMoments
  bool with_bias = false;
  bool allow_tf32 = false;  // CUDA: one tf32 product in place of the three that keep float32's accuracy

  int64_t batch = 0;
  int64_t group_size = 1;                                 // divides batch; batch / group_size sample groups
  int64_t in_channels = 0, out_channels = 0, groups = 1;  // groups: of the convolution, divides both
  int64_t height = 0, width = 0, out_height = 0, out_width = 0;
  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1};
  int64_t grad_output_strides[4] = {};  // in elements: batch, channel, row, column
  int64_t input_strides[4] = {};

  // Contiguous results: float64 for float64 inputs, else float32.
  void* weight = nullptr;  // moments [K, O, C / groups, kh, kw]; norms [G]; gram [G, G]
  void* bias = nullptr;    // moments with_bias: [K, O]; else unused

  // Scratch of sample_grad_workspace() bytes, 64-byte aligned, uninitialised.
  void* workspace = nullptr;

  int64_t sample_groups() const { return batch / group_size; }
  int64_t group_channels() const { return in_channels / groups; }       // input channels that a weight sees
  int64_t group_out_channels() const { return out_channels / groups; }  // of a convolution group
};

namespace cpu {
// Adds up in the same order whenever parallel.threads is the same.
PYNAS_DECLARE_PER_ISA(void sample_grad_workspace(const SampleGradParams&, int threads, size_t& bytes))
PYNAS_DECLARE_PER_ISA(void sample_grad(const SampleGradParams&, const Parallel&))
}  // namespace cpu
namespace cuda {
// float64 may use plain loops; bfloat16 and float16 products accumulate in float32. No synchronisation, no
// allocation, the same bits on every run. `stream` is a cudaStream_t.
void sample_grad_workspace(const SampleGradParams&, size_t& bytes);
void sample_grad(const SampleGradParams&, void* stream);
}  // namespace cuda

}  // namespace pynas
