// What becomes of tiles of sample gradients: moments, squared norms, products. Include only from
// sample_grad_cpu.cpp, once per instruction set.
//
// Tiles arrive as gradients[b][v][lane] for a few sample groups b, so that a moment is read and written once
// for all of them. Moments lie interleaved, sums[v][k][lane], k the requested moments in the order of their
// bits; the centred moment keeps two rows, the running mean and m2 = sum of squared deviations.
#pragma once

#include <utility>

#include "common/moments.h"
#include "common/simd.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

constexpr int moment_rows(uint32_t mask) { return count_moments(mask) + (mask & kMomentCentered ? 1 : 0); }

#if defined(__AVX512F__)
// One instruction looks up the class of every lane in a table: zeros and NaN give +0,
// negative numbers -1, positive ones 1.
PYNAS_INLINE Vec<float> sign_of(Vec<float> v) {
  constexpr int32_t kNan = 8, kZero = 8 << 8, kOne = 10 << 12, kInf = 9 << 16 | 10 << 20, kFinite = 9 << 24;
  constexpr int32_t kTable =
      kNan | kNan << 4 | kZero | kOne | kInf | kFinite | static_cast<int32_t>(10u << 28);
  typedef int32_t Words __attribute__((vector_size(64)));
  return __builtin_ia32_fixupimmps512_mask(v, v, Words{} + kTable, 0, -1, 4);
}
PYNAS_INLINE Vec<double> sign_of(Vec<double> v) { return sign<double>(v); }
#else
template <class T>
PYNAS_INLINE T sign_of(T v) {
  return sign<std::remove_reference_t<decltype(v[0])> >(v);
}
#endif

// sums[v] += f(gradients[0 .. kGroups)[v]) for kGroups more groups after `count` ones.
template <class T, uint32_t kMask, int kGroups>
PYNAS_INLINE void add_groups(const T* gradients, int64_t vectors, int64_t count, T* sums) {
  constexpr int L = kLanes<T>;
  constexpr int64_t kStep = moment_rows(kMask) * L;
  // Chan's merge of these groups' mean and m2 with the running ones; with one group it is Welford's update:
  //   mean += delta n / (count + n),  m2 += m2_n + delta^2 count n / (count + n),  n = kGroups
  const Vec<T> share = broadcast(T(kGroups) / static_cast<T>(count + kGroups));
  const Vec<T> cross = share * broadcast(static_cast<T>(count));
  for (int64_t v = 0; v < vectors; ++v, sums += kStep) {
    Vec<T> g[kGroups];
    PYNAS_UNROLL for (int i = 0; i < kGroups; ++i) g[i] = load(gradients + (i * vectors + v) * L);
    T* at = sums;
    const auto accumulate = [&at](Vec<T> value) {
      store(at, load(at) + value);
      at += L;
    };
    const auto total = [&g](auto f) {
      Vec<T> t = f(g[0]);
      PYNAS_UNROLL for (int i = 1; i < kGroups; ++i) t += f(g[i]);
      return t;
    };
    if constexpr (kMask & kMomentSum) accumulate(total([](Vec<T> x) { return x; }));
    if constexpr (kMask & kMomentAbs) accumulate(total([](Vec<T> x) { return abs(x); }));
    if constexpr (kMask & kMomentSquare) accumulate(total([](Vec<T> x) { return x * x; }));
    if constexpr (kMask & kMomentSign) accumulate(total([](Vec<T> x) { return sign_of(x); }));
    if constexpr (kMask & kMomentCentered) {
      const Vec<T> mean = total([](Vec<T> x) { return x; }) * broadcast(T(1) / T(kGroups));
      const Vec<T> m2 = total([mean](Vec<T> x) { return (x - mean) * (x - mean); });
      const Vec<T> delta = mean - load(at);
      store(at, load(at) + delta * share);
      store(at + L, load(at + L) + (m2 + delta * delta * cross));
    }
  }
}

template <class T>
using AddMoments = void (*)(const T* gradients, int64_t groups, int64_t vectors, int64_t count, T* sums);

template <class T, uint32_t kMask>
void add_moments(const T* gradients, int64_t groups, int64_t vectors, int64_t count, T* sums) {
  constexpr int L = kLanes<T>;
  int64_t b = 0;
  for (; b + 4 <= groups; b += 4)
    add_groups<T, kMask, 4>(gradients + b * vectors * L, vectors, count + b, sums);
  for (; b < groups; ++b) add_groups<T, kMask, 1>(gradients + b * vectors * L, vectors, count + b, sums);
}

template <class T, uint32_t... kMasks>
AddMoments<T> select_moments(uint32_t mask, std::integer_sequence<uint32_t, kMasks...>) {
  static constexpr AddMoments<T> kTable[] = {&add_moments<T, kMasks>...};
  return kTable[mask];
}
template <class T>
AddMoments<T> moments_for(uint32_t mask) {
  return select_moments<T>(mask, std::make_integer_sequence<uint32_t, kMomentAll + 1>());
}

// The sum of squares of one group's vectors.
template <class T>
double squared_norm(const T* gradients, int64_t vectors) {
  Vec<T> even = zero<T>(), odd = zero<T>();
  int64_t v = 0;
  for (; v + 2 <= vectors; v += 2) {
    const Vec<T> a = load(gradients + v * kLanes<T>), b = load(gradients + (v + 1) * kLanes<T>);
    even += a * a;
    odd += b * b;
  }
  if (v < vectors) even += load(gradients + v * kLanes<T>) * load(gradients + v * kLanes<T>);
  return static_cast<double>(sum<T>(even + odd));
}

// gram[i][j] += <g_i, g_j> for j <= i, kBlock x kBlock products at a time in registers.
template <class T>
void add_gram(const T* gradients, int64_t groups, int64_t vectors, double* gram) {
  constexpr int L = kLanes<T>;
  constexpr int kBlock = kVectorBytes == 64 ? 4 : 2;
  for (int64_t i = 0; i < groups; i += kBlock) {
    for (int64_t j = 0; j <= i; j += kBlock) {
      const T *a[kBlock], *b[kBlock];
      PYNAS_UNROLL for (int k = 0; k < kBlock; ++k) {  // past the end: the last group again, dropped below
        a[k] = gradients + (i + k < groups ? i + k : groups - 1) * vectors * L;
        b[k] = gradients + (j + k < groups ? j + k : groups - 1) * vectors * L;
      }
      Vec<T> product[kBlock][kBlock] = {};
      for (int64_t v = 0; v < vectors; ++v) {
        PYNAS_UNROLL for (int m = 0; m < kBlock; ++m) {
          const Vec<T> left = load(a[m] + v * L);
          PYNAS_UNROLL for (int n = 0; n < kBlock; ++n) product[m][n] += left * load(b[n] + v * L);
        }
      }
      for (int m = 0; m < kBlock && i + m < groups; ++m) {
        for (int n = 0; n < kBlock && j + n <= i + m; ++n) {
          gram[(i + m) * groups + j + n] += static_cast<double>(sum<T>(product[m][n]));
        }
      }
    }
  }
}

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
