// Winograd's transforms for F(4x4, 3x3) and the tiles they work on. Include only from files compiled per ISA.
//
// The interpolation points are 0, +-a, +-b and infinity with a^2 = 1/2, b^2 = 2, which lose a third of the
// accuracy that the customary 1 and 2 lose. In one dimension, with p and q running over the points, in the
// order 0, a, -a, b, -b, infinity:
//
//   (B^T d)_0     = a^2 b^2 d0 - (a^2 + b^2) d2 + d4
//   (B^T d)_{+-a} = (d4 - b^2 d2) +- a (d3 - b^2 d1)
//   (B^T d)_{+-b} = (d4 - a^2 d2) +- b (d3 - a^2 d1)
//   (B^T d)_inf   = a^2 b^2 d1 - (a^2 + b^2) d3 + d5
//   (A^T m)_k     = sum_p p^k m_p, k = 0..3, where infinity contributes m_inf to k = 3 alone
//   (G g)_p       = (g0 + p g1 + p^2 g2) / prod_{q != p} (p - q), over finite q
//   (G g)_inf     = g2
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/simd_convert.h"

#define PYNAS_LAMBDA_INLINE __attribute__((always_inline))

namespace pynas::cpu::PYNAS_ISA_NS {

constexpr int kTile = 4;                  // output pixels of a tile in each direction
constexpr int kPatch = kTile + 2;         // input pixels it sees
constexpr int kPoints = kPatch * kPatch;  // products per tile
constexpr float kA = 0.70710678118654752f, kB = 1.41421356237309505f;
constexpr float kA2 = 0.5f, kB2 = 2.0f;

using V = Vec<float>;
constexpr int kL = kLanes<float>;

// out = B^T in
PYNAS_INLINE void transform_input(const V (&in)[6], V (&out)[6]) {
  const V even_a = in[4] - kB2 * in[2], odd_a = in[3] - kB2 * in[1];
  const V even_b = in[4] - kA2 * in[2], odd_b = in[3] - kA2 * in[1];
  out[0] = (in[0] + in[4]) - (kA2 + kB2) * in[2];
  out[1] = even_a + kA * odd_a;
  out[2] = even_a - kA * odd_a;
  out[3] = even_b + kB * odd_b;
  out[4] = even_b - kB * odd_b;
  out[5] = (in[1] + in[5]) - (kA2 + kB2) * in[3];
}

// out = A^T in
PYNAS_INLINE void transform_output(const V (&in)[6], V (&out)[4]) {
  const V even_a = in[1] + in[2], odd_a = in[1] - in[2];
  const V even_b = in[3] + in[4], odd_b = in[3] - in[4];
  out[0] = (in[0] + even_a) + even_b;
  out[1] = kA * odd_a + kB * odd_b;
  out[2] = kA2 * even_a + kB2 * even_b;
  out[3] = in[5] + (kA2 * kA) * odd_a + (kB2 * kB) * odd_b;
}

// out = A in
PYNAS_INLINE void transform_grad(const V (&in)[4], V (&out)[6]) {
  const V even_a = in[0] + kA2 * in[2], odd_a = in[1] + kA2 * in[3];
  const V even_b = in[0] + kB2 * in[2], odd_b = in[1] + kB2 * in[3];
  out[0] = in[0];
  out[1] = even_a + kA * odd_a;
  out[2] = even_a - kA * odd_a;
  out[3] = even_b + kB * odd_b;
  out[4] = even_b - kB * odd_b;
  out[5] = in[3];
}

// prod_{q != p} (p - q) for p = +-a and +-b; 1 for p = 0 and infinity, since a^2 b^2 = 1
constexpr float kNormA = 2 * kA2 * (kA2 - kB2), kNormB = 2 * kB2 * (kB2 - kA2);

// out = G in
PYNAS_INLINE void transform_weight(const V (&in)[3], V (&out)[6]) {
  const V even_a = (in[0] + kA2 * in[2]) * (1 / kNormA), odd_a = (kA / kNormA) * in[1];
  const V even_b = (in[0] + kB2 * in[2]) * (1 / kNormB), odd_b = (kB / kNormB) * in[1];
  out[0] = in[0];
  out[1] = even_a + odd_a;
  out[2] = even_a - odd_a;
  out[3] = even_b + odd_b;
  out[4] = even_b - odd_b;
  out[5] = in[2];
}

// out = G^T in
PYNAS_INLINE void transform_grad_weight(const V (&in)[6], V (&out)[3]) {
  const V even_a = (in[1] + in[2]) * (1 / kNormA), odd_a = (in[1] - in[2]) * (kA / kNormA);
  const V even_b = (in[3] + in[4]) * (1 / kNormB), odd_b = (in[3] - in[4]) * (kB / kNormB);
  out[0] = in[0] + even_a + even_b;
  out[1] = odd_a + odd_b;
  out[2] = kA2 * even_a + kB2 * even_b + in[5];
}

// Where the tiles of a batch of images lie.
struct TileGrid {
  int64_t height, width, rows, cols;
  PYNAS_INLINE int64_t per_image() const { return rows * cols; }
};

// The pixels of one tile: pixel (i, j) at pointer, or at `zeros` where it lies outside the image.
template <class T, int kSize>
struct Pixels {
  const T* at[kSize][kSize];

  // The tile whose first pixel is (top, left) of the image; both may be -1.
  PYNAS_INLINE Pixels(const T* image, const TileGrid& grid, int64_t channels, int64_t top, int64_t left,
                      const T* zeros) {
    PYNAS_UNROLL for (int i = 0; i < kSize; ++i) {
      const bool inside = static_cast<uint64_t>(top + i) < static_cast<uint64_t>(grid.height);
      const T* row = image + (top + i) * grid.width * channels;
      PYNAS_UNROLL for (int j = 0; j < kSize; ++j) {
        const bool both = inside && static_cast<uint64_t>(left + j) < static_cast<uint64_t>(grid.width);
        at[i][j] = both ? row + (left + j) * channels : zeros;
      }
    }
  }
};

template <bool kRelu, class T>
PYNAS_INLINE V load_pixel(const T* p, int lanes) {
  const V v = load_lanes(p, lanes);
  return kRelu ? (v < V{} ? V{} : v) : v;  // NaN stays
}

// Calls body(channel, lanes) for vectors that cover all channels. Where the channels do not divide evenly,
// the last vector overlaps the one before it and computes some results again; lanes is a constant unless the
// channels do not fill one vector.
template <class F>
PYNAS_INLINE void for_channels(int64_t channels, F body) {
  if (channels < kL) return body(int64_t{0}, static_cast<int>(channels));
  int64_t c = 0;
  for (; c + kL <= channels; c += kL) body(c, std::integral_constant<int, kL>{});
  if (c < channels) body(channels - kL, std::integral_constant<int, kL>{});
}

// Rows kFirst and kSecond of B^T d B. `transform` makes these two rows of B^T d from a column of pixels.
template <int kFirst, int kSecond, class Load, class Transform>
PYNAS_INLINE void two_rows(Load load_at, Transform transform, float* out, int64_t stride) {
  V first[6], second[6], row[6];
  PYNAS_UNROLL for (int j = 0; j < 6; ++j)
      transform([&](int i) PYNAS_LAMBDA_INLINE { return load_at(i, j); }, first[j], second[j]);
  transform_input(first, row);
  PYNAS_UNROLL for (int j = 0; j < 6; ++j) store(out + (kFirst * 6 + j) * stride, row[j]);
  transform_input(second, row);
  PYNAS_UNROLL for (int j = 0; j < 6; ++j) store(out + (kSecond * 6 + j) * stride, row[j]);
}

// out[p stride + c] = (B^T d_c B)_p of one tile, for the 36 entries p. Two rows at a time: all six would not
// fit the registers, and loading a pixel again is cheaper than storing a row.
template <bool kRelu, class T>
PYNAS_INLINE void input_tile(const Pixels<T, kPatch>& pixels, int64_t channels, float* out, int64_t stride) {
  for_channels(channels, [&](int64_t c, auto lanes) {
    const auto pixel = [&](int i, int j)
                           PYNAS_LAMBDA_INLINE { return load_pixel<kRelu>(pixels.at[i][j] + c, lanes); };
    two_rows<0, 5>(
        pixel,
        [](auto d, V& low, V& high) PYNAS_LAMBDA_INLINE {
          low = (d(0) + d(4)) - (kA2 + kB2) * d(2);
          high = (d(1) + d(5)) - (kA2 + kB2) * d(3);
        },
        out + c, stride);
    two_rows<1, 2>(
        pixel,
        [](auto d, V& plus, V& minus) PYNAS_LAMBDA_INLINE {
          const V even = d(4) - kB2 * d(2), odd = d(3) - kB2 * d(1);
          plus = even + kA * odd;
          minus = even - kA * odd;
        },
        out + c, stride);
    two_rows<3, 4>(
        pixel,
        [](auto d, V& plus, V& minus) PYNAS_LAMBDA_INLINE {
          const V even = d(4) - kA2 * d(2), odd = d(3) - kA2 * d(1);
          plus = even + kB * odd;
          minus = even - kB * odd;
        },
        out + c, stride);
  });
}

// out[p stride + c] = (A D_c A^T)_p of one tile of the gradient.
template <class T>
PYNAS_INLINE void grad_tile(const Pixels<T, kTile>& pixels, int64_t channels, float* out, int64_t stride) {
  for_channels(channels, [&](int64_t c, auto lanes) {
    V half[6][4];
    PYNAS_UNROLL for (int j = 0; j < 4; ++j) {
      V in[4], column[6];
      PYNAS_UNROLL for (int i = 0; i < 4; ++i) in[i] = load_lanes(pixels.at[i][j] + c, lanes);
      transform_grad(in, column);
      PYNAS_UNROLL for (int i = 0; i < 6; ++i) half[i][j] = column[i];
    }
    PYNAS_UNROLL for (int i = 0; i < 6; ++i) {
      V row[6];
      transform_grad(half[i], row);
      PYNAS_UNROLL for (int j = 0; j < 6; ++j) store(out + (i * 6 + j) * stride + c, row[j]);
    }
  });
}

// y = A^T m A of one tile, set to 0 where mask <= 0, plus addend, for the rows x cols
// pixels inside the image.
template <class T>
PYNAS_INLINE void output_tile(const float* in, int64_t stride, int64_t channels, T* out, const T* mask,
                              const T* addend, int64_t row_stride, int rows, int cols) {
  for_channels(channels, [&](int64_t c, auto lanes) {
    V half[4][6];
    PYNAS_UNROLL for (int j = 0; j < 6; ++j) {
      V column[6], short_column[4];
      PYNAS_UNROLL for (int i = 0; i < 6; ++i) column[i] = load<float>(in + (i * 6 + j) * stride + c);
      transform_output(column, short_column);
      PYNAS_UNROLL for (int i = 0; i < 4; ++i) half[i][j] = short_column[i];
    }
    PYNAS_UNROLL for (int i = 0; i < 4; ++i) {
      V row[4];
      transform_output(half[i], row);
      if (i >= rows) continue;
      const int64_t at = i * row_stride + c;
      PYNAS_UNROLL for (int j = 0; j < 4; ++j) {
        if (j >= cols) continue;
        if (mask != nullptr) row[j] = load_lanes(mask + at + j * channels, lanes) <= V{} ? V{} : row[j];
        if (addend != nullptr) row[j] += load_lanes(addend + at + j * channels, lanes);
        store_lanes(out + at + j * channels, row[j], lanes);
      }
    }
  });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
