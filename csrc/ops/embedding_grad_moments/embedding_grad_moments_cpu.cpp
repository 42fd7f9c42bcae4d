#include "ops/embedding_grad_moments/embedding_grad_moments.h"

#include "common/fold.h"
#include "common/math.h"
#include "common/simd.h"
#include "common/visit.h"

// Memory-bound: every element of grad_output is read once, and values are written once. A task is one block
// of features of one touched row: it walks the row's look-ups in order, adds those of a sample group in
// registers, and folds the sum when the group changes. Groups without the row never appear; they enter the
// centred sum at the end.

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

constexpr int kBlock = 4;  // vectors of features in one task

// Moments of kVectors vectors of gradients, in registers.
template <class T, int kVectors>
struct Sums {
  Vec<T> sum[kVectors] = {}, abs_sum[kVectors] = {}, square[kVectors] = {}, sign_sum[kVectors] = {};
  Vec<T> mean[kVectors] = {}, centered[kVectors] = {};

  PYNAS_INLINE void add(const Vec<T> (&g)[kVectors], int64_t count) {
    const Vec<T> weight = broadcast<T>(T(1) / static_cast<T>(count));
    PYNAS_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      sum[v] += g[v];
      abs_sum[v] += abs(g[v]);
      square[v] += g[v] * g[v];
      sign_sum[v] += sign<T>(g[v]);
      const Vec<T> delta = g[v] - mean[v];
      mean[v] += delta * weight;
      centered[v] += delta * (g[v] - mean[v]);
    }
  }

  // Merges `absent` gradients that are zero into the centred sum, by Chan's formula:
  //   centered += mean^2 count absent / (count + absent)
  PYNAS_INLINE void add_zeros(int64_t count, int64_t absent) {
    const Vec<T> factor = broadcast<T>(
        static_cast<T>(static_cast<double>(count) * absent / static_cast<double>(count + absent)));
    PYNAS_UNROLL
    for (int v = 0; v < kVectors; ++v) centered[v] += mean[v] * mean[v] * factor;
  }

  PYNAS_INLINE const Vec<T>& row(int bit, int v) const {
    switch (1u << bit) {
      case kMomentSum:
        return sum[v];
      case kMomentAbs:
        return abs_sum[v];
      case kMomentSquare:
        return square[v];
      case kMomentSign:
        return sign_sum[v];
      default:
        return centered[v];
    }
  }
};

// The first n of kLanes<T> elements; n = kLanes<T> is one vector load.
template <class T, class In>
PYNAS_INLINE Vec<T> load_first(const In* p, int n) {
  if (n == kLanes<T>) return load_as<T>(p);
  Vec<T> v{};
  for (int i = 0; i < n; ++i) v[i] = to_float(p[i]);
  return v;
}

// Features [begin, begin + n) of touched row u; all kVectors vectors are full unless kVectors is 1.
template <class In, class T, int kVectors>
void fold_row(const EmbeddingGradMomentsParams& p, int64_t u, int64_t begin, int n) {
  const In* delta = static_cast<const In*>(p.grad_output) + begin;
  const int lanes = kVectors == 1 ? n : kLanes<T>;
  Sums<T, kVectors> sums;
  int64_t count = 0;
  for (int64_t i = p.offsets[u]; i < p.offsets[u + 1];) {
    const int64_t group_end = (p.order[i] / p.group_positions + 1) * p.group_positions;
    Vec<T> g[kVectors] = {};
    for (; i < p.offsets[u + 1] && p.order[i] < group_end; ++i) {
      const In* row = delta + p.order[i] * p.grad_output_stride;
      PYNAS_UNROLL
      for (int v = 0; v < kVectors; ++v) g[v] += load_first<T>(row + v * kLanes<T>, lanes);
    }
    sums.add(g, ++count);
  }
  if (count < p.groups && count > 0) sums.add_zeros(count, p.groups - count);
  T* values = static_cast<T*>(p.values) + u * p.features + begin;
  int64_t k = 0;
  for (int bit = 0; bit < kNumMoments; ++bit) {
    if ((p.moments >> bit & 1u) == 0) continue;
    T* out = values + k++ * p.rows * p.features;
    PYNAS_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      if (lanes == kLanes<T>) {
        store<T>(out + v * kLanes<T>, sums.row(bit, v));
      } else {
        store_partial<T>(out, sums.row(bit, v), lanes);
      }
    }
  }
}

template <class In, class T>
void run(const EmbeddingGradMomentsParams& p, const Parallel& parallel) {
  constexpr int64_t kWidth = kBlock * kLanes<T>;
  const int64_t blocks = ceil_div(p.features, kWidth);
  parallel(p.rows * blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t u = task / blocks;
      int64_t d = task % blocks * kWidth;
      const int64_t last = d + kWidth < p.features ? d + kWidth : p.features;
      if (last - d == kWidth) {
        fold_row<In, T, kBlock>(p, u, d, kLanes<T>);
        continue;
      }
      for (; d < last; d += kLanes<T>) {
        fold_row<In, T, 1>(p, u, d, static_cast<int>(last - d < kLanes<T> ? last - d : kLanes<T>));
      }
    }
  });
}

}  // namespace

void embedding_grad_moments(const EmbeddingGradMomentsParams& p, const Parallel& parallel) {
  visit_dtype(p.dtype, [&](auto types) {
    using Chosen = decltype(types);
    run<typename Chosen::In, typename Chosen::Sum>(p, parallel);
  });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
