// The products of one k-step, on a 64 x 64 tile of the weight matrix over 256 threads:
//
//   sums[row, column] += sum_k grad_output[k, row] input[k, column]
//
// Each struct says what lies in shared memory ([kDepth][kPitch] elements a matrix, channels contiguous as in
// global memory) and which 16 elements of the tile a thread keeps. Pitches make the fragment loads free of
// bank conflicts: rows 16 bytes apart modulo 128 for ldmatrix, 8 words apart modulo 32 for single words.
#pragma once

#include "common/cuda_ptx.h"
#include "ops/sample_grad/cuda/sample_grad_cuda.h"

namespace pynas::cuda {

constexpr int kThreadElements = kTileElements / kTileThreads;

// Where mma.m16n8 leaves accumulator i = (fragment, register) of a warp that owns 32 x 16 of the tile:
// fragments (0..1) x (0..1) of 16 x 8.
struct WarpTile {
  __device__ static int row0() { return static_cast<int>(threadIdx.x) / 128 * 32; }
  __device__ static int column0() { return static_cast<int>(threadIdx.x) / 32 % 4 * 16; }
  __device__ static int row(int i) {
    return row0() + i / 8 * 16 + static_cast<int>(threadIdx.x) % 32 / 4 + (i & 2) * 4;
  }
  __device__ static int column(int i) {
    return column0() + i / 4 % 2 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + (i & 1);
  }
};

// bfloat16 and float16: one mma of depth 16 a fragment, operands transposed on the way by ldmatrix.
template <class T>
struct HalfMath : WarpTile {
  using Element = T;
  using Sum = float;
  static constexpr int kDepth = 32, kPitch = kTile + 8;

  __device__ static void multiply(const T (*grad_output)[kPitch], const T (*input)[kPitch],
                                  float (&sums)[kThreadElements]) {
    const int lane = threadIdx.x % 32;
    auto& c = reinterpret_cast<float (&)[4][4]>(sums);
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[2][4], b[4];
      for (int i = 0; i < 2; ++i) {
        ldmatrix_x4_transposed(
            a[i], &grad_output[k + lane / 16 * 8 + lane % 8][row0() + i * 16 + lane / 8 % 2 * 8]);
      }
      ldmatrix_x4_transposed(b, &input[k + lane / 8 % 2 * 8 + lane % 8][column0() + lane / 16 * 8]);
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) {
          const uint32_t column[2] = {b[2 * j], b[2 * j + 1]};
          if constexpr (std::is_same_v<T, __half>) {
            mma_m16n8k16_fp16(c[i * 2 + j], a[i], column);
          } else {
            mma_m16n8k16_bf16(c[i * 2 + j], a[i], column);
          }
        }
      }
    }
  }
};

// float32 by tf32 tensor cores. kExact: each operand is split into two tf32 numbers, x = x_big + x_small, and
//
//   x y = x_big y_big + x_big y_small + x_small y_big
//
// The k-step's sum is kept apart and added in float32, because tensor cores truncate their accumulators
// (Ootomo & Yokota 2022): as accurate as float32 arithmetic, at a third of tf32's rate.
template <bool kExact>
struct Tf32Math : WarpTile {
  using Element = float;
  using Sum = float;
  static constexpr int kDepth = 16, kPitch = kTile + 8;

  __device__ static void split(float value, uint32_t& big, uint32_t& small) {
    big = to_tf32(value);
    if constexpr (kExact) small = to_tf32(value - __uint_as_float(big));
  }

  __device__ static void multiply(const float (*grad_output)[kPitch], const float (*input)[kPitch],
                                  float (&sums)[kThreadElements]) {
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    float step[4][4] = {};
    auto& c = kExact ? step : reinterpret_cast<float (&)[4][4]>(sums);
#pragma unroll
    for (int k = 0; k < kDepth; k += 8) {
      uint32_t a[2][4], a_small[2][4], b[2][2], b_small[2][2];
      for (int i = 0; i < 2; ++i) {
        for (int r = 0; r < 4; ++r) {
          const float value = grad_output[k + q + r / 2 * 4][row0() + i * 16 + g + r % 2 * 8];
          split(value, a[i][r], a_small[i][r]);
        }
        for (int r = 0; r < 2; ++r) {
          split(input[k + q + r * 4][column0() + i * 8 + g], b[i][r], b_small[i][r]);
        }
      }
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) {
          if constexpr (kExact) {
            mma_m16n8k8_tf32(c[i * 2 + j], a_small[i], b[j]);
            mma_m16n8k8_tf32(c[i * 2 + j], a[i], b_small[j]);
          }
          mma_m16n8k8_tf32(c[i * 2 + j], a[i], b[j]);
        }
      }
    }
    if constexpr (kExact) {
      for (int i = 0; i < kThreadElements; ++i) sums[i] += step[i / 4][i % 4];
    }
  }
};

// float64 by plain multiply-adds, 4 x 4 elements a thread.
struct DoubleMath {
  using Element = double;
  using Sum = double;
  static constexpr int kDepth = 8, kPitch = kTile + 2;

  __device__ static int row(int i) { return static_cast<int>(threadIdx.x) / 16 * 4 + i / 4; }
  __device__ static int column(int i) { return static_cast<int>(threadIdx.x) % 16 * 4 + i % 4; }

  __device__ static void multiply(const double (*grad_output)[kPitch], const double (*input)[kPitch],
                                  double (&sums)[kThreadElements]) {
    for (int k = 0; k < kDepth; ++k) {
#pragma unroll
      for (int i = 0; i < kThreadElements; ++i) sums[i] += grad_output[k][row(i)] * input[k][column(i)];
    }
  }
};

}  // namespace pynas::cuda
