// Average pooling of channels_last images, forward and backward, as one separable window sum:
//
//   out[n,h,w,c] = after_h after_w sum_{i in rows(h)} sum_{j in cols(w)} before_i before_j in[n,i,j,c]
//
//   forward    in = x, out = y; rows(h) are the rows of window h inside the image, before = 1,
//              after_h = 1 / the number of rows that window h counts
//   backward   in = dL/dy, out = dL/dx; rows(h) are the outputs whose window holds row h, after = 1,
//              before_i = 1 / the number of rows that window i counts
//
// and the same for columns. The divisor factors because it counts a rectangle: the window inside the image
// or, with count_include_pad, inside the padded one.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct PoolAxis {
  int64_t in_size = 0, out_size = 0;
  const int64_t* begin = nullptr;  // [out_size] first input row (column) of each output's sum
  const int64_t* end = nullptr;    // [out_size] one past the last
  const float* before = nullptr;   // [in_size]
  const float* after = nullptr;    // [out_size]
};

struct AvgPool2dParams {
  const void* in = nullptr;       // [batch, rows.in_size, cols.in_size, channels] of dtype, contiguous
  void* out = nullptr;            // [batch, rows.out_size, cols.out_size, channels] of dtype, contiguous
  float* workspace = nullptr;     // [threads, cols.in_size * channels]
  DType dtype = DType::kFloat32;  // kFloat32 or kBFloat16
  int64_t batch = 0, channels = 0;
  PoolAxis rows, cols;
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void avg_pool2d(const AvgPool2dParams&, const Parallel&))
}

}  // namespace pynas
