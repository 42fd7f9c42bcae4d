#include "ops/avg_pool2d/avg_pool2d.h"

#include "common/simd_convert.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

using V = Vec<float>;
constexpr int kL = kLanes<float>;

template <class T>
PYNAS_INLINE V load_lanes(const T* p, int lanes) {
  if (lanes == kL) return load_as_float(p);
  V v{};
  for (int i = 0; i < lanes; ++i) v[i] = to_float(p[i]);
  return v;
}
template <class T>
PYNAS_INLINE void store_lanes(T* p, V v, int lanes) {
  if (lanes == kL) return store_from_float(p, v);
  for (int i = 0; i < lanes; ++i) from_float(v[i], p[i]);
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
    for (int64_t j = 0; j < p.cols.in_size; ++j) {
      const V column = broadcast<float>(p.cols.before[j] * p.rows.after[h]);
      for (int64_t c = 0; c < C; c += kL) {
        const int lanes = static_cast<int>(C - c < kL ? C - c : kL);
        V sum{};
        for (int64_t i = p.rows.begin[h]; i < p.rows.end[h]; ++i)
          sum += broadcast<float>(p.rows.before[i]) * load_lanes(in + i * stride + j * C + c, lanes);
        store_lanes(line + j * C + c, sum * column, lanes);
      }
    }
    for (int64_t w = 0; w < p.cols.out_size; ++w) {
      const V scale = broadcast<float>(p.cols.after[w]);
      for (int64_t c = 0; c < C; c += kL) {
        const int lanes = static_cast<int>(C - c < kL ? C - c : kL);
        V sum{};
        for (int64_t j = p.cols.begin[w]; j < p.cols.end[w]; ++j) sum += load_lanes(line + j * C + c, lanes);
        store_lanes(out + (h * p.cols.out_size + w) * C + c, sum * scale, lanes);
      }
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
