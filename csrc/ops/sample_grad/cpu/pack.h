// Repacks one sample into planes whose innermost dimension is the lanes of a register tile, converting to the
// type that is computed in. Include only from sample_grad_cpu.cpp, once per instruction set.
#pragma once

#include <utility>

#include "common/simd.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

template <class T, int R>
struct FixedVector {
  typedef T type __attribute__((vector_size(R * sizeof(T))));
};
template <class T, int R>
using Fixed = typename FixedVector<T, R>::type;

// R consecutive elements as R values of the compute type.
template <int R>
PYNAS_INLINE Fixed<float, R> load_as(const float* p) {
  Fixed<float, R> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <int R>
PYNAS_INLINE Fixed<double, R> load_as(const double* p) {
  Fixed<double, R> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <int R>
PYNAS_INLINE Fixed<uint32_t, R> load_words(const uint16_t* p) {
  Fixed<uint16_t, R> v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Fixed<uint32_t, R>);
}
template <int R>
PYNAS_INLINE Fixed<float, R> load_as(const BFloat16* p) {
  return reinterpret_cast<Fixed<float, R>>(load_words<R>(&p->bits) << 16);
}
// Exponent and mantissa shifted into place, then scaled by 2^112: exact for normal and subnormal halves.
template <int R>
PYNAS_INLINE Fixed<float, R> load_as(const Float16* p) {
  using Words = Fixed<uint32_t, R>;
  const Words half = load_words<R>(&p->bits);
  const Words sign = (half & 0x8000u) << 16;
  const Words magnitude = (half & 0x7fffu) << 13;
  const Words finite = reinterpret_cast<Words>(reinterpret_cast<Fixed<float, R>>(magnitude) * 0x1p112f);
  return reinterpret_cast<Fixed<float, R>>((magnitude >= (0x7c00u << 13) ? magnitude | 0x7f800000u : finite) |
                                           sign);
}

// to[i] = from[i * stride], i < n
template <class S, class T>
void copy_row(const S* from, int64_t stride, int64_t n, T* to) {
  int64_t i = 0;
  if (stride == 1) {
    constexpr int R = kLanes<T>;
    for (; i + R <= n; i += R) store<T>(to + i, load_as<R>(from + i));
  }
  for (; i < n; ++i) to[i] = load_as<1>(from + i * stride)[0];
}

// One stage of an R x R transpose: rows D apart exchange the halves of their blocks of 2D lanes.
template <class T, int R, int D, size_t... I>
PYNAS_INLINE void exchange(Fixed<T, R>& a, Fixed<T, R>& b, std::index_sequence<I...>) {
  const Fixed<T, R> upper = __builtin_shufflevector(a, b, (I & D ? R + I - D : I)...);
  b = __builtin_shufflevector(a, b, (I & D ? R + I : I + D)...);
  a = upper;
}
template <class T, int R, int D = R / 2>
PYNAS_INLINE void transpose(Fixed<T, R>* rows) {
  if constexpr (D > 0) {
    PYNAS_UNROLL for (int i = 0; i < R; ++i) {
      if ((i & D) == 0) exchange<T, R, D>(rows[i], rows[i + D], std::make_index_sequence<R>());
    }
    transpose<T, R, D / 2>(rows);
  }
}

constexpr int64_t kRun = 64;  // positions transposed at a time

// to[p * step + lane] = row[lane][p] for p < n, lane < R; rows are readable up to a multiple of R positions.
template <class T, int R>
void interleave(const T* const* row, int64_t n, T* to, int64_t step) {
  constexpr int64_t kAhead = 512 / sizeof(T);  // R rows are more streams than the processor prefetches itself
  for (int64_t p = 0; p < n; p += R) {
    Fixed<T, R> block[R];
    PYNAS_UNROLL for (int i = 0; i < R; ++i) {
      block[i] = load_as<R>(row[i] + p);
      __builtin_prefetch(row[i] + p + kAhead);
    }
    transpose<T, R>(block);
    const int64_t count = n - p < R ? n - p : R;
    if (count == R) {
      PYNAS_UNROLL for (int i = 0; i < R; ++i)
          __builtin_memcpy(to + (p + i) * step, &block[i], sizeof block[i]);
    } else {
      T spill[R * R];
      __builtin_memcpy(spill, block, sizeof block);
      for (int64_t i = 0; i < count; ++i) __builtin_memcpy(to + (p + i) * step, spill + i * R, R * sizeof(T));
    }
  }
}

struct Grid {
  int64_t rows, cols;
  int64_t row_stride, col_stride;  // of the source
  int64_t to_row;                  // of the plane, whose columns are R apart
};

// to[row][col][lane] = from[lane * lane_stride + row * row_stride + col * col_stride], or 0 for lane >=
// lanes.
template <class S, class T, int R>
void pack_plane(const S* from, int64_t lane_stride, int64_t lanes, Grid grid, T* to) {
  if (grid.row_stride == grid.cols * grid.col_stride && grid.to_row == grid.cols * R) {
    grid.cols *= grid.rows;
    grid.rows = 1;
  }
  if (lane_stride == 1) {  // channels last: the lanes are there already
    for (int64_t h = 0; h < grid.rows; ++h) {
      const S* source = from + h * grid.row_stride;
      T* target = to + h * grid.to_row;
      for (int64_t w = 0; w < grid.cols; ++w, source += grid.col_stride, target += R) {
        if (lanes == R) {
          const Fixed<T, R> v = load_as<R>(source);
          __builtin_memcpy(target, &v, sizeof v);
        } else {
          for (int i = 0; i < R; ++i) target[i] = i < lanes ? load_as<1>(source + i)[0] : T(0);
        }
      }
    }
    return;
  }
  const T* row[R];
  if constexpr (sizeof(S) == sizeof(T)) {
    if (grid.col_stride == 1 && lanes == R && grid.cols % R == 0) {  // neither copy nor conversion is needed
      for (int64_t h = 0; h < grid.rows; ++h) {
        for (int i = 0; i < R; ++i) row[i] = from + i * lane_stride + h * grid.row_stride;
        interleave<T, R>(row, grid.cols, to + h * grid.to_row, R);
      }
      return;
    }
  }
  T buffer[R][kRun];
  __builtin_memset(buffer, 0, sizeof buffer);
  for (int i = 0; i < R; ++i) row[i] = buffer[i];
  for (int64_t h = 0; h < grid.rows; ++h) {
    for (int64_t w = 0; w < grid.cols; w += kRun) {
      const int64_t n = grid.cols - w < kRun ? grid.cols - w : kRun;
      const S* source = from + h * grid.row_stride + w * grid.col_stride;
      for (int64_t i = 0; i < lanes; ++i) copy_row(source + i * lane_stride, grid.col_stride, n, buffer[i]);
      interleave<T, R>(row, n, to + h * grid.to_row + w * R, R);
    }
  }
}

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
