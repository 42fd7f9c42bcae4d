// Shared by the depthwise kernels: filters and the rectified image as the kernels take them, and how a block
// loads its tile. See depthwise.h for the formulas.
#pragma once

#include <type_traits>

#include "common/visit.h"
#include "ops/depthwise/depthwise.h"
#include "ops/depthwise/stage_cuda.h"

namespace pynas::cuda {

constexpr int kMaxTaps = 25;

struct Filters {
  const void* weight[kMaxDepthwise];
  void* image[kMaxDepthwise];  // outputs, or their gradients
  void* grad_weight[kMaxDepthwise];
  int64_t gate[kMaxDepthwise];
  int kernel[kMaxDepthwise], dilation[kMaxDepthwise], first_tap[kMaxDepthwise];
  int count, taps;  // of all filters
  __host__ __device__ int padding(int k) const { return dilation[k] * (kernel[k] - 1) / 2; }
};

// The rectifier's input, scale x + offset, as an image.
template <class T>
struct Source {
  const T* x;
  const Accumulate<T>*scale, *offset, *gates;
  int64_t height, width, channels;

  __device__ Accumulate<T> affine(int64_t pixel, int64_t channel) const {
    const Accumulate<T> value = to_accumulate(x[pixel * channels + channel]);
    return scale == nullptr ? value : scale[channel] * value + offset[channel];
  }
};

struct Halos {
  Halo of[kMaxDepthwise];  // of each filter
  int cells(int slice, int count) const {
    int largest = 0;
    for (int k = 0; k < count; ++k) largest = max(largest, of[k].cells(slice));
    return largest;
  }
};

// Calls body with the filter's kernel and dilation as constants.
template <class F>
__device__ void visit_filter(const Filters& f, int k, F body) {
  if (f.kernel[k] == 3) {
    if (f.dilation[k] == 1) return body(std::integral_constant<int, 3>{}, std::integral_constant<int, 1>{});
    return body(std::integral_constant<int, 3>{}, std::integral_constant<int, 2>{});
  }
  if (f.dilation[k] == 1) return body(std::integral_constant<int, 5>{}, std::integral_constant<int, 1>{});
  body(std::integral_constant<int, 5>{}, std::integral_constant<int, 2>{});
}

// h = max(scale x + offset, 0) of the tile whose first output is `at`, with `padding` pixels around it.
template <class T, int kStride>
__device__ void fill_rectified(const Halo& halo, const Source<T>& source, const StageTiles::Corner& at,
                               int64_t channel, int slice, int padding, Accumulate<T>* tile) {
  using A = Accumulate<T>;
  const int64_t y0 = at.y * kStride - padding, x0 = at.x * kStride - padding;
  halo.fill(tile, slice, [&](int row, int column) {
    const int64_t y = y0 + row, x = x0 + column;
    if (y < 0 || y >= source.height || x < 0 || x >= source.width || channel >= source.channels) return A(0);
    const A value = source.affine((at.image * source.height + y) * source.width + x, channel);
    return value <= A(0) ? A(0) : value;
  });
}

inline Filters filters_of(const DepthwiseParams& p) {
  Filters f{};
  for (int k = 0; k < p.count; ++k) {
    const DepthwiseConv& conv = p.convs[k];
    f.weight[k] = conv.weight;
    f.image[k] = conv.out;
    f.grad_weight[k] = conv.grad_weight;
    f.gate[k] = conv.gate;
    f.kernel[k] = static_cast<int>(conv.kernel);
    f.dilation[k] = static_cast<int>(conv.dilation);
    f.first_tap[k] = f.taps;
    f.taps += f.kernel[k] * f.kernel[k];
  }
  f.count = p.count;
  return f;
}

template <class T>
Source<T> source_of(const DepthwiseParams& p) {
  using A = Accumulate<T>;
  return {static_cast<const T*>(p.x),
          static_cast<const A*>(p.scale),
          static_cast<const A*>(p.offset),
          static_cast<const A*>(p.gates),
          p.height,
          p.width,
          p.channels};
}

inline StageTiles output_tiles(const DepthwiseParams& p) {
  return {p.batch, p.out_height, p.out_width, p.channels};
}

}  // namespace pynas::cuda
