// The moments of one number over sample groups, folded value by value (Welford) or merged part by part
// (Chan).
#pragma once

#include "common/cuda_compat.h"
#include "common/moments.h"

namespace pynas::cuda {

template <class T>
struct MomentSums {
  static constexpr int kFields = 1 + kNumMoments;
  T count = 0, sum = 0, abs = 0, square = 0, sign = 0, centered = 0;

  __device__ void add(T value) {
    // centered += (value - mean)^2 n / (n + 1), with the mean of the n values before this one
    const T mean = count > 0 ? sum / count : T(0);
    const T difference = value - mean;
    centered += difference * difference * (count / (count + 1));
    count += 1;
    sum += value;
    abs += value < 0 ? -value : value;
    square += value * value;
    sign += static_cast<T>((value > 0) - (value < 0));
  }

  __device__ void merge(const MomentSums& other) {
    if (other.count == 0) return;
    if (count > 0) {
      const T difference = other.sum / other.count - sum / count;
      centered += other.centered + difference * difference * (count * other.count / (count + other.count));
    } else {
      centered = other.centered;
    }
    count += other.count;
    sum += other.sum;
    abs += other.abs;
    square += other.square;
    sign += other.sign;
  }

  // `n` values that are zero.
  __device__ void add_zeros(T n) {
    MomentSums zeros;
    zeros.count = n;
    merge(zeros);
  }

  // All fields to or from shared memory, which cannot hold types with initialisers.
  __device__ void save(T* cells, int stride) const {
    const T fields[kFields] = {count, sum, abs, square, sign, centered};
    for (int i = 0; i < kFields; ++i) cells[i * stride] = fields[i];
  }
  __device__ static MomentSums load(const T* cells, int stride) {
    return {cells[0],          cells[stride],     cells[2 * stride],
            cells[3 * stride], cells[4 * stride], cells[5 * stride]};
  }

  // Writes the moments of `mask` to out[0], out[stride], ... in the order of the bits.
  __device__ void store(T* out, int64_t stride, uint32_t mask) const {
    const T values[kNumMoments] = {sum, abs, square, sign, centered};
    for (int bit = 0; bit < kNumMoments; ++bit) {
      if ((mask >> bit & 1u) == 0) continue;
      *out = values[bit];
      out += stride;
    }
  }
};

}  // namespace pynas::cuda
