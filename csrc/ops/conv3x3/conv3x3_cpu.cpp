#include "ops/conv3x3/conv3x3.h"

#include "common/math.h"
#include "ops/conv3x3/products.h"
#include "ops/conv3x3/tile.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

TileGrid grid_of(const Conv3x3Params& p) {
  return {p.height, p.width, ceil_div(p.height, kTile), ceil_div(p.width, kTile)};
}

// Calls body(index in the chunk, image, tile row, tile column) for tiles [begin, end).
template <class F>
PYNAS_INLINE void for_tiles(const TileGrid& grid, int64_t begin, int64_t end, F body) {
  int64_t n = begin / grid.per_image(), rest = begin % grid.per_image();
  int64_t row = rest / grid.cols, col = rest % grid.cols;
  for (int64_t t = 0; t < end - begin; ++t) {
    body(t, n, row, col);
    if (++col == grid.cols) {
      col = 0;
      if (++row == grid.rows) row = 0, ++n;
    }
  }
}

template <bool kRelu, class T>
void transform_inputs(const Conv3x3Params& p, const TileGrid& grid, int64_t begin, int64_t end, float* out,
                      int64_t stride, const T* zeros) {
  const int64_t C = p.in_channels, Cp = padded_channels(C);
  for_tiles(grid, begin, end, [&](int64_t t, int64_t n, int64_t row, int64_t col) {
    const T* image = static_cast<const T*>(p.input) + n * grid.height * grid.width * C;
    const Pixels<T, kPatch> pixels(image, grid, C, row * kTile - 1, col * kTile - 1, zeros);
    input_tile<kRelu>(pixels, C, out + t * Cp, stride);
  });
}

template <class T>
void transform_inputs_as(const Conv3x3Params& p, const TileGrid& grid, int64_t begin, int64_t end, float* out,
                         int64_t stride, const float* zeros) {
  const T* z = reinterpret_cast<const T*>(zeros);
  p.relu ? transform_inputs<true, T>(p, grid, begin, end, out, stride, z)
         : transform_inputs<false, T>(p, grid, begin, end, out, stride, z);
}

template <class T>
void transform_grads(const Conv3x3Params& p, const TileGrid& grid, int64_t begin, int64_t end, float* out,
                     int64_t stride, const T* zeros) {
  const int64_t O = p.out_channels, Op = padded_channels(O);
  for_tiles(grid, begin, end, [&](int64_t t, int64_t n, int64_t row, int64_t col) {
    const T* image = static_cast<const T*>(p.grad_output) + n * grid.height * grid.width * O;
    const Pixels<T, kTile> pixels(image, grid, O, row * kTile, col * kTile, zeros);
    grad_tile(pixels, O, out + t * Op, stride);
  });
}

template <class T>
void transform_outputs(const Conv3x3Params& p, const TileGrid& grid, int64_t begin, int64_t end,
                       const float* in, int64_t stride) {
  const int64_t O = p.out_channels, Op = padded_channels(O);
  const T *mask = static_cast<const T*>(p.mask), *addend = static_cast<const T*>(p.addend);
  for_tiles(grid, begin, end, [&](int64_t t, int64_t n, int64_t row, int64_t col) {
    const int64_t at = ((n * grid.height + row * kTile) * grid.width + col * kTile) * O;
    const int rows = static_cast<int>(least(kTile, grid.height - row * kTile));
    const int cols = static_cast<int>(least(kTile, grid.width - col * kTile));
    output_tile(in + t * Op, stride, O, static_cast<T*>(p.output) + at, mask ? mask + at : nullptr,
                addend ? addend + at : nullptr, grid.width * O, rows, cols);
  });
}

// out[p] = (G w_oc G^T)_p as a matrix [C, padded O] in panels (see products.h), zeros where there is no
// output channel; for the vectors [first, last) of output channels.
template <class T>
void transform_weights(const Conv3x3Params& p, float* out, int64_t first, int64_t last) {
  const int64_t C = p.in_channels, O = p.out_channels, Op = padded_channels(O);
  const T* weight = static_cast<const T*>(p.weight);
  for (int64_t o = first * kL; o < last * kL; o += kL) {
    const int lanes = static_cast<int>(o >= O ? 0 : least(kL, O - o));
    for (int64_t c = 0; c < C; ++c) {
      V g[3][3], half[6][3];
      PYNAS_UNROLL for (int i = 0; i < 3; ++i) {
        PYNAS_UNROLL for (int j = 0; j < 3; ++j) {
          const T* at = weight + o * p.weight_strides[0] + c * p.weight_strides[1] + i * p.weight_strides[2] +
                        j * p.weight_strides[3];
          alignas(64) float values[kL] = {};
          for (int l = 0; l < lanes; ++l) values[l] = to_float(at[l * p.weight_strides[0]]);
          g[i][j] = load<float>(values);
        }
      }
      PYNAS_UNROLL for (int j = 0; j < 3; ++j) {
        const V column[3] = {g[0][j], g[1][j], g[2][j]};
        V long_column[6];
        transform_weight(column, long_column);
        PYNAS_UNROLL for (int i = 0; i < 6; ++i) half[i][j] = long_column[i];
      }
      PYNAS_UNROLL for (int i = 0; i < 6; ++i) {
        V row[6];
        transform_weight(half[i], row);
        PYNAS_UNROLL for (int j = 0; j < 6; ++j)
            store(panel(out + (i * 6 + j) * C * Op, o, C, Op) + c * panel_width(o, Op), row[j]);
      }
    }
  }
}

template <class T>
void convolve(const Conv3x3Params& p, const Parallel& parallel) {
  const TileGrid grid = grid_of(p);
  const Chunk chunk = chunk_of(p, false);
  const int64_t Op = padded_channels(p.out_channels), Cp = padded_channels(p.in_channels), C = p.in_channels;
  float* zeros = p.workspace;
  for (int64_t i = 0; i < chunk.zeros; ++i) zeros[i] = 0;
  float* weights = zeros + chunk.zeros;
  float* scratch = weights + chunk.products;
  parallel(Op / kL, 1, [&](int64_t first, int64_t last) { transform_weights<T>(p, weights, first, last); });
  const int64_t tiles = p.batch * grid.per_image();
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; ++thread) {
      float* in = scratch + thread * (chunk.input + chunk.output);
      float* out = in + chunk.input;
      const int64_t in_stride = chunk.input / kPoints, out_stride = chunk.output / kPoints;
      const int64_t end = tiles * (thread + 1) / parallel.threads;
      for (int64_t t = tiles * thread / parallel.threads; t < end; t += chunk.tiles) {
        const int64_t to = least(t + chunk.tiles, end);
        transform_inputs_as<T>(p, grid, t, to, in, in_stride, zeros);
        for (int point = 0; point < kPoints; ++point)
          multiply(in + point * in_stride, Cp, weights + point * C * Op, out + point * out_stride, Op, to - t,
                   C);
        transform_outputs<T>(p, grid, t, to, out, out_stride);
      }
    }
  });
}

// sums[p][c][o] = sum over tiles [begin, end) of (A D_o A^T)_p (B^T d_c B)_p.
template <class T>
void sum_tiles(const Conv3x3Params& p, const TileGrid& grid, const Chunk& chunk, int64_t begin, int64_t end,
               const float* zeros, float* sums) {
  const int64_t C = p.in_channels, Cp = padded_channels(C), Op = padded_channels(p.out_channels);
  float *in = sums + chunk.products, *grads = in + chunk.input;
  const int64_t in_stride = chunk.input / kPoints, grad_stride = chunk.output / kPoints;
  if (begin == end)
    for (int64_t i = 0; i < chunk.products; ++i) sums[i] = 0;
  for (int64_t t = begin; t < end; t += chunk.tiles) {
    const int64_t to = least(t + chunk.tiles, end);
    transform_inputs_as<T>(p, grid, t, to, in, in_stride, zeros);
    transform_grads<T>(p, grid, t, to, grads, grad_stride, reinterpret_cast<const T*>(zeros));
    for (int point = 0; point < kPoints; ++point)
      add_products(in + point * in_stride, Cp, C, grads + point * grad_stride, Op, to - t,
                   sums + point * C * Op, t == begin);
  }
}

// dW = G^T m G for input channels [first, last), m the sum of `count` sums that lie `stride` apart.
void finish_weights(const Conv3x3Params& p, const float* sums, int64_t stride, int count, int64_t first,
                    int64_t last, float* out) {
  const int64_t C = p.in_channels, O = p.out_channels, Op = padded_channels(O);
  for (int64_t c = first; c < last; ++c) {
    for_channels(O, [&](int64_t o, auto lanes) {
      V half[3][6], g[3][3];
      PYNAS_UNROLL for (int j = 0; j < 6; ++j) {
        V column[6], short_column[3];
        PYNAS_UNROLL for (int i = 0; i < 6; ++i) {
          const float* at = sums + ((i * 6 + j) * C + c) * Op + o;
          column[i] = load<float>(at);
          for (int t = 1; t < count; ++t) column[i] += load<float>(at + t * stride);
        }
        transform_grad_weight(column, short_column);
        PYNAS_UNROLL for (int i = 0; i < 3; ++i) half[i][j] = short_column[i];
      }
      PYNAS_UNROLL for (int i = 0; i < 3; ++i) transform_grad_weight(half[i], g[i]);
      if (p.packed) {
        PYNAS_UNROLL for (int k = 0; k < 9; ++k)
            store_lanes(out + (k * C + c) * O + o, g[k / 3][k % 3], lanes);
        return;
      }
      for (int l = 0; l < lanes; ++l) {
        PYNAS_UNROLL for (int k = 0; k < 9; ++k) out[((o + l) * C + c) * 9 + k] = g[k / 3][k % 3][l];
      }
    });
  }
}

template <class T>
void weight_gradient(const Conv3x3Params& p, const Parallel& parallel) {
  const TileGrid grid = grid_of(p);
  const Chunk chunk = chunk_of(p, true);
  float* zeros = p.workspace;
  for (int64_t i = 0; i < chunk.zeros; ++i) zeros[i] = 0;
  const int64_t per_thread = chunk.products + chunk.input + chunk.output;
  float* scratch = zeros + chunk.zeros;
  const int64_t tiles = p.batch / p.groups * grid.per_image();  // of a group
  const int64_t size = p.out_channels * p.in_channels * 9, threads = parallel.threads;
  const int64_t whole = p.groups / threads * threads;  // groups that a thread does alone
  parallel(threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; ++thread) {
      float* sums = scratch + thread * per_thread;
      for (int64_t group = whole * thread / threads; group < whole * (thread + 1) / threads; ++group) {
        sum_tiles<T>(p, grid, chunk, group * tiles, (group + 1) * tiles, zeros, sums);
        finish_weights(p, sums, 0, 1, 0, p.in_channels, p.grad_weight + group * size);
      }
    }
  });
  for (int64_t group = whole; group < p.groups; ++group) {
    parallel(threads, 1, [&](int64_t first, int64_t last) {
      for (int64_t thread = first; thread < last; ++thread) {
        const int64_t begin = group * tiles + tiles * thread / threads;
        const int64_t end = group * tiles + tiles * (thread + 1) / threads;
        sum_tiles<T>(p, grid, chunk, begin, end, zeros, scratch + thread * per_thread);
      }
    });
    parallel(p.in_channels, 1, [&](int64_t first, int64_t last) {
      finish_weights(p, scratch, per_thread, parallel.threads, first, last, p.grad_weight + group * size);
    });
  }
}

}  // namespace

void conv3x3(const Conv3x3Params& p, const Parallel& parallel) {
  p.dtype == DType::kBFloat16 ? convolve<BFloat16>(p, parallel) : convolve<float>(p, parallel);
}

void conv3x3_grad_weight(const Conv3x3Params& p, const Parallel& parallel) {
  p.dtype == DType::kBFloat16 ? weight_gradient<BFloat16>(p, parallel) : weight_gradient<float>(p, parallel);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
