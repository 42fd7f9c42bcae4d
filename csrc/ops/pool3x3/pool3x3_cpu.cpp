#include "ops/pool3x3/pool3x3.h"

#include "common/math.h"
#include "common/simd_convert.h"
#include "common/visit.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

constexpr int64_t kChunk = 64;  // channels whose sums are kept in registers or L1 at a time

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// The part inside the image of the window of output i.
PYNAS_INLINE Range window(int64_t i, int64_t stride, int64_t size) {
  const int64_t first = stride * i - 1;
  return {first < 0 ? 0 : first, least(first + 3, size)};
}

// The outputs whose window holds input y: stride i - 1 <= y <= stride i + 1.
PYNAS_INLINE Range windows_of(int64_t y, int64_t stride, int64_t outputs) {
  return {y <= 0 ? 0 : ceil_div(y - 1, stride), least((y + 1) / stride + 1, outputs)};
}

template <class A>
bool live(const Pool3x3Params& p, int64_t gate) {
  return p.gates == nullptr || gate < 0 || static_cast<const A*>(p.gates)[gate] != A(0);
}

// Whether a value takes the place of the largest before it, in the order of the window's
// pixels: an equal one does not, a NaN always does.
template <class A>
PYNAS_INLINE bool displaces(A value, A largest) {
  return value > largest || value != value;
}

template <class T>
PYNAS_INLINE const T* pixel(const Pool3x3Params& p, int64_t n, int64_t row, int64_t column) {
  return static_cast<const T*>(p.x) + ((n * p.height + row) * p.width + column) * p.channels;
}

template <class T, class A>
void forward_row(const Pool3x3Params& p, bool use_max, bool use_avg, int64_t n, int64_t i) {
  const int64_t C = p.channels;
  const Range rows = window(i, p.stride, p.height);
  for (int64_t j = 0; j < p.out_width; ++j) {
    const Range columns = window(j, p.stride, p.width);
    const A share = A(1) / static_cast<A>(rows.size() * columns.size());
    const int64_t to = ((n * p.out_height + i) * p.out_width + j) * C;
    for (int64_t first = 0; first < C; first += kChunk) {
      const int64_t channels = least(kChunk, C - first);
      A largest[kChunk], sum[kChunk] = {};
      for (int64_t c = 0; c < channels; ++c)
        largest[c] = to_float(pixel<T>(p, n, rows.begin, columns.begin)[first + c]);
      for (int64_t y = rows.begin; y < rows.end; ++y) {
        for (int64_t x = columns.begin; x < columns.end; ++x) {
          const T* from = pixel<T>(p, n, y, x) + first;
          for (int64_t c = 0; c < channels; ++c) {
            const A value = to_float(from[c]);
            sum[c] += value;
            largest[c] = displaces(value, largest[c]) ? value : largest[c];
          }
        }
      }
      T* max_out = static_cast<T*>(p.max_out) + to + first;
      T* avg_out = static_cast<T*>(p.avg_out) + to + first;
      if (p.max_out != nullptr)
        for (int64_t c = 0; c < channels; ++c) store_one(use_max ? largest[c] : A(0), max_out[c]);
      if (p.avg_out != nullptr)
        for (int64_t c = 0; c < channels; ++c) store_one(use_avg ? sum[c] * share : A(0), avg_out[c]);
    }
  }
}

// sum[c] += grad[c] where the maximum of the window rows x columns is at (y, x).
template <class T, class A>
void add_max(const Pool3x3Params& p, const T* grad, int64_t n, Range rows, Range columns, int64_t y,
             int64_t x, int64_t first, int64_t channels, A* sum) {
  A largest[kChunk];
  int32_t chosen[kChunk] = {};
  const int32_t wanted = static_cast<int32_t>((y - rows.begin) * columns.size() + x - columns.begin);
  for (int64_t c = 0; c < channels; ++c)
    largest[c] = to_float(pixel<T>(p, n, rows.begin, columns.begin)[first + c]);
  int32_t position = 0;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t column = columns.begin; column < columns.end; ++column, ++position) {
      const T* from = pixel<T>(p, n, row, column) + first;
      for (int64_t c = 0; c < channels; ++c) {
        const A value = to_float(from[c]);
        const bool larger = displaces(value, largest[c]);
        largest[c] = larger ? value : largest[c];
        chosen[c] = larger ? position : chosen[c];
      }
    }
  }
  for (int64_t c = 0; c < channels; ++c) sum[c] += chosen[c] == wanted ? to_float(grad[c]) : A(0);
}

template <class T, class A>
void backward_row(const Pool3x3Params& p, bool use_max, bool use_avg, int64_t n, int64_t y) {
  const int64_t C = p.channels;
  const Range outputs_i = windows_of(y, p.stride, p.out_height);
  for (int64_t x = 0; x < p.width; ++x) {
    const Range outputs_j = windows_of(x, p.stride, p.out_width);
    for (int64_t first = 0; first < C; first += kChunk) {
      const int64_t channels = least(kChunk, C - first);
      A sum[kChunk] = {};
      for (int64_t i = outputs_i.begin; i < outputs_i.end; ++i) {
        for (int64_t j = outputs_j.begin; j < outputs_j.end; ++j) {
          const Range rows = window(i, p.stride, p.height), columns = window(j, p.stride, p.width);
          const int64_t at = ((n * p.out_height + i) * p.out_width + j) * C + first;
          if (use_avg) {
            const A share = A(1) / static_cast<A>(rows.size() * columns.size());
            const T* grad = static_cast<const T*>(p.grad_avg) + at;
            for (int64_t c = 0; c < channels; ++c) sum[c] += share * to_float(grad[c]);
          }
          if (use_max)
            add_max<T, A>(p, static_cast<const T*>(p.grad_max) + at, n, rows, columns, y, x, first, channels,
                          sum);
        }
      }
      T* to = static_cast<T*>(p.grad_input) + ((n * p.height + y) * p.width + x) * C + first;
      for (int64_t c = 0; c < channels; ++c)
        store_one(p.accumulate ? sum[c] + to_float(to[c]) : sum[c], to[c]);
    }
  }
}

}  // namespace

void pool3x3_forward(const Pool3x3Params& p, const Parallel& parallel) {
  visit_dtype_without_half(p.dtype, [&](auto types) {
    using T = typename decltype(types)::In;
    using A = typename decltype(types)::Sum;
    const bool use_max = live<A>(p, p.max_gate), use_avg = live<A>(p, p.avg_gate);
    parallel(p.batch * p.out_height, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        forward_row<T, A>(p, use_max, use_avg, r / p.out_height, r % p.out_height);
    });
  });
}

void pool3x3_backward(const Pool3x3Params& p, const Parallel& parallel) {
  visit_dtype_without_half(p.dtype, [&](auto types) {
    using T = typename decltype(types)::In;
    using A = typename decltype(types)::Sum;
    const bool use_max = p.grad_max != nullptr && live<A>(p, p.max_gate);
    const bool use_avg = p.grad_avg != nullptr && live<A>(p, p.avg_gate);
    parallel(p.batch * p.height, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        backward_row<T, A>(p, use_max, use_avg, r / p.height, r % p.height);
    });
  });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
