// normalized_sum over planes: the inner values of one sample and channel are neighbours, so coefficients are
// scalars. A plane ends in a partial vector where `inner` is no multiple of a vector.
#pragma once

#include "ops/normalized_sum/tiles.h"

namespace pynas::cpu::PYNAS_ISA_NS {

template <class S>
PYNAS_INLINE S sum_vector(Vec<S> v) {
  return sum_lanes<S>(v);
}

// The first n lanes of v, zeros in the others.
template <class S>
PYNAS_INLINE Vec<S> keep_lanes(Vec<S> v, int n) {
  for (int i = n; i < kLanes<S>; ++i) v[i] = S(0);
  return v;
}

// As row_moments for every channel, over planes p of [begin, end), of channel p % channels. `seen` counts the
// values; mean, m2 and seen are [channels].
template <class In, class S>
void plane_moments(const In* z, int64_t channels, int64_t inner, int64_t begin, int64_t end, double* mean,
                   double* m2, double* seen) {
  constexpr int64_t kChunk = 256 * kLanes<S>;
  for (int64_t c = 0; c < channels; ++c) mean[c] = m2[c] = seen[c] = 0.0;
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t c = plane % channels;
    for (int64_t from = 0; from < inner; from += kChunk) {
      const int64_t n = least(kChunk, inner - from);
      const In* values = z + plane * inner + from;
      const Vec<S> shift = broadcast<S>(to_float(values[0]));
      const int rest = static_cast<int>(n % kLanes<S>);
      Vec<S> sum[1], square[1];
      sum_lines<S, 1>(
          n / kLanes<S>,
          [&](int64_t m, int, Vec<S>& a, Vec<S>& b) {
            const Vec<S> d = load_as<S>(values + m * kLanes<S>) - shift;
            a += d;
            b += d * d;
          },
          sum, square);
      if (rest != 0) {
        const Vec<S> d = keep_lanes<S>(load_some<S>(values + n - rest, rest) - shift, rest);
        sum[0] += d;
        square[0] += d * d;
      }
      const double count = static_cast<double>(n), total = static_cast<double>(sum_vector<S>(sum[0]));
      const double part = total / count, share = count / (seen[c] + count);
      const double centred = static_cast<double>(sum_vector<S>(square[0])) - part * total;
      const double delta = part + static_cast<double>(shift[0]) - mean[c];
      mean[c] += delta * share;
      m2[c] += (centred > 0.0 ? centred : 0.0) + delta * delta * seen[c] * share;
      seen[c] += count;
    }
  }
}

// y = offset_c + sum_k scale_kc z_k on planes [begin, end); scale is [inputs, channels], offset [channels].
template <class In, class S>
void plane_apply(const In* const* z, int inputs, const S* scale, const S* offset, int64_t channels,
                 int64_t inner, int64_t begin, int64_t end, In* y) {
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t c = plane % channels, base = plane * inner;
    const auto tile = [&](auto lines, int64_t t, int lanes) {
      constexpr int R = decltype(lines)::value;
      Vec<S> sums[R];
      PYNAS_UNROLL
      for (int i = 0; i < R; ++i) sums[i] = broadcast<S>(offset[c]);
      for (int k = 0; k < inputs; ++k) {
        const Vec<S> s = broadcast<S>(scale[k * channels + c]);
        PYNAS_UNROLL
        for (int i = 0; i < R; ++i) sums[i] += s * load_some<S>(z[k] + base + t + i * kLanes<S>, lanes);
      }
      PYNAS_UNROLL
      for (int i = 0; i < R; ++i) store_some(y + base + t + i * kLanes<S>, sums[i], lanes);
    };
    int64_t t = 0;
    for (; t + kTile * kLanes<S> <= inner; t += kTile * kLanes<S>)
      tile(std::integral_constant<int, kTile>{}, t, kLanes<S>);
    for (; t + kLanes<S> <= inner; t += kLanes<S>) tile(std::integral_constant<int, 1>{}, t, kLanes<S>);
    if (t < inner) tile(std::integral_constant<int, 1>{}, t, static_cast<int>(inner - t));
  }
}

// As row_reduce; mean is [inputs, channels], sums [1 + inputs, channels].
template <class In, class S>
void plane_reduce(const In* g, const In* const* z, int inputs, const S* mean, int64_t channels, int64_t inner,
                  int64_t begin, int64_t end, double* sums) {
  constexpr int64_t kChunk = 256 * kLanes<S>;
  for (int64_t q = 0; q < (1 + inputs) * channels; ++q) sums[q] = 0.0;
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t c = plane % channels;
    for (int64_t from = 0; from < inner; from += kChunk) {
      const int64_t n = least(kChunk, inner - from), base = plane * inner + from;
      const int rest = static_cast<int>(n % kLanes<S>);
      for (int k = 0; k < inputs; ++k) {
        const Vec<S> centre = broadcast<S>(mean[k * channels + c]);
        Vec<S> total[1], dot[1];
        sum_lines<S, 1>(
            n / kLanes<S>,
            [&](int64_t m, int, Vec<S>& a, Vec<S>& b) {
              const Vec<S> d = load_as<S>(g + base + m * kLanes<S>);
              a += d;
              b += d * (load_as<S>(z[k] + base + m * kLanes<S>) - centre);
            },
            total, dot);
        if (rest != 0) {
          const Vec<S> d = load_some<S>(g + base + n - rest, rest);
          total[0] += d;
          dot[0] += keep_lanes<S>(d * (load_some<S>(z[k] + base + n - rest, rest) - centre), rest);
        }
        sums[(1 + k) * channels + c] += static_cast<double>(sum_vector<S>(dot[0]));
        if (k == 0) sums[c] += static_cast<double>(sum_vector<S>(total[0]));
      }
    }
  }
}

// As row_gradient; a, b and c are [channels].
template <class In, class S>
void plane_gradient(const In* g, const In* z, const S* a, const S* b, const S* c, int64_t channels,
                    int64_t inner, int64_t begin, int64_t end, In* dz) {
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t q = plane % channels;
    const Vec<S> slope = broadcast<S>(a[q]), scale = broadcast<S>(b[q]), offset = broadcast<S>(c[q]);
    for (int64_t t = 0; t < inner; t += kLanes<S>) {
      const int lanes = static_cast<int>(least(kLanes<S>, inner - t));
      const int64_t at = plane * inner + t;
      Vec<S> d = slope * load_some<S>(g + at, lanes);
      if (z != nullptr) d += scale * load_some<S>(z + at, lanes) + offset;
      store_some(dz + at, d, lanes);
    }
  }
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
