// normalized_sum over rows of channels: see Walk for the pattern, whose coefficients are arrays [.., P].
#pragma once

#include "ops/normalized_sum/tiles.h"

namespace pynas::cpu::PYNAS_ISA_NS {

// Whole patterns (at least 4) that together take about 16 KiB, so that what several inputs share stays in L1.
template <class S>
PYNAS_INLINE int64_t lines_of_block(int64_t pattern) {
  const int64_t lines = 16384 / (pattern * static_cast<int64_t>(sizeof(S)));
  return lines < 4 ? 4 : lines;
}

// Over the n = end - begin patterns m, for every entry q:
//   mean[q] = 1/n sum_m z_mq
//   m2[q]   = sum_m (z_mq - mean[q])^2
// as shifted sums inside a chunk (the shift is the chunk's first line, so there is little to cancel), and
// chunks merged by Chan's formula in float64.
template <class In, class S>
void row_moments(const In* z, int64_t pattern, int64_t begin, int64_t end, double* mean, double* m2) {
  constexpr int64_t kChunk = 256;
  for (int64_t q = 0; q < pattern; ++q) mean[q] = m2[q] = 0.0;
  for (int64_t from = begin; from < end; from += kChunk) {
    const int64_t to = least(from + kChunk, end);
    const double n = static_cast<double>(to - from), seen = static_cast<double>(from - begin);
    const double share = n / (seen + n), inverse = 1.0 / n;
    for_groups(pattern / kLanes<S>, [&](auto vectors, int64_t group) {
      constexpr int V = decltype(vectors)::value;
      const int64_t q = group * kLanes<S>;
      const In* line = z + from * pattern + q;
      Vec<S> shift[V], sum[V], square[V];
      PYNAS_UNROLL
      for (int v = 0; v < V; ++v) shift[v] = load_as<S>(line + v * kLanes<S>);
      sum_lines<S, V>(
          to - from,
          [&](int64_t m, int v, Vec<S>& a, Vec<S>& b) {
            const Vec<S> d = load_as<S>(line + m * pattern + v * kLanes<S>) - shift[v];
            a += d;
            b += d * d;
          },
          sum, square);
      S sums[3][V * kLanes<S>];
      PYNAS_UNROLL
      for (int v = 0; v < V; ++v) {
        store(sums[0] + v * kLanes<S>, sum[v]);
        store(sums[1] + v * kLanes<S>, square[v]);
        store(sums[2] + v * kLanes<S>, shift[v]);
      }
      for (int i = 0; i < V * kLanes<S>; ++i) {
        const double total = static_cast<double>(sums[0][i]), part = total * inverse;
        const double centred = static_cast<double>(sums[1][i]) - part * total;
        const double delta = part + static_cast<double>(sums[2][i]) - mean[q + i];
        mean[q + i] += delta * share;
        m2[q + i] += (centred > 0.0 ? centred : 0.0) + delta * delta * seen * share;
      }
    });
  }
}

// row_apply on R lines of V vectors, from entry q of the pattern that begins at element `at`.
template <class In, class S, int R, int V>
PYNAS_INLINE void row_tile(const In* const* z, int inputs, const S* scale, const S* offset, int64_t pattern,
                           int64_t at, int64_t q, In* y) {
  Vec<S> sums[R][V];
  PYNAS_UNROLL
  for (int v = 0; v < V; ++v) {
    const Vec<S> start = load(offset + q + v * kLanes<S>);
    PYNAS_UNROLL
    for (int i = 0; i < R; ++i) sums[i][v] = start;
  }
  for (int k = 0; k < inputs; ++k) {
    const In* line = z[k] + at + q;
    Vec<S> s[V];
    PYNAS_UNROLL
    for (int v = 0; v < V; ++v) s[v] = load(scale + k * pattern + q + v * kLanes<S>);
    PYNAS_UNROLL
    for (int i = 0; i < R; ++i) PYNAS_UNROLL
    for (int v = 0; v < V; ++v) sums[i][v] += s[v] * load_as<S>(line + i * pattern + v * kLanes<S>);
  }
  PYNAS_UNROLL
  for (int i = 0; i < R; ++i) PYNAS_UNROLL
  for (int v = 0; v < V; ++v) store_some(y + at + q + i * pattern + v * kLanes<S>, sums[i][v], kLanes<S>);
}

// y = offset + sum_k scale_k z_k on patterns [begin, end); scale is [inputs, P], offset [P].
template <class In, class S>
void row_apply(const In* const* z, int inputs, const S* scale, const S* offset, int64_t pattern,
               int64_t begin, int64_t end, In* y) {
  const int64_t block = lines_of_block<S>(pattern);
  for (int64_t from = begin; from < end; from += block) {
    const int64_t to = least(from + block, end);
    for_groups(pattern / kLanes<S>, [&](auto vectors, int64_t group) {
      constexpr int V = decltype(vectors)::value, R = kTile / V;
      const int64_t q = group * kLanes<S>;
      int64_t m = from;
      for (; m + R <= to; m += R) row_tile<In, S, R, V>(z, inputs, scale, offset, pattern, m * pattern, q, y);
      for (; m < to; ++m) row_tile<In, S, 1, V>(z, inputs, scale, offset, pattern, m * pattern, q, y);
    });
  }
}

// On patterns m of [begin, end), with sums [1 + inputs, P] and mean [inputs, P]:
//   sums[0]     = sum_m g_m
//   sums[1 + k] = sum_m g_m (z_km - mean_k)
template <class In, class S>
void row_reduce(const In* g, const In* const* z, int inputs, const S* mean, int64_t pattern, int64_t begin,
                int64_t end, double* sums) {
  for (int64_t q = 0; q < (1 + inputs) * pattern; ++q) sums[q] = 0.0;
  const int64_t block = 4 * lines_of_block<S>(pattern);  // longer runs of each stream, g from L2
  for (int64_t from = begin; from < end; from += block) {
    const int64_t lines = least(from + block, end) - from;
    for (int k = 0; k < inputs; ++k) {
      for_groups(pattern / kLanes<S>, [&](auto vectors, int64_t group) {
        constexpr int V = decltype(vectors)::value;
        const int64_t q = group * kLanes<S>;
        const In *delta = g + from * pattern + q, *line = z[k] + from * pattern + q;
        Vec<S> centre[V], total[V], dot[V];
        PYNAS_UNROLL
        for (int v = 0; v < V; ++v) centre[v] = load(mean + k * pattern + q + v * kLanes<S>);
        sum_lines<S, V>(
            lines,
            [&](int64_t m, int v, Vec<S>& a, Vec<S>& b) {
              const Vec<S> d = load_as<S>(delta + m * pattern + v * kLanes<S>);
              a += d;
              b += d * (load_as<S>(line + m * pattern + v * kLanes<S>) - centre[v]);
            },
            total, dot);
        S part[2][V * kLanes<S>];
        PYNAS_UNROLL
        for (int v = 0; v < V; ++v) {
          store(part[0] + v * kLanes<S>, total[v]);
          store(part[1] + v * kLanes<S>, dot[v]);
        }
        double *totals = sums + q, *dots = sums + (1 + k) * pattern + q;
        for (int i = 0; i < V * kLanes<S>; ++i) dots[i] += static_cast<double>(part[1][i]);
        if (k > 0) return;
        for (int i = 0; i < V * kLanes<S>; ++i) totals[i] += static_cast<double>(part[0][i]);
      });
    }
  }
}

// dz = a g + b z + c on patterns [begin, end), or a g where z is null.
// kStream: writes past the caches, for results that they could not hold.
template <bool kStream, class In, class S>
void row_gradient(const In* g, const In* z, const S* a, const S* b, const S* c, int64_t pattern,
                  int64_t begin, int64_t end, In* dz) {
  for_groups(pattern / kLanes<S>, [&](auto vectors, int64_t group) {
    constexpr int V = decltype(vectors)::value;
    const int64_t q = group * kLanes<S>;
    Vec<S> slope[V], scale[V], offset[V];
    PYNAS_UNROLL
    for (int v = 0; v < V; ++v) {
      slope[v] = load(a + q + v * kLanes<S>);
      scale[v] = load(b + q + v * kLanes<S>);
      offset[v] = load(c + q + v * kLanes<S>);
    }
    if (z == nullptr) {
      for (int64_t m = begin; m < end; ++m) PYNAS_UNROLL
      for (int v = 0; v < V; ++v) {
        const int64_t at = m * pattern + q + v * kLanes<S>;
        store_once<kStream>(dz + at, slope[v] * load_as<S>(g + at));
      }
      return;
    }
    for (int64_t m = begin; m < end; ++m) PYNAS_UNROLL
    for (int v = 0; v < V; ++v) {
      const int64_t at = m * pattern + q + v * kLanes<S>;
      const Vec<S> rest = scale[v] * load_as<S>(z + at) + offset[v];
      store_once<kStream>(dz + at, slope[v] * load_as<S>(g + at) + rest);
    }
  });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
