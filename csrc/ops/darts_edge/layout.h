// How a DARTS edge lies in memory while it is computed: channels in blocks of one vector, so that every inner
// loop has the same strides whatever the number of channels is.
#pragma once

#include <cstdint>
#include <type_traits>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "common/arena.h"
#include "common/math.h"
#include "common/simd.h"

namespace pynas::cpu::PYNAS_ISA_NS::darts {

using V = Vec<float>;
constexpr int kL = kLanes<float>;
constexpr int kPad = 4;  // columns of zeros between rows: the reach of a 5x5 kernel with dilation 2
#if defined(__AVX512F__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

#define PYNAS_UNROLL_ALL _Pragma("GCC unroll 64")

PYNAS_INLINE int block_lanes(int64_t channels, int64_t block) {
  return static_cast<int>(least(kL, channels - block * kL));
}

#if defined(__AVX2__) && !defined(__AVX512F__)
PYNAS_INLINE __m256i first_lanes(int lanes) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// Loads a vector that is used several times. The compiler would rather load it again for every use, as an
// operand in memory, and loads would then be the limit.
PYNAS_INLINE V load_once(const float* p) {
  V v = load(p);
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#endif
  return v;
}

// The first `lanes` floats and zeros in the other lanes; memory behind them is not touched.
PYNAS_INLINE V load_channels(const float* p, int lanes) {
  if (lanes == kL) return load(p);
#if defined(__AVX512F__)
  return reinterpret_cast<V>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << lanes) - 1), p));
#elif defined(__AVX2__)
  return reinterpret_cast<V>(_mm256_maskload_ps(p, first_lanes(lanes)));
#else
  return load_partial(p, lanes);
#endif
}
PYNAS_INLINE void store_channels(float* p, V v, int lanes) {
  if (lanes == kL) return store(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << lanes) - 1), reinterpret_cast<__m512>(v));
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, first_lanes(lanes), reinterpret_cast<__m256>(v));
#else
  store_partial(p, v, lanes);
#endif
}

// Calls body(lanes), with a constant where the block is full, so that its loops hold no branch.
template <class F>
PYNAS_INLINE void with_lanes(int lanes, F body) {
  if (lanes == kL)
    body(std::integral_constant<int, kL>{});
  else
    body(lanes);
}

// Covers [start, width) by tiles of kLargest, then kLargest / 2, ..., 1: body(start, constant size). From
// start = 0 every tile starts at a multiple of its size.
template <int kLargest, class F>
PYNAS_INLINE void for_tiles(int64_t width, F body, int64_t start = 0) {
  for (; start + kLargest <= width; start += kLargest) body(start, std::integral_constant<int, kLargest>{});
  if constexpr (kLargest > 1) for_tiles<kLargest / 2>(width, body, start);
}

// max(v, 0); NaN stays NaN.
PYNAS_INLINE V relu(V v) { return zero<float>() > v ? zero<float>() : v; }
// The gradient of relu's argument from that of its result: 0 where v <= 0, else d. v is either of the two.
PYNAS_INLINE V relu_gradient(V v, V d) { return v <= zero<float>() ? zero<float>() : d; }

struct Shape {
  int64_t height = 0, width = 0;
  int64_t pixels() const { return height * width; }
};

// Images of one sample: a plane for each block of channels, whose rows of width * kL floats have
// kPad columns of zeros before, between and behind them. Kernel rows outside the image are
// skipped, kernel columns outside it read the zeros.
struct PaddedPlanes {
  Shape image;
  int64_t pitch = 0, plane = 0;  // floats from row to row, from block to block

  PaddedPlanes() = default;
  explicit PaddedPlanes(Shape shape)
      : image(shape), pitch((shape.width + kPad) * kL), plane(kPad * kL + shape.height * pitch) {}
  int64_t row(int64_t h) const { return kPad * kL + h * pitch; }
};

// Asks for what the next sample reads while this one is computed, a few cache lines at a time.
class Prefetcher {
 public:
  void clear() { ranges_ = current_ = 0, at_ = end_ = nullptr; }
  void add(const float* from, int64_t count) {
    if (ranges_ < kMostRanges) from_[ranges_] = from, count_[ranges_++] = count;
  }
  PYNAS_INLINE void step() {
    if (at_ >= end_) {
      if (current_ == ranges_) return;
      at_ = from_[current_];
      end_ = at_ + count_[current_++];
    }
    PYNAS_UNROLL_ALL for (int i = 0; i < kLines; ++i) __builtin_prefetch(at_ + i * kLineFloats, 0, 2);
    at_ += kLines * kLineFloats;
  }

 private:
  static constexpr int kMostRanges = 8, kLines = 12, kLineFloats = 16;
  const float *from_[kMostRanges], *at_ = nullptr, *end_ = nullptr;
  int64_t count_[kMostRanges];
  int ranges_ = 0, current_ = 0;
};

}  // namespace pynas::cpu::PYNAS_ISA_NS::darts
