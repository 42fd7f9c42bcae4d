// Maximum and average over 3 x 3 windows of one input, padding 1, stride s, channels_last. The window w of
// output (i, j) holds the pixels (s i - 1 .. s i + 1, s j - 1 .. s j + 1) that lie inside the image:
//
//   max_out[n,i,j,c] = max_{(y,x) in w} x[n,y,x,c]
//   avg_out[n,i,j,c] = sum_{(y,x) in w} x[n,y,x,c] / pixels(w)                  (count_include_pad=False)
//
// Backward, each input pixel gathers from the windows that hold it:
//
//   grad_input[n,y,x,c] (+)= sum_{w holds (y,x)} ([the maximum of w is at (y,x)] grad_max[w]
//                                                 + grad_avg[w] / pixels(w))
//
// As in PyTorch, of equal maxima the first in row-major order counts, and a NaN is larger
// than anything; of several NaN the last counts.
//
// A pool whose gate is zero is not computed: its output is zeros, its gradient is not read.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct Pool3x3Params {
  const void* x = nullptr;         // [batch, height, width, channels] of dtype
  void* max_out = nullptr;         // [batch, out_height, out_width, channels] of dtype; null: not wanted
  void* avg_out = nullptr;         // likewise
  const void* grad_max = nullptr;  // backward, like max_out; null: none
  const void* grad_avg = nullptr;
  void* grad_input = nullptr;   // like x
  bool accumulate = false;      // add to grad_input what comes out, instead of writing it
  const void* gates = nullptr;  // float32, float64 for float64, on the device of x; null: both are computed
  int64_t max_gate = -1, avg_gate = -1;  // indices into gates; -1: always computed
  int64_t batch = 0, channels = 0, height = 0, width = 0, out_height = 0, out_width = 0, stride = 1;
  DType dtype = DType::kFloat32;
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void pool3x3_forward(const Pool3x3Params&, const Parallel&);
                      void pool3x3_backward(const Pool3x3Params&, const Parallel&))
}
namespace cuda {
void pool3x3_forward(const Pool3x3Params&, void* stream);  // stream: a cudaStream_t
void pool3x3_backward(const Pool3x3Params&, void* stream);
}  // namespace cuda

}  // namespace pynas
