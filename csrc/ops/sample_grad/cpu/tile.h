// The register tiles in which gradients are formed. Include only from sample_grad_cpu.cpp, once per
// instruction set.
//
// A column is a vector of input channels under one kernel tap; a dense tile is up to kColumns columns times
// kOutputs output channels, all in registers, summed over positions t:
//
//   tile[n][o][lane] = sum_t x[n][t][lane] d[t][o]
//
// One position costs kColumns vector loads and kOutputs broadcasts for kColumns kOutputs multiply-adds, so
// the multiply-add units are the limit.
#pragma once

#include "common/simd.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

constexpr int kOutputs = kVectorBytes == 64 ? 8 : 4;  // 24 of 32 registers, 12 of 16
constexpr int kColumns = kVectorBytes == 16 ? 2 : 3;  // unfused, a product needs a register of its own

// The positions that a tile sums over: `samples` x `rows` x `cols`, by strides in elements.
template <class T>
struct Walk {
  const T* x[kColumns];
  const T* d;
  int64_t samples, rows, cols;
  int64_t x_sample, x_row, x_col;
  int64_t d_sample, d_row, d_col;
  bool add;  // to what `out` holds, instead of overwriting it

  // One long run of positions where the rows lie end to end.
  void flatten() {
    if (rows > 1 && x_row == cols * x_col && d_row == cols * d_col) {
      cols *= rows;
      rows = 1;
    }
  }
};

template <class T, int N>
void form_tile(const Walk<T>& walk, T* out) {
  constexpr int L = kLanes<T>;
  Vec<T> tile[N][kOutputs];
  PYNAS_UNROLL for (int n = 0; n < N; ++n) {
    PYNAS_UNROLL for (int o = 0; o < kOutputs; ++o) tile[n][o] = zero<T>();
  }
  for (int64_t b = 0; b < walk.samples; ++b) {
    for (int64_t h = 0; h < walk.rows; ++h) {
      const T* d = walk.d + b * walk.d_sample + h * walk.d_row;
      const T* x[N];
      PYNAS_UNROLL for (int n = 0; n < N; ++n) x[n] = walk.x[n] + b * walk.x_sample + h * walk.x_row;
      for (int64_t w = 0; w < walk.cols; ++w) {
        Vec<T> column[N];
        PYNAS_UNROLL for (int n = 0; n < N; ++n) {
          column[n] = load(x[n]);
          x[n] += walk.x_col;
        }
        PYNAS_UNROLL for (int o = 0; o < kOutputs; ++o) {
          const Vec<T> delta = broadcast(d[o]);
          PYNAS_UNROLL for (int n = 0; n < N; ++n) tile[n][o] += column[n] * delta;
        }
        d += walk.d_col;
      }
    }
  }
  PYNAS_UNROLL for (int n = 0; n < N; ++n) {
    PYNAS_UNROLL for (int o = 0; o < kOutputs; ++o) {
      T* to = out + (n * kOutputs + o) * L;
      store(to, walk.add ? load(to) + tile[n][o] : tile[n][o]);
    }
  }
}

// Depthwise: lanes are channels. For S taps s of one kernel row, x_tap elements apart, and positions t,
//
//   tile[s][lane] = sum_t x[x_col t + x_tap s + lane] d[d_col t + lane]
//
// Positions alternate between two sets of sums, because S alone are too few to hide the
// latency of the additions.
template <class T, int S>
void form_depthwise(const Walk<T>& walk, int64_t x_tap, T* out) {
  constexpr int kSets = 2;
  Vec<T> tile[kSets][S];
  PYNAS_UNROLL for (int i = 0; i < kSets; ++i) {
    PYNAS_UNROLL for (int s = 0; s < S; ++s) tile[i][s] = zero<T>();
  }
  for (int64_t b = 0; b < walk.samples; ++b) {
    for (int64_t h = 0; h < walk.rows; ++h) {
      const T* d = walk.d + b * walk.d_sample + h * walk.d_row;
      const T* x = walk.x[0] + b * walk.x_sample + h * walk.x_row;
      int64_t w = 0;
      for (; w + kSets <= walk.cols; w += kSets) {
        PYNAS_UNROLL for (int i = 0; i < kSets; ++i) {
          const Vec<T> delta = load(d + (w + i) * walk.d_col);
          PYNAS_UNROLL for (int s = 0; s < S; ++s) {
            tile[i][s] += load(x + (w + i) * walk.x_col + s * x_tap) * delta;
          }
        }
      }
      for (; w < walk.cols; ++w) {
        const Vec<T> delta = load(d + w * walk.d_col);
        PYNAS_UNROLL for (int s = 0; s < S; ++s) tile[0][s] += load(x + w * walk.x_col + s * x_tap) * delta;
      }
    }
  }
  PYNAS_UNROLL for (int s = 0; s < S; ++s) {
    T* to = out + s * kLanes<T>;
    const Vec<T> total = tile[0][s] + tile[1][s];
    store(to, walk.add ? load(to) + total : total);
  }
}

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
