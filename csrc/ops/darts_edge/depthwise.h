// Depthwise convolutions of one block of channels: K x K, dilation D, stride S, padding R = (K - 1) D / 2.
// With dx, dy and dw the gradients of x, y and w,
//
//   forward      y_hw  = sum_ij w_ij x_{S h + D i - R, S w + D j - R}
//   transposed   dx_hw = sum_ij w_ij dy_{(h + R - D i) / S, (w + R - D j) / S},   i, j where S divides both
//   weights      dw_ij = sum_hw dy_hw x_{S h + D i - R, S w + D j - R}
//
// A tile of pixels of a row stays in registers while the kernel passes over it; each pixel is loaded once per
// kernel row and multiplied into every output that it reaches.
#pragma once

#include "ops/darts_edge/layout.h"

namespace pynas::cpu::PYNAS_ISA_NS::darts {

// Outputs in registers at a time: beside them stand K weights and a pixel.
constexpr int kDepthwiseTile = kRegisters == 32 ? 16 : 8;
// Gradients in registers at a time, beside K sums in several chains that hide the latency of the additions.
constexpr int kWeightTile = kRegisters == 32 ? 8 : 4;
template <int K>
constexpr int kChains = K == 3 ? 3 : 2;

// The rows that a kernel reads for one row of outputs, with the weights of its row.
template <int K>
struct KernelRows {
  const float* in[K];
  const float* weights[K];
  int count = 0;
  PYNAS_INLINE void add(const float* row, const float* row_weights) {
    in[count] = row;
    weights[count++] = row_weights;
  }
};

template <int K, int D, int S, int kTile>
PYNAS_INLINE void depthwise_tile(const KernelRows<K>& rows, int64_t start, float* out) {
  V sums[kTile] = {};
  for (int i = 0; i < rows.count; ++i) {
    const float* in = rows.in[i] + (start * S - (K - 1) * D / 2) * kL;
    V w[K];
    PYNAS_UNROLL_ALL for (int k = 0; k < K; ++k) w[k] = load_once(rows.weights[i] + k * kL);
    PYNAS_UNROLL_ALL for (int t = 0; t < (kTile - 1) * S + (K - 1) * D + 1; ++t) {
      const V x = load_once(in + t * kL);
      PYNAS_UNROLL_ALL for (int k = 0; k < K; ++k) {
        const int reach = t - k * D;
        if (reach >= 0 && reach % S == 0 && reach / S < kTile) sums[reach / S] += x * w[k];
      }
    }
  }
  PYNAS_UNROLL_ALL for (int t = 0; t < kTile; ++t) store(out + (start + t) * kL, sums[t]);
}

// y for rows [first, last) of the output, one behind the other in `out`. in: x, a plane laid out as `from`.
template <int K, int D, int S>
void depthwise_rows(const PaddedPlanes& from, const float* in, const float* weights, int64_t first,
                    int64_t last, int64_t out_width, float* out, Prefetcher& prefetch) {
  for (int64_t h = first; h < last; ++h, out += out_width * kL) {
    prefetch.step();
    KernelRows<K> rows;
    for (int k = 0; k < K; ++k) {
      const int64_t source = h * S + k * D - (K - 1) * D / 2;
      if (source >= 0 && source < from.image.height) rows.add(in + from.row(source), weights + k * K * kL);
    }
    for_tiles<kDepthwiseTile>(out_width, [&](int64_t w, auto tile) {
      depthwise_tile<K, D, S, decltype(tile)::value>(rows, w, out);
    });
  }
}

template <int K, int D, int S, int kTile>
PYNAS_INLINE void depthwise_transposed_tile(const KernelRows<K>& rows, int64_t start, bool add, float* out) {
  constexpr int R = (K - 1) * D / 2;
  V sums[kTile] = {};
  if (add) PYNAS_UNROLL_ALL for (int t = 0; t < kTile; ++t) sums[t] = load(out + (start + t) * kL);
  for (int i = 0; i < rows.count; ++i) {
    const float* in = rows.in[i] + start / S * kL;
    V w[K];
    PYNAS_UNROLL_ALL for (int k = 0; k < K; ++k) w[k] = load_once(rows.weights[i] + k * kL);
    PYNAS_UNROLL_ALL for (int t = -(R / S); t <= (kTile - 1 + R) / S; ++t) {
      const V y = load_once(in + t * kL);
      PYNAS_UNROLL_ALL for (int k = 0; k < K; ++k) {
        const int reach = t * S - R + k * D;
        if (reach >= 0 && reach < kTile) sums[reach] += y * w[k];
      }
    }
  }
  PYNAS_UNROLL_ALL for (int t = 0; t < kTile; ++t) store(out + (start + t) * kL, sums[t]);
}

// dx for rows [first, last) of the input, written or added to `out`, which holds whole rows without padding
// from the image's first on. in: dy, a plane laid out as `from`.
template <int K, int D, int S>
void depthwise_transposed_rows(const PaddedPlanes& from, const float* in, const float* weights, int64_t first,
                               int64_t last, int64_t out_width, bool add, float* out, Prefetcher& prefetch) {
  for (int64_t h = first; h < last; ++h) {
    prefetch.step();
    KernelRows<K> rows;
    for (int k = 0; k < K; ++k) {
      const int64_t source = h + (K - 1) * D / 2 - k * D;
      if (source >= 0 && source % S == 0 && source / S < from.image.height)
        rows.add(in + from.row(source / S), weights + k * K * kL);
    }
    if (add && rows.count == 0) continue;
    for_tiles<kDepthwiseTile>(out_width, [&](int64_t w, auto tile) {
      depthwise_transposed_tile<K, D, S, decltype(tile)::value>(rows, w, add, out + h * out_width * kL);
    });
  }
}

template <int K, int D, int S, int kTile>
PYNAS_INLINE void depthwise_weights_tile(const float* y, const float* x, V (&sums)[K][kChains<K>]) {
  V gradients[kTile];
  PYNAS_UNROLL_ALL for (int t = 0; t < kTile; ++t) gradients[t] = load_once(y + t * kL);
  PYNAS_UNROLL_ALL for (int t = 0; t < (kTile - 1) * S + (K - 1) * D + 1; ++t) {
    const V pixel = load_once(x + t * kL);
    PYNAS_UNROLL_ALL for (int k = 0; k < K; ++k) {
      const int reach = t - k * D;
      if (reach >= 0 && reach % S == 0 && reach / S < kTile)
        sums[k][reach / S % kChains<K>] += pixel * gradients[reach / S];
    }
  }
}

// Adds the terms of rows h of [first, last) to dw, `weights` [K, K, kL]. y: dy, a plane laid out as of_y.
template <int K, int D, int S>
void depthwise_weight_gradient(const PaddedPlanes& of_y, const float* y, const PaddedPlanes& of_x,
                               const float* x, int64_t first, int64_t last, float* weights,
                               Prefetcher& prefetch) {
  constexpr int R = (K - 1) * D / 2;
  for (int i = 0; i < K; ++i) {
    V sums[K][kChains<K>] = {};
    for (int64_t h = first; h < last; ++h) {
      prefetch.step();
      const int64_t source = h * S + i * D - R;
      if (source < 0 || source >= of_x.image.height) continue;
      const float* y_row = y + of_y.row(h);
      const float* x_row = x + of_x.row(source) - R * kL;
      for_tiles<kWeightTile>(of_y.image.width, [&](int64_t w, auto tile) {
        depthwise_weights_tile<K, D, S, decltype(tile)::value>(y_row + w * kL, x_row + w * S * kL, sums);
      });
    }
    PYNAS_UNROLL_ALL for (int k = 0; k < K; ++k) {
      V total = load(weights + (i * K + k) * kL);
      PYNAS_UNROLL_ALL for (int chain = 0; chain < kChains<K>; ++chain) total += sums[k][chain];
      store(weights + (i * K + k) * kL, total);
    }
  }
}

// Calls body with the kernel's size, dilation and stride as constants.
template <class F>
PYNAS_INLINE void with_kernel(int size, int dilation, int stride, F body) {
  const auto with_stride = [&](auto k, auto d) {
    if (stride == 1)
      body(k, d, std::integral_constant<int, 1>{});
    else
      body(k, d, std::integral_constant<int, 2>{});
  };
  constexpr std::integral_constant<int, 1> one;
  constexpr std::integral_constant<int, 2> two;
  constexpr std::integral_constant<int, 3> three;
  constexpr std::integral_constant<int, 5> five;
  if (size == 3)
    dilation == 1 ? with_stride(three, one) : with_stride(three, two);
  else
    dilation == 1 ? with_stride(five, one) : with_stride(five, two);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS::darts
