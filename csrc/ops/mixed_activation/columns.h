// Batch normalisation around the mixture: statistics of columns, and the rows before and after it. See
// mixed_activation.h for the formulas.
#pragma once

#include <cmath>

#include "common/simd_convert.h"
#include "ops/mixed_activation/activations.h"

namespace pynas::cpu::PYNAS_ISA_NS {

template <class S>
PYNAS_INLINE void store_whole(S* p, Vec<S> v) {
  store<S>(p, v);
}
PYNAS_INLINE void store_whole(BFloat16* p, Vec<float> v) { store_from_float(p, v); }
PYNAS_INLINE void store_one(float value, float& out) { out = value; }
PYNAS_INLINE void store_one(double value, double& out) { out = value; }
PYNAS_INLINE void store_one(float value, BFloat16& out) { from_float(value, out); }

constexpr int64_t kChunkRows = 256;  // rows summed in the elements' precision before they go to float64

// Sums over rows, float64 between chunks: totals[i] += sum_b terms(b)[i] for the lanes of one vector of
// columns.
template <class S, int kSums, class F>
PYNAS_INLINE void sum_rows(int64_t rows, double (*totals)[kLanes<S>], F terms) {
  for (int64_t from = 0; from < rows; from += kChunkRows) {
    const int64_t to = from + kChunkRows < rows ? from + kChunkRows : rows;
    Vec<S> sums[kSums] = {};
    for (int64_t b = from; b < to; ++b) terms(b, sums);
    for (int s = 0; s < kSums; ++s)
      for (int i = 0; i < kLanes<S>; ++i) totals[s][i] += static_cast<double>(sums[s][i]);
  }
}

// Calls body(first column, lanes) for every vector of columns; the last one is moved back to be whole. Bodies
// are never inlined: a compiler that fuses products in one copy and not in another would round them
// differently on one thread and on two.
template <class S, class F>
void for_columns(int64_t features, const Parallel& parallel, F body) {
  constexpr int64_t kL = kLanes<S>;
  parallel((features + kL - 1) / kL, 4, [&](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      const int64_t d = features < kL ? 0 : v * kL + kL <= features ? v * kL : features - kL;
      body(d, static_cast<int>(features < kL ? features : kL));
    }
  });
}

template <class S, class T>
PYNAS_INLINE Vec<S> read_lanes(const T* p, int lanes) {
  if (lanes == kLanes<S>) return load_as<S>(p);
  Vec<S> v{};
  for (int i = 0; i < lanes; ++i) v[i] = to_float(p[i]);
  return v;
}

// mean_d and var_d of sums [B, D]: two passes, the second about the mean of the first.
template <class S>
void column_moments(const MixedActivationParams& p, const Parallel& parallel) {
  const S* x = static_cast<const S*>(p.sums);
  const int64_t D = p.features;
  const double rows = static_cast<double>(p.batch);
  for_columns<S>(D, parallel, [&](int64_t d, int lanes) __attribute__((noinline)) {
    double total[1][kLanes<S>] = {}, centred[2][kLanes<S>] = {};
    const Vec<S> shift = read_lanes<S>(x + d, lanes);
    sum_rows<S, 1>(p.batch, total,
                   [&](int64_t b, Vec<S>* sums) { sums[0] += read_lanes<S>(x + b * D + d, lanes) - shift; });
    Vec<S> mean{};
    for (int i = 0; i < lanes; ++i)
      mean[i] = static_cast<S>(static_cast<double>(shift[i]) + total[0][i] / rows);
    sum_rows<S, 2>(p.batch, centred, [&](int64_t b, Vec<S>* sums) {
      const Vec<S> away = read_lanes<S>(x + b * D + d, lanes) - mean;
      sums[0] += away;
      sums[1] += away * away;
    });
    for (int i = 0; i < lanes; ++i) {  // what rounding the mean took away is put back
      const double rest = centred[0][i] / rows;
      static_cast<S*>(p.mean)[d + i] = static_cast<S>(static_cast<double>(mean[i]) + rest);
      static_cast<S*>(p.var)[d + i] = static_cast<S>(centred[1][i] / rows - rest * rest);
    }
  });
}

// columns[0, d] = 1 / sqrt(var_d + eps).
template <class S>
void column_scales(const MixedActivationParams& p) {
  const S* var = static_cast<const S*>(p.var);
  S* scales = static_cast<S*>(p.columns);
  for (int64_t d = 0; d < p.features; ++d)
    scales[d] = static_cast<S>(1.0 / std::sqrt(static_cast<double>(var[d]) + p.eps));
}

// y from sums, rows [begin, end): normalised where asked, and in the dtype of the elements.
template <class T>
void finish_rows(const MixedActivationParams& p, int64_t begin, int64_t end) {
  using S = SumOf<T>;
  const S* sums = static_cast<const S*>(p.sums);
  T* y = static_cast<T*>(p.y);
  const int64_t D = p.features;
  if (p.normalization == Normalization::kNone) {
    if (static_cast<const void*>(y) == p.sums) return;
#pragma GCC ivdep
    for (int64_t i = begin * D; i < end * D; ++i) store_one(sums[i], y[i]);
    return;
  }
  const S* mean = static_cast<const S*>(p.mean);
  const S* scale = static_cast<const S*>(p.columns);
  for (int64_t b = begin; b < end; ++b) {
#pragma GCC ivdep
    for (int64_t d = 0; d < D; ++d) store_one((sums[b * D + d] - mean[d]) * scale[d], y[b * D + d]);
  }
}

// e = columns[0, d] (g + (columns[1, d] y + columns[2, d])): what normalisation makes of the gradient. In no
// sum are there two products, of which a compiler could fuse either.
template <class T>
void column_gradients(const MixedActivationParams& p, const Parallel& parallel) {
  using S = SumOf<T>;
  if (p.normalization == Normalization::kNone) return;
  column_scales<S>(p);
  if (p.normalization == Normalization::kGiven) return;
  const T* g = static_cast<const T*>(p.grad);
  const T* y = static_cast<const T*>(p.y);
  S* columns = static_cast<S*>(p.columns);
  const int64_t D = p.features;
  const double rows = static_cast<double>(p.batch);
  for_columns<S>(D, parallel, [&](int64_t d, int lanes) __attribute__((noinline)) {
    double totals[2][kLanes<S>] = {};  // sum g, sum g y
    sum_rows<S, 2>(p.batch, totals, [&](int64_t b, Vec<S>* sums) {
      const Vec<S> grad = read_lanes<S>(g + b * D + d, lanes);
      sums[0] += grad;
      sums[1] += grad * read_lanes<S>(y + b * D + d, lanes);
    });
    for (int i = 0; i < lanes; ++i) {
      columns[D + d + i] = static_cast<S>(-totals[1][i] / rows);
      columns[2 * D + d + i] = static_cast<S>(-totals[0][i] / rows);
    }
  });
}

template <class T>
void fold_gradient(const MixedActivationParams& p, int64_t begin, int64_t end) {
  using S = SumOf<T>;
  const T* g = static_cast<const T*>(p.grad);
  S* e = static_cast<S*>(p.sums);
  const int64_t D = p.features;
  if (p.normalization == Normalization::kNone) {
    if (static_cast<const void*>(g) == p.sums) return;
#pragma GCC ivdep
    for (int64_t i = begin * D; i < end * D; ++i) e[i] = to_float(g[i]);
    return;
  }
  const T* y = static_cast<const T*>(p.y);
  const S* columns = static_cast<const S*>(p.columns);
  const bool batch = p.normalization == Normalization::kBatch;
  for (int64_t b = begin; b < end; ++b) {
    if (batch) {
#pragma GCC ivdep
      for (int64_t d = 0; d < D; ++d)
        e[b * D + d] = columns[d] * (to_float(g[b * D + d]) +
                                     (columns[D + d] * to_float(y[b * D + d]) + columns[2 * D + d]));
    } else {
#pragma GCC ivdep
      for (int64_t d = 0; d < D; ++d) e[b * D + d] = columns[d] * to_float(g[b * D + d]);
    }
  }
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
