// The matrix products between Winograd's transforms, for operands of a few kilobytes that lie in L1 and L2.
// Include only from files compiled per ISA.
#pragma once

#include <cstdint>

#include "ops/conv3x3/plan.h"
#include "ops/conv3x3/tile.h"

namespace pynas::cpu::PYNAS_ISA_NS {

#if defined(__AVX512F__)
constexpr int kRows1 = 16, kRows2 = 12;  // rows of the result held in registers: one vector wide, and two
#else
constexpr int kRows1 = 8, kRows2 = 6;
#endif

// Columns are taken two vectors at a time, the last one alone where their number is odd. A panel holds all k
// of its columns one after the other.
PYNAS_INLINE int64_t panel_width(int64_t column, int64_t columns) {
  return column / (2 * kL) * (2 * kL) + 2 * kL <= columns ? 2 * kL : kL;
}
PYNAS_INLINE float* panel(float* base, int64_t column, int64_t depth, int64_t columns) {
  const int64_t first = column / (2 * kL) * (2 * kL);
  const int64_t start = panel_width(column, columns) == kL ? column : first;
  return base + start * depth + (column - start);
}

// out[i, :] = sum_k a[i, k] b[k, :] for kM rows i and kN vectors of columns.
template <int kM, int kN>
PYNAS_INLINE void multiply_block(const float* a, int64_t a_stride, const float* b, int64_t depth, float* out,
                                 int64_t out_stride) {
  V sum[kM][kN] = {};
  const float* rows[(kM + 3) / 4];  // a pointer for four rows: one for each would not fit the registers
  PYNAS_UNROLL for (int i = 0; i < kM; i += 4) rows[i / 4] = a + i * a_stride;
  for (int64_t k = 0; k < depth; ++k) {
    V row[kN];
    PYNAS_UNROLL for (int j = 0; j < kN; ++j) row[j] = load<float>(b + (k * kN + j) * kL);
    PYNAS_UNROLL for (int i = 0; i < kM; ++i) {
      const V value = broadcast<float>(rows[i / 4][i % 4 * a_stride]);
      PYNAS_UNROLL for (int j = 0; j < kN; ++j) sum[i][j] += value * row[j];
    }
    PYNAS_UNROLL for (int i = 0; i < kM; i += 4)++ rows[i / 4];
  }
  PYNAS_UNROLL for (int i = 0; i < kM; ++i) {
    PYNAS_UNROLL for (int j = 0; j < kN; ++j) store(out + i * out_stride + j * kL, sum[i][j]);
  }
}

template <int kM, int kN>
PYNAS_INLINE void multiply_columns(const float* a, int64_t a_stride, const float* b, int64_t depth,
                                   float* out, int64_t out_stride, int64_t rows) {
  int64_t i = 0;
  for (; i + kM <= rows; i += kM)
    multiply_block<kM, kN>(a + i * a_stride, a_stride, b, depth, out + i * out_stride, out_stride);
  for (; i + 4 <= rows; i += 4)
    multiply_block<4, kN>(a + i * a_stride, a_stride, b, depth, out + i * out_stride, out_stride);
  for (; i < rows; ++i)
    multiply_block<1, kN>(a + i * a_stride, a_stride, b, depth, out + i * out_stride, out_stride);
}

// out[rows, columns] = a[rows, depth] b[depth, columns], with b in panels.
inline void multiply(const float* a, int64_t a_stride, const float* b, float* out, int64_t columns,
                     int64_t rows, int64_t depth) {
  int64_t j = 0;
  for (; j + 2 * kL <= columns; j += 2 * kL)
    multiply_columns<kRows2, 2>(a, a_stride, b + j * depth, depth, out + j, columns, rows);
  if (j < columns) multiply_columns<kRows1, 1>(a, a_stride, b + j * depth, depth, out + j, columns, rows);
}

// sums[i, :] (+)= sum_t a[t, i] b[t, :] for kM channels i and kN vectors of columns. The products of one call
// are added up before they go to `sums`: a sum of sums rounds less than one long sum.
template <int kM, int kN>
PYNAS_INLINE void add_block(const float* a, int64_t a_stride, const float* b, int64_t columns, int64_t count,
                            float* sums, bool first) {
  V sum[kM][kN] = {};
  for (int64_t t = 0; t < count; ++t) {
    V row[kN];
    PYNAS_UNROLL for (int j = 0; j < kN; ++j) row[j] = load<float>(b + t * columns + j * kL);
    PYNAS_UNROLL for (int i = 0; i < kM; ++i) {
      const V value = broadcast<float>(a[t * a_stride + i]);
      PYNAS_UNROLL for (int j = 0; j < kN; ++j) sum[i][j] += value * row[j];
    }
  }
  PYNAS_UNROLL for (int i = 0; i < kM; ++i) {
    PYNAS_UNROLL for (int j = 0; j < kN; ++j) {
      float* at = sums + i * columns + j * kL;
      store(at, first ? sum[i][j] : load<float>(at) + sum[i][j]);
    }
  }
}

template <int kM, int kN>
PYNAS_INLINE void add_columns(const float* a, int64_t a_stride, int64_t rows, const float* b, int64_t columns,
                              int64_t count, float* sums, bool first) {
  int64_t i = 0;
  for (; i + kM <= rows; i += kM)
    add_block<kM, kN>(a + i, a_stride, b, columns, count, sums + i * columns, first);
  for (; i + 4 <= rows; i += 4)
    add_block<4, kN>(a + i, a_stride, b, columns, count, sums + i * columns, first);
  for (; i < rows; ++i) add_block<1, kN>(a + i, a_stride, b, columns, count, sums + i * columns, first);
}

// sums[rows, columns] (+)= a[count, rows]^T b[count, columns]; `first` overwrites.
inline void add_products(const float* a, int64_t a_stride, int64_t rows, const float* b, int64_t columns,
                         int64_t count, float* sums, bool first) {
  int64_t j = 0;
  for (; j + 2 * kL <= columns; j += 2 * kL)
    add_columns<kRows2, 2>(a, a_stride, rows, b + j, columns, count, sums + j, first);
  if (j < columns) add_columns<kRows1, 1>(a, a_stride, rows, b + j, columns, count, sums + j, first);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
