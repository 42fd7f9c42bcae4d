// Pointwise convolutions on blocked channels:
//
//   forward   y_po  = sum_i w_oi x_pi      over pixels p, output channels o and input channels i
//   weights   dw_oi = sum_p dy_po x_pi
//
// The gradient of x is the forward product with the transposed weights. A tile of pixels times vectors of
// output channels stays in registers over all input channels; what becomes of it (stored with statistics,
// scattered into padded planes) is the caller's functor.
#pragma once

#include "ops/darts_edge/layout.h"

namespace pynas::cpu::PYNAS_ISA_NS::darts {

// Vectors of channels, and pixels beside them, that fit the registers together with one
// broadcast and the weights. With 32 registers more would fit and gain nothing: a power
// of two leaves no pixels over in most images.
constexpr int kMostVectors = 2;
template <int kVectors>
constexpr int kTilePixels = kRegisters == 32 ? (kVectors == 1 ? 16 : 8) : (kVectors == 1 ? 8 : 6);

// Weights for `product`: for each group of vectors of output channels
// [input channel][vector][lane], with input channels padded to whole blocks. An input may be
// several images side by side, each of `channels` channels.
struct Pointwise {
  float* packed = nullptr;
  int64_t channels = 0;
  int64_t in_blocks = 0, out_blocks = 0;

  int64_t size() const { return in_blocks * out_blocks * kL * kL; }
  int64_t image_blocks() const { return ceil_div(channels, kL); }
  // weight(out, in): the weight between two channels counted over blocks, zero for padding.
  template <class F>
  void pack(F weight) const {
    float* to = packed;
    for_groups([&](int64_t block, auto vectors) {
      for (int64_t in = 0; in < in_blocks * kL; ++in)
        for (int64_t out = block * kL; out < (block + vectors) * kL; ++out) *to++ = weight(out, in);
    });
  }
  // Groups of kMostVectors output blocks, then smaller ones: body(first block, constant number).
  template <class F>
  PYNAS_INLINE void for_groups(F body) const {
    for_tiles<kMostVectors>(out_blocks, body);
  }
};

template <int kPixels, int kVectors>
PYNAS_INLINE void product_tile(const Pointwise& weights, const float* packed, const float* in,
                               int64_t in_plane, V (&sums)[kPixels][kVectors]) {
  const int64_t image_blocks = weights.image_blocks();
  for (int64_t block = 0; block < weights.in_blocks; ++block, in += in_plane, packed += kL * kVectors * kL) {
    const int lanes = block_lanes(weights.channels, block % image_blocks);
    _Pragma("GCC unroll 4") for (int k = 0; k < lanes; ++k) {
      V w[kVectors];
      PYNAS_UNROLL_ALL for (int v = 0; v < kVectors; ++v) w[v] = load(packed + (k * kVectors + v) * kL);
      PYNAS_UNROLL_ALL for (int p = 0; p < kPixels; ++p) {
        const V x = broadcast(in[p * kL + k]);
        PYNAS_UNROLL_ALL for (int v = 0; v < kVectors; ++v) sums[p][v] += x * w[v];
      }
    }
  }
}

// y for `pixels` pixels. in: x as planes [pixel][kL], one for each input block. Calls
// sink(output block, pixel, sums[pixels][vectors]) for every tile.
template <class Sink>
PYNAS_INLINE void product(const Pointwise& weights, const float* in, int64_t in_plane, int64_t pixels,
                          Sink sink) {
  weights.for_groups([&](int64_t block, auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    const float* packed = weights.packed + block * weights.in_blocks * kL * kL;
    const auto tile = [&](int64_t pixel, auto count) {
      V sums[decltype(count)::value][kVectors] = {};
      product_tile(weights, packed, in + pixel * kL, in_plane, sums);
      sink(block, pixel, sums);
    };
    constexpr int kPixels = kTilePixels<kVectors>;
    int64_t pixel = 0;
    for (; pixel + kPixels <= pixels; pixel += kPixels) tile(pixel, std::integral_constant<int, kPixels>{});
    for_tiles<4>(pixels, tile, pixel);
  });
}

template <int kRows, int kVectors>
PYNAS_INLINE void product_gradient_tile(const float* y, const float* x, int64_t x_plane, int64_t pixels,
                                        float* weights, int64_t row) {
  V sums[kRows][kVectors];
  PYNAS_UNROLL_ALL for (int r = 0; r < kRows; ++r) PYNAS_UNROLL_ALL for (int v = 0; v < kVectors; ++v)
      sums[r][v] = load(weights + r * row + v * kL);
  _Pragma("GCC unroll 2") for (int64_t p = 0; p < pixels; ++p) {
    V values[kVectors];
    PYNAS_UNROLL_ALL for (int v = 0; v < kVectors; ++v) values[v] = load(x + v * x_plane + p * kL);
    PYNAS_UNROLL_ALL for (int r = 0; r < kRows; ++r) {
      const V gradient = broadcast(y[p * kL + r]);
      PYNAS_UNROLL_ALL for (int v = 0; v < kVectors; ++v) sums[r][v] += gradient * values[v];
    }
  }
  PYNAS_UNROLL_ALL for (int r = 0; r < kRows; ++r) PYNAS_UNROLL_ALL for (int v = 0; v < kVectors; ++v)
      store(weights + r * row + v * kL, sums[r][v]);
}

// weights[o][i] += sum_p y_po x_pi, both counted over blocks. y: dy; y, x: planes of `pixels` pixels.
inline void product_gradient(const float* y, int64_t y_plane, int64_t y_blocks, const float* x,
                             int64_t x_plane, int64_t x_blocks, int64_t pixels, float* weights) {
  const int64_t row = x_blocks * kL;
  for_tiles<2>(x_blocks, [&](int64_t block, auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    constexpr int kRows = kRegisters == 32 ? (kVectors == 1 ? kL : kL / 2) : (kVectors == 1 ? kL : 4);
    for (int64_t o = 0; o < y_blocks * kL; o += kRows)
      product_gradient_tile<kRows, kVectors>(y + o / kL * y_plane + o % kL, x + block * x_plane, x_plane,
                                             pixels, weights + o * row + block * kL, row);
  });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS::darts
