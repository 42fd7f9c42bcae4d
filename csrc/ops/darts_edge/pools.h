// 3x3 pools of one block of channels, padding 1, stride 1 or 2, over the part of each
// window inside the image:
//
//   max_hw  = max over the window
//   mean_hw = sum over the window / its pixels
//
// Maxima and sums over three columns are kept for the rows of a window: at stride 1 a maximum then takes four
// comparisons instead of eight. The backward pass takes the same two steps in reverse: the gradient of a
// maximum goes to the first of the three rows that has it, and there to the first of the three columns, which
// is the first in scan order as in torch.max_pool2d (with NaN in the window, the last NaN).
#pragma once

#include <limits>

#include "ops/darts_edge/layout.h"

namespace pynas::cpu::PYNAS_ISA_NS::darts {

constexpr int kRing = 4;  // rows kept: the three of a window and one that is still being finished

// Rows of output columns, but for `spread`.
struct PoolScratch {
  float* row_max[kRing] = {};
  float* row_sum[kRing] = {};
  float *max = nullptr, *mean = nullptr;  // the pooled row, [Wo][lanes of the block]
  float* zeros = nullptr;
  float* inverse_columns = nullptr;  // [Wo]: one over the columns of a window inside the image
  float* never = nullptr;            // NaN, which equals no maximum: backward only, as all below
  float* row_max_gradient[kRing] = {};
  float* row_sum_gradient[kRing] = {};
  float* spread = nullptr;  // a row of input columns with one more on either side

  void place(Arena& arena, int64_t in_width, int64_t out_width, bool backward) {
    const int64_t row = (out_width + 1) * kL;
    for (float*& r : row_max) r = arena.take<float>(row);
    for (float*& r : row_sum) r = arena.take<float>(row);
    for (float** r : {&max, &mean, &zeros}) *r = arena.take<float>(row);
    inverse_columns = arena.take<float>(out_width);
    if (!backward) return;
    never = arena.take<float>(row);
    for (float*& r : row_max_gradient) r = arena.take<float>(row);
    for (float*& r : row_sum_gradient) r = arena.take<float>(row);
    spread = arena.take<float>((in_width + 3) * kL);
  }
  void clear(int64_t in_width, int64_t out_width, int stride) const {
    for (int64_t i = 0; i < out_width * kL; ++i) zeros[i] = 0.0f;
    for (int64_t i = 0; never && i < out_width * kL; ++i) never[i] = std::numeric_limits<float>::quiet_NaN();
    for (int64_t w = 0; w < out_width; ++w)
      inverse_columns[w] = 1.0f / static_cast<float>(1 + (w * stride > 0) + (w * stride + 1 < in_width));
  }
};

// r, and NaN where a or b is.
PYNAS_INLINE V or_nan(V r, V a, V b) {
#if defined(__AVX512F__)
  const __m512 x = reinterpret_cast<__m512>(a), y = reinterpret_cast<__m512>(b);
  return reinterpret_cast<V>(
      _mm512_mask_add_ps(reinterpret_cast<__m512>(r), _mm512_cmp_ps_mask(x, y, _CMP_UNORD_Q), x, y));
#elif defined(__AVX2__)
  const __m256 nan = _mm256_cmp_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), _CMP_UNORD_Q);
  return reinterpret_cast<V>(_mm256_or_ps(reinterpret_cast<__m256>(r), nan));
#else
  return a != a ? a : (b != b ? b : r);
#endif
}
PYNAS_INLINE V greater(V a, V b) { return a > b ? a : b; }  // b where either is NaN
// The greatest of three, NaN if one is.
PYNAS_INLINE V greatest(V a, V b, V c) { return or_nan(greater(a, greater(b, c)), a, b); }
PYNAS_INLINE bool any_nan(V v) {
#if defined(__AVX512F__)
  const __m512 x = reinterpret_cast<__m512>(v);
  return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q) != 0;
#elif defined(__AVX2__)
  const __m256 x = reinterpret_cast<__m256>(v);
  return _mm256_movemask_ps(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)) != 0;
#else
  for (int i = 0; i < kL; ++i)
    if (v[i] != v[i]) return true;
  return false;
#endif
}

// What each of three pixels gets of a gradient.
struct Routed {
  V a, b, c;
};

// Where the greatest is NaN, d goes to the last NaN. A function of its own, so that
// route() keeps its values in registers.
__attribute__((noinline)) inline Routed route_nan(V maximum, V b, V c, bool a_inside, bool c_inside, V d,
                                                  Routed to) {
  for (int i = 0; i < kL; ++i) {
    if (maximum[i] == maximum[i]) continue;
    const bool c_nan = c_inside && c[i] != c[i], b_nan = !a_inside || b[i] != b[i];
    to.c[i] = c_nan ? d[i] : 0.0f;
    to.b[i] = !c_nan && b_nan ? d[i] : 0.0f;
    to.a[i] = !c_nan && !b_nan ? d[i] : 0.0f;
  }
  return to;
}

// Gives d to the first of a, b, c that is `maximum`, their greatest. Where a or c lies outside the image it
// is NaN, which equals no maximum.
PYNAS_INLINE Routed route(V maximum, V a, V b, V c, bool a_inside, bool c_inside, V d) {
  Routed to;
  const V rest = a == maximum ? zero<float>() : d;
  to.a = a == maximum ? d : zero<float>();
  to.b = b == maximum ? rest : zero<float>();
  to.c = b == maximum ? zero<float>() : rest;
  if (__builtin_expect(any_nan(maximum), 0)) return route_nan(maximum, b, c, a_inside, c_inside, d, to);
  return to;
}

// Maxima and sums over the columns of each window in one row.
template <int S, class Lanes>
PYNAS_INLINE void pool_columns(const float* x, int64_t step, Lanes lanes, int64_t in_width, int64_t out_width,
                               float* maxima, float* sums) {
  const auto pixel = [&](int64_t w) { return load_channels(x + w * step, lanes); };
  const auto edge = [&](int64_t w) {
    const V centre = pixel(w * S), left = w * S > 0 ? pixel(w * S - 1) : centre;
    const bool inside = w * S + 1 < in_width;
    const V right = inside ? pixel(w * S + 1) : centre;
    store(maxima + w * kL, greatest(left, centre, right));
    store(sums + w * kL, centre + (w * S > 0 ? left : zero<float>()) + (inside ? right : zero<float>()));
  };
  edge(0);
  int64_t w = 1;
  V left = out_width > 1 ? pixel(S - 1) : zero<float>(), centre = out_width > 1 ? pixel(S) : zero<float>();
  for (; w * S + 1 < in_width; ++w) {
    const V right = pixel(w * S + 1);
    store(maxima + w * kL, greatest(left, centre, right));
    store(sums + w * kL, left + centre + right);
    if (S == 1) {
      left = centre;
      centre = right;
    } else if ((w + 1) * S < in_width) {
      left = right;
      centre = pixel((w + 1) * S);
    }
  }
  for (; w < out_width; ++w) edge(w);
}

// A window's rows in the rings; for rows outside the image, some that change nothing.
struct PoolWindow {
  int64_t first, last;  // rows of the image, both inside
  const float* max[3];
  const float* sum[3];
};

// For every row h of pooled pixels: computes the maxima in s.max, the means in s.mean, and calls
// body(h, window). x: the block in an image of channels_last.
template <int S, class Lanes, class F>
PYNAS_INLINE void pool_rows(const PoolScratch& s, const float* x, int64_t step, Lanes lanes, const Shape& in,
                            const Shape& out, F body) {
  int64_t ready = 0;
  for (int64_t h = 0; h < out.height; ++h) {
    PoolWindow window{};
    window.first = most(0, h * S - 1);
    window.last = least(in.height - 1, h * S + 1);
    for (; ready <= window.last; ++ready)
      pool_columns<S>(x + ready * in.width * step, step, lanes, in.width, out.width, s.row_max[ready % kRing],
                      s.row_sum[ready % kRing]);
    for (int i = 0; i < 3; ++i) {
      const int64_t row = h * S - 1 + i;
      const bool inside = row >= 0 && row < in.height;
      window.max[i] = s.row_max[(inside ? row : h * S) % kRing];
      window.sum[i] = inside ? s.row_sum[row % kRing] : s.zeros;
    }
    const V inverse_rows = broadcast(1.0f / static_cast<float>(window.last - window.first + 1));
    for (int64_t w = 0; w < out.width; ++w) {
      const int64_t i = w * kL;
      // Stores ascend and overlap: what is written behind the block's lanes, the next pixel overwrites.
      store(s.max + w * lanes,
            greatest(load(window.max[0] + i), load(window.max[1] + i), load(window.max[2] + i)));
      store(s.mean + w * lanes,
            (load(window.sum[0] + i) + load(window.sum[1] + i) + load(window.sum[2] + i)) *
                (inverse_rows * broadcast(s.inverse_columns[w])));
    }
    body(h, window);
  }
}

}  // namespace pynas::cpu::PYNAS_ISA_NS::darts
