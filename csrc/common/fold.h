// What moment kernels do with a gradient once it is complete: fold it into running moments, and merge several
// sets of them. Include only from files compiled per ISA; everything lives in the namespace of that ISA.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "common/moments.h"
#include "common/simd_convert.h"

namespace pynas::cpu::PYNAS_ISA_NS {

// The sum of the lanes as a tree of halves: the plain loop of common/simd.h takes lanes one at a time, which
// shows where every few vectors end in a sum.
template <class T, int kCount, int... kIndex>
PYNAS_INLINE T sum_halves(Vec<T> v, std::integer_sequence<int, kIndex...>) {
  if constexpr (kCount == 1) {
    return v[0];
  } else {
    constexpr int kHalf = kCount / 2;
    const Vec<T> other = __builtin_shufflevector(v, v, (kIndex + kHalf) % kLanes<T>...);
    return sum_halves<T, kHalf>(v + other, std::integer_sequence<int, kIndex...>{});
  }
}
template <class T>
PYNAS_INLINE T sum_lanes(Vec<T> v) {
  return sum_halves<T, kLanes<T>>(v, std::make_integer_sequence<int, kLanes<T>>{});
}

// Rows of a running state [kStateRows, n]: the four plain sums, then Welford's mean and centred sum.
enum StateRow { kRowSum, kRowAbs, kRowSquare, kRowSign, kRowMean, kRowCentered, kStateRows };

// Folds g[0 .. n) as the count-th gradient into `state`, whose rows lie `stride` apart and start as zeros.
template <class T>
void fold(const T* __restrict g, int64_t n, int64_t count, uint32_t moments, T* __restrict state,
          int64_t stride) {
  if (moments & kMomentSum) {
    T* sum = state + kRowSum * stride;
    for (int64_t i = 0; i < n; ++i) sum[i] += g[i];
  }
  if (moments & kMomentAbs) {
    T* sum = state + kRowAbs * stride;
    for (int64_t i = 0; i < n; ++i) sum[i] += g[i] < T(0) ? -g[i] : g[i];
  }
  if (moments & kMomentSquare) {
    T* sum = state + kRowSquare * stride;
    for (int64_t i = 0; i < n; ++i) sum[i] += g[i] * g[i];
  }
  if (moments & kMomentSign) {
    T* sum = state + kRowSign * stride;
    for (int64_t i = 0; i < n; ++i) sum[i] += (g[i] > T(0) ? T(1) : T(0)) - (g[i] < T(0) ? T(1) : T(0));
  }
  if (moments & kMomentCentered) {
    T* mean = state + kRowMean * stride;
    T* centered = state + kRowCentered * stride;
    const T weight = T(1) / static_cast<T>(count);
    for (int64_t i = 0; i < n; ++i) {
      const T delta = g[i] - mean[i];
      mean[i] += delta * weight;
      centered[i] += delta * (g[i] - mean[i]);
    }
  }
}

// A block of elements of several states, merged in float64 in the order in which they are added
// (Chan, Golub & LeVeque 1983). For parts a and b of n_a and n_b gradients:
//
//   n       = n_a + n_b
//   d       = mean_b - mean_a
//   mean    = mean_a + d n_b / n
//   centred = centred_a + centred_b + d^2 n_a n_b / n
struct Merged {
  static constexpr int kElements = 64;
  double rows[kStateRows][kElements] = {};
  int64_t count = 0;

  // Merges elements [0, n), n <= kElements, of a state that holds `other` gradients.
  template <class T>
  void add(const T* state, int64_t stride, int n, int64_t other, uint32_t moments) {
    if (other == 0) return;
    for (int row = kRowSum; row <= kRowSign; ++row) {
      if ((moments >> row & 1u) == 0) continue;  // rows and bits are in the same order
      for (int i = 0; i < n; ++i) rows[row][i] += static_cast<double>(state[row * stride + i]);
    }
    const double total = static_cast<double>(count + other);
    const double share = static_cast<double>(other) / total, weight = static_cast<double>(count) * share;
    if (moments & kMomentCentered) {
      for (int i = 0; i < n; ++i) {
        const double delta = static_cast<double>(state[kRowMean * stride + i]) - rows[kRowMean][i];
        rows[kRowCentered][i] +=
            static_cast<double>(state[kRowCentered * stride + i]) + delta * delta * weight;
        rows[kRowMean][i] += delta * share;
      }
    }
    count += other;
  }

  // Writes the requested moments to values[k stride + i], in the order of their bits.
  template <class T>
  void write(uint32_t moments, T* values, int64_t stride, int n) const {
    constexpr StateRow order[kNumMoments] = {kRowSum, kRowAbs, kRowSquare, kRowSign, kRowCentered};
    for (int bit = 0; bit < kNumMoments; ++bit) {
      if ((moments >> bit & 1u) == 0) continue;
      for (int i = 0; i < n; ++i) values[i] = static_cast<T>(rows[order[bit]][i]);
      values += stride;
    }
  }
};

}  // namespace pynas::cpu::PYNAS_ISA_NS
