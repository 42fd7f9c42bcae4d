// Depthwise convolutions of one rectified input, forward and back to it: see depthwise.h for the formulas.
#include "ops/depthwise/depthwise_cuda.h"

namespace pynas::cuda {
namespace {

// weights [taps][slice] of one filter into shared memory.
template <class T>
__device__ void load_weights(const Filters& f, int k, int64_t first, int64_t channels, int slice,
                             Accumulate<T>* weights) {
  const int taps = f.kernel[k] * f.kernel[k], lane = threadIdx.x % slice;
  const T* from = static_cast<const T*>(f.weight[k]) + (first + lane) * taps;
  for (int tap = threadIdx.x / slice; tap < taps; tap += kStageThreads / slice)
    weights[tap * slice + lane] = first + lane < channels ? to_accumulate(from[tap]) : Accumulate<T>(0);
}

// Block: a tile of the output, rows x 8 pixels, of a slice of channels, for all filters.
// Thread: 8 neighbouring outputs of one row and channel; for each row of a filter it holds the pixels that
//   they need in registers, 7 s + (k - 1) d + 1.
// Roofline: (s^2 + filters) outputs x channels x sizeof(T) bytes / 3.35 TB/s, or 2 taps operations an output
//   / 67 TFLOP/s.
// Design: the rectified tile is in shared memory once for all filters. For the four filters of a DARTS edge
//   at stride 1, an output of all filters costs 34 reads of shared memory (pixels and weights), where one
//   pixel for each tap would be 68; these reads are the limit.
template <class T, int kStride>
__global__ void __launch_bounds__(kStageThreads)
    forward_kernel(StageTiles tiles, Halo halo, int padding, Filters f, Source<T> source) {
  using A = Accumulate<T>;
  DYNAMIC_SHARED(A, tile);
  A* weights = tile + halo.rows * halo.pitch * tiles.slice;
  const int slice = tiles.slice, lane = threadIdx.x % slice, r = threadIdx.x / slice;
  const int64_t first = int64_t{blockIdx.y} * slice, channel = first + lane;
  const StageTiles::Corner at = tiles.corner(blockIdx.x);
  fill_rectified<T, kStride>(halo, source, at, channel, slice, padding, tile);
  for (int k = 0; k < f.count; ++k)
    load_weights<T>(f, k, first, source.channels, slice, weights + f.first_tap[k] * slice);
  __syncthreads();
  const int64_t y = at.y + r;
  if (y >= tiles.height || channel >= tiles.channels) return;
  for (int k = 0; k < f.count; ++k) {
    A sums[kColumns] = {};
    if (is_open(source.gates, f.gate[k])) {
      visit_filter(f, k, [&](auto kernel, auto dilation) {
        constexpr int kK = decltype(kernel)::value, kD = decltype(dilation)::value;
        constexpr int kSpan = (kColumns - 1) * kStride + (kK - 1) * kD + 1;
        const int margin = padding - kD * (kK - 1) / 2;
        for (int i = 0; i < kK; ++i) {
          const A* line = tile + ((r * kStride + i * kD + margin) * halo.pitch + margin) * slice + lane;
          const A* row_weights = weights + (f.first_tap[k] + i * kK) * slice + lane;
          A pixels[kSpan];
#pragma unroll
          for (int q = 0; q < kSpan; ++q) pixels[q] = line[q * slice];
#pragma unroll
          for (int j = 0; j < kK; ++j) {
            const A weight = row_weights[j * slice];
#pragma unroll
            for (int u = 0; u < kColumns; ++u) sums[u] += weight * pixels[u * kStride + j * kD];
          }
        }
      });
    }
    T* out =
        static_cast<T*>(f.image[k]) + ((at.image * tiles.height + y) * tiles.width + at.x) * tiles.channels;
#pragma unroll
    for (int u = 0; u < kColumns; ++u)
      if (at.x + u < tiles.width) out[u * tiles.channels + channel] = round_to<T>(sums[u]);
  }
}

// Block: a tile of the input, rows x 8 pixels, of a slice of channels, for all filters.
// Thread: 8 neighbouring inputs of one row and channel, summed over the filters in registers.
// Roofline: (2 + filters / s^2, and 1 more to accumulate) inputs x channels x sizeof(T) bytes / 3.35 TB/s.
// Design: with stride 2 the parities of columns are constants of the unrolled loops; those of rows are a
//   branch, the same for all lanes of a row.
template <class T, int kStride>
__global__ void __launch_bounds__(kStageThreads)
    backward_input_kernel(StageTiles tiles, Halos halos, Filters f, Source<T> source, int64_t out_height,
                          int64_t out_width, bool accumulate, T* __restrict__ grad_input) {
  using A = Accumulate<T>;
  DYNAMIC_SHARED(A, shared);
  const int slice = tiles.slice, lane = threadIdx.x % slice, r = threadIdx.x / slice;
  const int64_t first = int64_t{blockIdx.y} * slice, channel = first + lane;
  const StageTiles::Corner at = tiles.corner(blockIdx.x);
  A sums[kColumns] = {};
  for (int k = 0; k < f.count; ++k) {
    if (!is_open(source.gates, f.gate[k])) continue;
    // Outputs that the tile's inputs reach: `margin` more on each side than its own.
    const int margin = ceil_div(f.padding(k), kStride);
    const Halo& halo = halos.of[k];
    const T* grad = static_cast<const T*>(f.image[k]);
    __syncthreads();  // the filter before this one has been read
    load_weights<T>(f, k, first, source.channels, slice, shared);
    A* tile = shared + kMaxTaps * slice;
    const int64_t y0 = at.y / kStride - margin, x0 = at.x / kStride - margin;
    halo.fill(tile, slice, [&](int row, int column) {
      const int64_t y = y0 + row, x = x0 + column;
      if (y < 0 || y >= out_height || x < 0 || x >= out_width || channel >= tiles.channels) return A(0);
      return A(to_accumulate(grad[((at.image * out_height + y) * out_width + x) * tiles.channels + channel]));
    });
    __syncthreads();
    visit_filter(f, k, [&](auto kernel, auto dilation) {
      constexpr int kK = decltype(kernel)::value, kD = decltype(dilation)::value;
      constexpr int kPadding = kD * (kK - 1) / 2, kMargin = ceil_div(kPadding, kStride);
      constexpr int kSpan = kColumns / kStride + 2 * kMargin;
      for (int i = 0; i < kK; ++i) {
        const int row = r + kPadding - i * kD + kMargin * kStride;  // kStride times the row of g in the tile
        if (row % kStride != 0) continue;
        const A* line = tile + row / kStride * halo.pitch * slice + lane;
        A grads[kSpan];
#pragma unroll
        for (int q = 0; q < kSpan; ++q) grads[q] = line[q * slice];
#pragma unroll
        for (int j = 0; j < kK; ++j) {
          const A weight = shared[(i * kK + j) * slice + lane];
#pragma unroll
          for (int u = 0; u < kColumns; ++u) {
            const int column = u + kPadding - j * kD + kMargin * kStride;
            if (column % kStride == 0) sums[u] += weight * grads[column / kStride];
          }
        }
      }
    });
  }
  const int64_t y = at.y + r;
  if (y >= tiles.height || channel >= tiles.channels) return;
  const int64_t pixel = (at.image * tiles.height + y) * tiles.width + at.x;
#pragma unroll
  for (int u = 0; u < kColumns; ++u) {
    if (at.x + u >= tiles.width) break;
    T& cell = grad_input[(pixel + u) * tiles.channels + channel];
    A value = source.affine(pixel + u, channel) <= A(0) ? A(0) : sums[u];
    if (accumulate) value += to_accumulate(cell);
    cell = round_to<T>(value);
  }
}

int largest_padding(const Filters& f) {
  int padding = 0;
  for (int k = 0; k < f.count; ++k) padding = max(padding, f.padding(k));
  return padding;
}

}  // namespace

void depthwise_forward(const DepthwiseParams& p, void* stream) {
  const StageTiles tiles = output_tiles(p);
  if (tiles.tiles() == 0 || p.channels == 0) return;
  const Filters filters = filters_of(p);
  const int padding = largest_padding(filters), stride = static_cast<int>(p.stride);
  const Halo halo((tiles.rows - 1) * stride + 2 * padding + 1, (kColumns - 1) * stride + 2 * padding + 1);
  const int cells = halo.cells(tiles.slice) + filters.taps * tiles.slice;
  visit_dtype_and_stride(p.dtype, p.stride, [&](auto tag, auto constant) {
    using T = typename decltype(tag)::type;
    launch(forward_kernel<T, decltype(constant)::value>, tiles.grid(), dim3(kStageThreads),
           cells * sizeof(Accumulate<T>), static_cast<cudaStream_t>(stream), tiles, halo, padding, filters,
           source_of<T>(p));
  });
}

void depthwise_backward_input(const DepthwiseParams& p, void* stream) {
  const StageTiles tiles(p.batch, p.height, p.width, p.channels);
  if (tiles.tiles() == 0 || p.channels == 0) return;
  const Filters filters = filters_of(p);
  Halos halos;
  for (int k = 0; k < filters.count; ++k) {
    const int stride = static_cast<int>(p.stride), margin = ceil_div(filters.padding(k), stride);
    halos.of[k] = Halo(tiles.rows / stride + 2 * margin, kColumns / stride + 2 * margin);
  }
  const int cells = halos.cells(tiles.slice, filters.count) + kMaxTaps * tiles.slice;
  visit_dtype_and_stride(p.dtype, p.stride, [&](auto tag, auto constant) {
    using T = typename decltype(tag)::type;
    launch(backward_input_kernel<T, decltype(constant)::value>, tiles.grid(), dim3(kStageThreads),
           cells * sizeof(Accumulate<T>), static_cast<cudaStream_t>(stream), tiles, halos, filters,
           source_of<T>(p), p.out_height, p.out_width, p.accumulate, static_cast<T*>(p.grad_input));
  });
}

}  // namespace pynas::cuda
