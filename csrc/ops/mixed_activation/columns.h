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

template <class S, class T>
PYNAS_INLINE Vec<S> read_lanes(const T* p, int lanes) {
  if (lanes == kLanes<S>) return load_as<S>(p);
  Vec<S> v{};
  for (int i = 0; i < lanes; ++i) v[i] = to_float(p[i]);
  return v;
}

// Calls body(first column, lanes) for every vector of columns; the last one is moved back to be whole.
template <class S, class F>
PYNAS_INLINE void for_columns(int64_t features, F body) {
  constexpr int64_t kL = kLanes<S>;
  if (features < kL) return body(int64_t{0}, static_cast<int>(features));
  for (int64_t d = 0; d < features; d += kL)
    body(d + kL <= features ? d : features - kL, static_cast<int>(kL));
}

// The column sums of a block of rows, [2, D], behind the shares of dL/dw in p.partial. Rows of a
// block are few, so they are summed in S; blocks are merged in float64 and in their order. Functions
// that sum are never inlined: a compiler that fuses products in one copy and not in another would
// round them differently on one thread and on two.
inline double* block_columns(const MixedActivationParams& p, int64_t block) {
  const bool backward = p.grad != nullptr;
  const int64_t blocks = mixed_activation_blocks(p.batch, p.features);
  return p.partial + (backward ? blocks * p.predecessors * kActivations : 0) + 2 * p.features * block;
}

// Mean and sum of squared deviations of each column over the rows [begin, end) of a block, shifted by its
// first row so that there is little to cancel.
template <class S>
__attribute__((noinline)) void block_moments(const MixedActivationParams& p, int64_t block, int64_t begin,
                                             int64_t end) {
  const S* x = static_cast<const S*>(p.sums);
  const int64_t D = p.features;
  double* out = block_columns(p, block);
  const double rows = static_cast<double>(end - begin);
  for_columns<S>(D, [&](int64_t d, int lanes) {
    const Vec<S> shift = read_lanes<S>(x + begin * D + d, lanes);
    Vec<S> sum{}, square{};
    for (int64_t b = begin + 1; b < end; ++b) {
      const Vec<S> away = read_lanes<S>(x + b * D + d, lanes) - shift;
      sum += away;
      square += away * away;
    }
    for (int i = 0; i < lanes; ++i) {
      const double total = static_cast<double>(sum[i]), mean = total / rows;
      const double centred = static_cast<double>(square[i]) - mean * total;
      out[d + i] = static_cast<double>(shift[i]) + mean;
      out[D + d + i] = centred > 0.0 ? centred : centred == centred ? 0.0 : centred;  // NaN stays
    }
  });
}

// mean_d and var_d of sums [B, D] from the blocks' moments (Chan, Golub & LeVeque 1983), for d in [from, to).
template <class S>
__attribute__((noinline)) void merge_moments(const MixedActivationParams& p, int64_t from, int64_t to) {
  const int64_t D = p.features, rows = mixed_activation_block_rows(D);
  double* all = block_columns(p, 0);  // those of the first block become those of all
  for (int64_t block = 1; block < mixed_activation_blocks(p.batch, D); ++block) {
    const double* one = block_columns(p, block);
    const double seen = static_cast<double>(block * rows);
    const double n = static_cast<double>((block + 1) * rows < p.batch ? rows : p.batch - block * rows);
    const double share = n / (seen + n), weight = seen * share;
#pragma GCC ivdep
    for (int64_t d = from; d < to; ++d) {
      const double away = one[d] - all[d];
      all[d] += away * share;
      all[D + d] += one[D + d];
      all[D + d] += away * away * weight;
    }
  }
  for (int64_t d = from; d < to; ++d) {
    static_cast<S*>(p.mean)[d] = static_cast<S>(all[d]);
    static_cast<S*>(p.var)[d] = static_cast<S>(all[D + d] / static_cast<double>(p.batch));
  }
}

// columns[0, d] = 1 / sqrt(var_d + eps).
template <class S>
void column_scales(const MixedActivationParams& p) {
  const S* var = static_cast<const S*>(p.var);
  S* scales = static_cast<S*>(p.columns);
  for (int64_t d = 0; d < p.features; ++d)
    scales[d] = static_cast<S>(1.0 / std::sqrt(static_cast<double>(var[d]) + p.eps));
}

// y = sums, or (sums - mean) / sqrt(var + eps) where the node is normalised, in the dtype
// of the elements; rows [begin, end).
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

// sum_b g_bd and sum_b g_bd y_bd over the rows [begin, end) of a block.
template <class T>
__attribute__((noinline)) void block_gradients(const MixedActivationParams& p, int64_t block, int64_t begin,
                                               int64_t end) {
  using S = SumOf<T>;
  const T* g = static_cast<const T*>(p.grad);
  const T* y = static_cast<const T*>(p.y);
  const int64_t D = p.features;
  double* out = block_columns(p, block);
  for_columns<S>(D, [&](int64_t d, int lanes) {
    Vec<S> sum{}, dot{};
    for (int64_t b = begin; b < end; ++b) {
      const Vec<S> grad = read_lanes<S>(g + b * D + d, lanes);
      sum += grad;
      dot += grad * read_lanes<S>(y + b * D + d, lanes);
    }
    for (int i = 0; i < lanes; ++i) {
      out[d + i] = static_cast<double>(sum[i]);
      out[D + d + i] = static_cast<double>(dot[i]);
    }
  });
}

// From the blocks' sums, for d in [from, to):
//   columns[1, d] = -1/B sum_b g_bd y_bd = -H_d
//   columns[2, d] = -1/B sum_b g_bd      = -G_d
template <class S>
__attribute__((noinline)) void merge_gradients(const MixedActivationParams& p, int64_t from, int64_t to) {
  const int64_t D = p.features;
  double* all = block_columns(p, 0);
  for (int64_t block = 1; block < mixed_activation_blocks(p.batch, D); ++block) {
    const double* one = block_columns(p, block);
#pragma GCC ivdep
    for (int64_t d = from; d < to; ++d) {
      all[d] += one[d];
      all[D + d] += one[D + d];
    }
  }
  S* columns = static_cast<S*>(p.columns);
  for (int64_t d = from; d < to; ++d) {
    columns[D + d] = static_cast<S>(-all[D + d] / static_cast<double>(p.batch));
    columns[2 * D + d] = static_cast<S>(-all[d] / static_cast<double>(p.batch));
  }
}

// The gradient e of the node before its normalisation, rows [begin, end):
//   batch statistics   e = columns[0, d] (g + (columns[1, d] y + columns[2, d]))
//   given statistics   e = columns[0, d] g
//   no normalisation   e = g
// No sum has two products, of which a compiler could fuse either.
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
