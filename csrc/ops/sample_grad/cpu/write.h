// From the sums that threads kept, in the order of tiles, to the result in the order of weights. Include only
// from sample_grad_cpu.cpp, once per instruction set.
#pragma once

#include "ops/sample_grad/cpu/pack.h"
#include "ops/sample_grad/cpu/plan.h"
#include "ops/sample_grad/cpu/sinks.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

// Sums of several threads, thread t's at sums[t] over counts[t] groups.
template <class T>
struct Partials {
  T* const* sums;
  const int64_t* counts;
  int64_t n;
};

// rows[k * step + lane] = the k-th requested moment of vector v, merged in the order of the threads.
template <class T>
void merge_vector(const Partials<T>& partials, uint32_t mask, int64_t v, T* rows, int64_t step) {
  constexpr int L = kLanes<T>;
  const int64_t raw_rows = moment_rows(mask);
  const int plain = count_moments(mask & ~uint32_t{kMomentCentered});
  const int64_t offset = v * raw_rows * L;
  for (int k = 0; k < plain; ++k) {
    Vec<T> total = load(partials.sums[0] + offset + k * L);
    for (int64_t t = 1; t < partials.n; ++t) total += load(partials.sums[t] + offset + k * L);
    store(rows + k * step, total);
  }
  if ((mask & kMomentCentered) == 0) return;
  // Chan, Golub and LeVeque, in double: m2 = m2_a + m2_b + (mean_b - mean_a)^2 n_a n_b / (n_a + n_b).
  for (int lane = 0; lane < L; ++lane) {
    double mean = 0, m2 = 0, count = 0;
    for (int64_t t = 0; t < partials.n; ++t) {
      const T* from = partials.sums[t] + offset + plain * L + lane;
      const double other = static_cast<double>(partials.counts[t]);
      if (other == 0) continue;
      const double delta = static_cast<double>(from[0]) - mean, total = count + other;
      m2 += static_cast<double>(from[L]) + delta * delta * (count * other / total);
      mean += delta * (other / total);
      count = total;
    }
    rows[plain * step + lane] = static_cast<T>(m2);
  }
}

// Copies past the cache: results much larger than the cache would only push out what the next tiles need.
template <class T>
void copy_streaming(const T* from, int64_t n, T* to) {
  int64_t i = 0;
#if defined(__SSE2__)
  if (reinterpret_cast<uintptr_t>(to) % 16 == 0) {
    constexpr int64_t kStep = 16 / sizeof(T);
    for (; i + kStep <= n; i += kStep) {
      __m128i v;
      __builtin_memcpy(&v, from + i, sizeof v);
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), v);
    }
  }
#endif
  for (; i < n; ++i) to[i] = from[i];
}

// Streamed stores are not ordered with any other: call before another thread may read what was written.
inline void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <class T>
PYNAS_INLINE void store_streaming(T* to, Vec<T> v) {
#if defined(__SSE2__)
  if (reinterpret_cast<uintptr_t>(to) % kVectorBytes == 0) {
#if defined(__AVX512F__)
    return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(v));
#elif defined(__AVX__)
    return _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(v));
#else
    return _mm_stream_si128(reinterpret_cast<__m128i*>(to), reinterpret_cast<__m128i>(v));
#endif
  }
#endif
  store(to, v);
}

// to[lane * taps + tap] = from[tap * L + lane]; `to` has room for one vector more.
template <class T>
void transpose_taps(const T* from, int64_t taps, T* to) {
  constexpr int L = kLanes<T>;
  // The last vector of a lane runs over into the next lane's first taps: those are stored after it.
  for (int64_t first = (taps - 1) / L * L; first >= 0; first -= L) {
    Vec<T> block[L];
    PYNAS_UNROLL for (int i = 0; i < L; ++i) block[i] =
        first + i < taps ? load(from + (first + i) * L) : zero<T>();
    transpose<T, L>(block);
    PYNAS_UNROLL for (int lane = 0; lane < L; ++lane) store(to + lane * taps + first, block[lane]);
  }
}

// Writes the moments of a bundle, whose sums begin at `first_vector` of the partials. Weight rows are
// [lane][tap] in the result and [tap][...][lane] in the sums: `scratch` holds one block of one output channel
// for every moment, tap by tap, and one moment of it transposed.
template <class T>
void write_bundle(const Plan& plan, const Bundle& b, const Partials<T>& partials, int64_t first_vector,
                  bool streaming, T* scratch) {
  constexpr int L = kLanes<T>;
  const uint32_t mask = plan.p.moments;
  const int moments = count_moments(mask);
  const bool depthwise = plan.layout == Layout::kDepthwise;
  const int64_t row_size = depthwise ? plan.taps : plan.row * plan.taps;  // weights of one output channel
  const int64_t result = plan.p.out_channels * row_size;
  const int64_t block = plan.taps * L;
  T* transposed = scratch + moments * block;
  for (int64_t i = 0; i < b.blocks; ++i) {
    const int64_t first_lane = (b.first_block + i) * L, lanes = plan.used_lanes(b.first_block + i);
    for (int64_t o = 0; o < plan.used_outputs(b); ++o) {
      for (int64_t tap = 0; tap < plan.taps; ++tap) {
        const int64_t v = first_vector + (tap * b.blocks + i) * plan.tile_outputs + o;
        merge_vector(partials, mask, v, scratch + tap * L, block);
      }
      for (int k = 0; k < moments; ++k) {
        const T* from = scratch + k * block;
        if (plan.taps > 1) {
          transpose_taps(from, plan.taps, transposed);
          from = transposed;
        }
        T* to = static_cast<T*>(plan.p.weight) + k * result;
        if (depthwise) {  // lanes are output channels, out_blocks apart
          for (int64_t lane = 0; lane < lanes; ++lane) {
            T* weight = to + ((first_lane + lane) * plan.out_blocks + b.out_block) * plan.taps;
            for (int64_t tap = 0; tap < plan.taps; ++tap) weight[tap] = from[lane * plan.taps + tap];
          }
          continue;
        }
        const int64_t channel = b.group * plan.p.group_out_channels() + b.out_block * kOutputs + o;
        to += channel * row_size + first_lane * plan.taps;
        const int64_t n = lanes * plan.taps;
        if (streaming)
          copy_streaming(from, n, to);
        else
          __builtin_memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
      }
    }
  }
}

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
