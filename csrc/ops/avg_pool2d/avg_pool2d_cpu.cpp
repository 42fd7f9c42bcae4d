#include "ops/avg_pool2d/avg_pool2d.h"

#include <type_traits>

#include "common/simd_convert.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

using V = Vec<float>;
constexpr int kL = kLanes<float>;

// Calls body(offset, lanes) over n elements; lanes is a constant but for the last, partial vector.
template <class F>
PYNAS_INLINE void for_vectors(int64_t n, F body) {
  int64_t e = 0;
  for (; e + kL <= n; e += kL) body(e, std::integral_constant<int, kL>{});
  if (e < n) body(e, static_cast<int>(n - e));
}

// line[e] = sum_i weights[i] rows[i stride + e] over kRows rows: one flat loop over columns and channels.
template <int kRows, class T>
PYNAS_INLINE void add_rows(const T* rows, const float* weights, int64_t stride, float* line) {
  V weight[kRows];
  for (int i = 0; i < kRows; ++i) weight[i] = broadcast<float>(weights[i]);
  for_vectors(stride, [&](int64_t e, auto lanes) {
    V sum{};
    PYNAS_UNROLL for (int i = 0; i < kRows; ++i) sum += weight[i] * load_lanes(rows + i * stride + e, lanes);
    store_lanes(line + e, sum, lanes);
  });
}

template <class T>
void sum_rows(const T* rows, const float* weights, int64_t count, int64_t stride, float* line) {
  switch (count) {
    case 1:
      return add_rows<1>(rows, weights, stride, line);
    case 2:
      return add_rows<2>(rows, weights, stride, line);
    case 3:
      return add_rows<3>(rows, weights, stride, line);
  }
  for_vectors(stride, [&](int64_t e, auto lanes) {
    V sum{};
    for (int64_t i = 0; i < count; ++i)
      sum += broadcast<float>(weights[i]) * load_lanes(rows + i * stride + e, lanes);
    store_lanes(line + e, sum, lanes);
  });
}

// One image. For each row of the result the rows of its sum are added into `line`, a few kilobytes that stay
// in L1, and then the columns: kernel rows + kernel columns loads an element instead of their product, and
// every byte of the image comes from memory once.
template <class T>
void pool_image(const AvgPool2dParams& p, int64_t n, float* line) {
  const int64_t C = p.channels, stride = p.cols.in_size * C;
  const T* in = static_cast<const T*>(p.in) + n * p.rows.in_size * stride;
  T* out = static_cast<T*>(p.out) + n * p.rows.out_size * p.cols.out_size * C;
  for (int64_t h = 0; h < p.rows.out_size; ++h) {
    const int64_t first = p.rows.begin[h];
    sum_rows(in + first * stride, p.rows.before + first, p.rows.end[h] - first, stride, line);
    for (int64_t w = 0; w < p.cols.out_size; ++w, out += C) {
      const V scale = broadcast<float>(p.rows.after[h] * p.cols.after[w]);
      const int64_t from = p.cols.begin[w], to = p.cols.end[w];
      for_vectors(C, [&](int64_t c, auto lanes) {
        V sum{};
        for (int64_t j = from; j < to; ++j)
          sum += broadcast<float>(p.cols.before[j]) * load_lanes(line + j * C + c, lanes);
        store_lanes(out + c, sum * scale, lanes);
      });
    }
  }
}

}  // namespace

void avg_pool2d(const AvgPool2dParams& p, const Parallel& parallel) {
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      float* line = p.workspace + t * p.cols.in_size * p.channels;
      for (int64_t n = p.batch * t / parallel.threads; n < p.batch * (t + 1) / parallel.threads; ++n)
        p.dtype == DType::kBFloat16 ? pool_image<BFloat16>(p, n, line) : pool_image<float>(p, n, line);
    }
  });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
