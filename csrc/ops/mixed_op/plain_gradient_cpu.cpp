#include <algorithm>

#include "common/math.h"
#include "common/simd.h"
#include "ops/mixed_op/plain_gradient.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

using V = Vec<float>;
constexpr int64_t kStep = kLanes<float>;

// One over the number of rows (columns) inside the image of the window of row (column) i.
inline float share(int64_t i, int64_t size) {
  const int64_t first = most(i - 1, 0), last = least(i + 2, size);
  return 1.0f / static_cast<float>(last - first);
}

// Calls full(k) for every whole vector of values k, k + 1, ..., and rest(k, lanes) for what is left.
template <class Full, class Rest>
PYNAS_INLINE void each(int64_t size, Full&& full, Rest&& rest) {
  int64_t k = 0;
  for (; k + kStep <= size; k += kStep) full(k);
  if (k < size) rest(k, static_cast<int>(size - k));
}

// column[w,c] = sum_{|i-h| <= 1} g[i,w,c] / pixels(i,w), over rows i of the image.
void sum_rows(const PlainGradientParams& p, const float* image, int64_t h, float* column) {
  const int64_t size = p.width * p.channels;
  const int64_t first = most(h - 1, 0), last = least(h + 2, p.height);
  float rows[3];
  for (int64_t i = first; i < last; ++i) rows[i - first] = share(i, p.height);
  for (int64_t w = 0; w < p.width; ++w) {
    const float cols = share(w, p.width);
    const float* source = image + first * size + w * p.channels;
    float* target = column + w * p.channels;
    const auto total = [&](auto&& read) {
      V sum = read(source) * (rows[0] * cols);
      for (int64_t i = 1; i < last - first; ++i) sum += read(source + i * size) * (rows[i] * cols);
      return sum;
    };
    each(
        p.channels,
        [&](int64_t c) { store(target + c, total([&](const float* row) { return load(row + c); })); },
        [&](int64_t c, int n) {
          store_partial(target + c, total([&](const float* row) { return load_partial(row + c, n); }), n);
        });
  }
}

// Row `index` of all N H rows. padded: `column` above, with C zeros before and behind.
void row(const PlainGradientParams& p, int64_t index, float* padded) {
  const int64_t size = p.width * p.channels, h = index % p.height;
  float* column = padded + p.channels;
  sum_rows(p, p.grad + (index - h) * size, h, column);
  const float* g = p.grad + index * size;
  const float* x = p.x + index * size;
  float* out = p.out == nullptr ? nullptr : p.out + index * size;
  V skip{}, pool{};
  const auto gather = [&](V gk, V xk, V left, V middle, V right) {
    const V q = left + middle + right;
    skip += gk * xk;
    pool += q * xk;
    return gk * p.skip + q * p.pool;
  };
  each(
      size,
      [&](int64_t k) {
        const V result = gather(load(g + k), load(x + k), load(column + k - p.channels), load(column + k),
                                load(column + k + p.channels));
        if (out != nullptr) store(out + k, result);
      },
      [&](int64_t k, int n) {
        const V result =
            gather(load_partial(g + k, n), load_partial(x + k, n), load_partial(column + k - p.channels, n),
                   load_partial(column + k, n), load_partial(column + k + p.channels, n));
        if (out != nullptr) store_partial(out + k, result, n);
      });
  p.sums[2 * index] = sum<float>(skip);
  p.sums[2 * index + 1] = sum<float>(pool);
}

}  // namespace

void plain_gradient(const PlainGradientParams& p, const Parallel& parallel) {
  const int64_t rows = p.samples * p.height, threads = parallel.threads;
  const int64_t room = (p.width + 2) * p.channels;
  parallel(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* padded = p.workspace + t * room;
      std::fill_n(padded, p.channels, 0.0f);
      std::fill_n(padded + room - p.channels, p.channels, 0.0f);
      for (int64_t i = rows * t / threads; i < rows * (t + 1) / threads; ++i) row(p, i, padded);
    }
  });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
