// Depthwise convolutions of one rectified input: see depthwise.h for the formulas.
#include "ops/depthwise/depthwise.h"
#include "ops/depthwise/stage_cuda.h"

namespace pynas::cuda {
namespace {

#if defined(PYNAS_CUDA_EMULATION)  // small tests must give a block several tiles
constexpr int kWeightBlocks = 12;
#else
constexpr int kWeightBlocks =
    1056;  // two for each place of an H100's; fixed, so that sums do not depend on the GPU
#endif
constexpr int kMaxTaps = 25;

struct Filters {
  const void* weight[kMaxDepthwise];
  void* image[kMaxDepthwise];  // outputs, or their gradients
  void* grad_weight[kMaxDepthwise];
  int64_t gate[kMaxDepthwise];
  int kernel[kMaxDepthwise], dilation[kMaxDepthwise], first_tap[kMaxDepthwise];
  int count, taps;  // of all filters
  __host__ __device__ int padding(int k) const { return dilation[k] * (kernel[k] - 1) / 2; }
};

// The rectifier's input, scale x + offset, as an image.
template <class T>
struct Source {
  const T* x;
  const Accumulate<T>*scale, *offset, *gates;
  int64_t height, width, channels;

  __device__ Accumulate<T> affine(int64_t pixel, int64_t channel) const {
    const Accumulate<T> value = to_accumulate(x[pixel * channels + channel]);
    return scale == nullptr ? value : scale[channel] * value + offset[channel];
  }
};

struct Halos {
  Halo of[kMaxDepthwise];  // of each filter
  int cells(int slice, int count) const {
    int largest = 0;
    for (int k = 0; k < count; ++k) largest = max(largest, of[k].cells(slice));
    return largest;
  }
};

// weights [taps][slice] of one filter into shared memory.
template <class T>
__device__ void load_weights(const Filters& f, int k, int64_t first, int64_t channels, int slice,
                             Accumulate<T>* weights) {
  const int taps = f.kernel[k] * f.kernel[k], lane = threadIdx.x % slice;
  const T* from = static_cast<const T*>(f.weight[k]) + (first + lane) * taps;
  for (int tap = threadIdx.x / slice; tap < taps; tap += kStageThreads / slice)
    weights[tap * slice + lane] = first + lane < channels ? to_accumulate(from[tap]) : Accumulate<T>(0);
}

// Calls body with the filter's kernel and dilation as constants.
template <class F>
__device__ void visit_filter(const Filters& f, int k, F body) {
  if (f.kernel[k] == 3) {
    if (f.dilation[k] == 1) return body(std::integral_constant<int, 3>{}, std::integral_constant<int, 1>{});
    return body(std::integral_constant<int, 3>{}, std::integral_constant<int, 2>{});
  }
  if (f.dilation[k] == 1) return body(std::integral_constant<int, 5>{}, std::integral_constant<int, 1>{});
  body(std::integral_constant<int, 5>{}, std::integral_constant<int, 2>{});
}

// rectified(scale x + offset) of the tile whose output corner is `at`, with `padding` pixels around it.
template <class T, int kStride>
__device__ void fill_rectified(const Halo& halo, const Source<T>& source, const StageTiles::Corner& at,
                               int64_t channel, int slice, int padding, Accumulate<T>* tile) {
  using A = Accumulate<T>;
  const int64_t y0 = at.y * kStride - padding, x0 = at.x * kStride - padding;
  halo.fill(tile, slice, [&](int row, int column) {
    const int64_t y = y0 + row, x = x0 + column;
    if (y < 0 || y >= source.height || x < 0 || x >= source.width || channel >= source.channels) return A(0);
    const A value = source.affine((at.image * source.height + y) * source.width + x, channel);
    return value <= A(0) ? A(0) : value;
  });
}

// Block: a tile of the output, rows x 8 pixels, of a slice of channels, for all filters.
// Thread: 8 neighbouring outputs of one row and channel; of each row of the filter it holds the 8 s + k
// pixels
//   it needs in registers.
// Floor: (1 / s^-2 + filters) pixels x channels x sizeof(T) / 3.35 TB/s; 2 taps operations a value / 67
// TFLOP/s. Form: the rectified tile is in shared memory once for all filters. For the four filters of a DARTS
// edge a
//   value costs 34 reads of shared memory instead of 68, which bounds it.
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
// Floor: (2 + filters / s^2, and 1 more to add) pixels x channels x sizeof(T) / 3.35 TB/s.
// Form: with stride 2 the parities of columns are constants of the unrolled loops, those of rows a branch
// that
//   is the same for a warp's lanes of a row.
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
    const int margin = (f.padding(k) + kStride - 1) / kStride;
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
      constexpr int kPadding = kD * (kK - 1) / 2, kMargin = (kPadding + kStride - 1) / kStride;
      constexpr int kSpan = kColumns / kStride + 2 * kMargin;
      for (int i = 0; i < kK; ++i) {
        const int row = r + kPadding - i * kD + kMargin * kStride;  // twice the row of g with stride 2
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

// partial[block][tap][channel] = the block's share of the weight gradient; blockIdx.z: the filter.
// Block: every gridDim.x-th tile of the output, of a slice of channels, for one filter.
// Thread: all taps of one row of the tile and one channel in registers, over all its tiles.
// Floor: 2 pixels x channels x sizeof(T) a filter / 3.35 TB/s (x again from L2 for the next filter).
// Form: the sums stay in registers until the end, so that partial results are few and their order is fixed.
template <class T, int kStride>
__global__ void __launch_bounds__(kStageThreads)
    backward_weight_kernel(StageTiles tiles, Halos halos, Filters f, Source<T> source,
                           Accumulate<T>* __restrict__ partial) {
  using A = Accumulate<T>;
  DYNAMIC_SHARED(A, tile);
  const int k = blockIdx.z, slice = tiles.slice, lane = threadIdx.x % slice, r = threadIdx.x / slice;
  if (!is_open(source.gates, f.gate[k])) return;
  const int64_t channel = int64_t{blockIdx.y} * slice + lane;
  const int64_t count = int64_t{tiles.tiles_x} * tiles.tiles_y * tiles.batch;
  const T* grad = static_cast<const T*>(f.image[k]);
  visit_filter(f, k, [&](auto kernel, auto dilation) {
    constexpr int kK = decltype(kernel)::value, kD = decltype(dilation)::value;
    constexpr int kPadding = kD * (kK - 1) / 2, kSpan = (kColumns - 1) * kStride + (kK - 1) * kD + 1;
    const Halo& halo = halos.of[k];
    A sums[kK][kK] = {};
    for (int64_t t = blockIdx.x; t < count; t += gridDim.x) {
      const StageTiles::Corner at = tiles.corner(t);
      __syncthreads();  // the tile before this one has been read
      fill_rectified<T, kStride>(halo, source, at, channel, slice, kPadding, tile);
      A grads[kColumns];
      const int64_t y = at.y + r;
      const T* from = grad + ((at.image * tiles.height + y) * tiles.width + at.x) * tiles.channels + channel;
#pragma unroll
      for (int u = 0; u < kColumns; ++u) {
        const bool valid = y < tiles.height && at.x + u < tiles.width && channel < tiles.channels;
        grads[u] = valid ? A(to_accumulate(from[u * tiles.channels])) : A(0);
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kK; ++i) {
        const A* line = tile + (r * kStride + i * kD) * halo.pitch * slice + lane;
        A pixels[kSpan];
#pragma unroll
        for (int q = 0; q < kSpan; ++q) pixels[q] = line[q * slice];
#pragma unroll
        for (int j = 0; j < kK; ++j) {
#pragma unroll
          for (int u = 0; u < kColumns; ++u) sums[i][j] += grads[u] * pixels[u * kStride + j * kD];
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kK; ++i) {
#pragma unroll
      for (int j = 0; j < kK; ++j) tile[(i * kK + j) * kStageThreads + threadIdx.x] = sums[i][j];
    }
  });
  __syncthreads();
  const int taps = f.kernel[k] * f.kernel[k], rows = tiles.rows;
  A* out = partial + (int64_t{blockIdx.x} * f.taps + f.first_tap[k]) * tiles.channels;
  for (int tap = r; tap < taps; tap += rows) {
    A sum = 0;
    for (int row = 0; row < rows; ++row) sum += tile[tap * kStageThreads + row * slice + lane];
    if (channel < tiles.channels) out[tap * tiles.channels + channel] = sum;
  }
}

// grad_weight[c][tap] = sum over blocks of partial[block][tap][c], in double and in the order of the blocks.
// Block: 32 neighbouring sums.
// Thread: every eighth block of one sum.
// Floor: blocks x taps x channels x 4 bytes / 3.35 TB/s.
// Form: a second pass instead of atomics, so that the sum has one order.
template <class A>
__global__ void __launch_bounds__(kStageThreads)
    finish_weight_kernel(const A* __restrict__ partial, int blocks, Filters f, const A* gates,
                         int64_t channels) {
  SHARED(double, sums, [8][32]);
  const int lane = threadIdx.x % 32, part = threadIdx.x / 32;
  const int64_t size = f.taps * channels, e = int64_t{blockIdx.x} * 32 + lane;
  const int tap = static_cast<int>(e / channels);
  int k = 0;
  while (k + 1 < f.count && tap >= f.first_tap[k + 1]) ++k;
  const bool open = e < size && is_open(gates, f.gate[k]);
  double sum = 0;
  if (open) {
    for (int b = part; b < blocks; b += 8) sum += partial[b * size + e];
  }
  sums[part][lane] = sum;
  __syncthreads();
  if (part != 0 || e >= size) return;
  for (int other = 1; other < 8; ++other) sum += sums[other][lane];
  const int64_t channel = e - tap * channels;
  const int own_taps = f.kernel[k] * f.kernel[k];
  static_cast<A*>(f.grad_weight[k])[channel * own_taps + tap - f.first_tap[k]] = static_cast<A>(sum);
}

Filters filters_of(const DepthwiseParams& p) {
  Filters f{};
  for (int k = 0; k < p.count; ++k) {
    const DepthwiseConv& conv = p.convs[k];
    f.weight[k] = conv.weight;
    f.image[k] = conv.out;
    f.grad_weight[k] = conv.grad_weight;
    f.gate[k] = conv.gate;
    f.kernel[k] = static_cast<int>(conv.kernel);
    f.dilation[k] = static_cast<int>(conv.dilation);
    f.first_tap[k] = f.taps;
    f.taps += f.kernel[k] * f.kernel[k];
  }
  f.count = p.count;
  return f;
}

int largest_padding(const Filters& f) {
  int padding = 0;
  for (int k = 0; k < f.count; ++k) padding = max(padding, f.padding(k));
  return padding;
}

template <class T>
Source<T> source_of(const DepthwiseParams& p) {
  using A = Accumulate<T>;
  return {static_cast<const T*>(p.x),
          static_cast<const A*>(p.scale),
          static_cast<const A*>(p.offset),
          static_cast<const A*>(p.gates),
          p.height,
          p.width,
          p.channels};
}

// Calls function(TypeTag<T>{}, the stride as a constant).
template <class F>
void visit_stride(const DepthwiseParams& p, F&& function) {
  visit_dtype(p.dtype, [&](auto tag) {
    if (p.stride == 1) return function(tag, std::integral_constant<int, 1>{});
    function(tag, std::integral_constant<int, 2>{});
  });
}

StageTiles output_tiles(const DepthwiseParams& p) { return {p.batch, p.out_height, p.out_width, p.channels}; }

// Blocks that share the tiles of a weight gradient: as many for every filter and slice of channels.
int weight_blocks(const DepthwiseParams& p) {
  const StageTiles tiles = output_tiles(p);
  const int64_t share = ceil_div(kWeightBlocks, static_cast<int64_t>(tiles.slices()) * p.count);
  return static_cast<int>(min(tiles.tiles(), share));
}

}  // namespace

size_t depthwise_workspace(const DepthwiseParams& p) {
  const size_t element = p.dtype == DType::kFloat64 ? 8 : 4;
  return static_cast<size_t>(weight_blocks(p) * depthwise_taps(p) * p.channels) * element;
}

void depthwise_forward(const DepthwiseParams& p, void* stream) {
  const StageTiles tiles = output_tiles(p);
  if (tiles.tiles() == 0 || p.channels == 0) return;
  const Filters filters = filters_of(p);
  const int padding = largest_padding(filters), stride = static_cast<int>(p.stride);
  const Halo halo((tiles.rows - 1) * stride + 2 * padding + 1, (kColumns - 1) * stride + 2 * padding + 1);
  const int cells = halo.cells(tiles.slice) + filters.taps * tiles.slice;
  visit_stride(p, [&](auto tag, auto constant) {
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
  visit_stride(p, [&](auto tag, auto constant) {
    using T = typename decltype(tag)::type;
    launch(backward_input_kernel<T, decltype(constant)::value>, tiles.grid(), dim3(kStageThreads),
           cells * sizeof(Accumulate<T>), static_cast<cudaStream_t>(stream), tiles, halos, filters,
           source_of<T>(p), p.out_height, p.out_width, p.accumulate, static_cast<T*>(p.grad_input));
  });
}

void depthwise_backward_weight(const DepthwiseParams& p, void* stream) {
  const StageTiles tiles = output_tiles(p);
  if (p.channels == 0) return;
  const Filters filters = filters_of(p);
  const int blocks = weight_blocks(p);
  Halos halos;
  for (int k = 0; k < filters.count; ++k) {
    const int stride = static_cast<int>(p.stride), around = 2 * filters.padding(k) + 1;
    halos.of[k] = Halo((tiles.rows - 1) * stride + around, (kColumns - 1) * stride + around);
  }
  const int cells = max(halos.cells(tiles.slice, filters.count), kMaxTaps * kStageThreads);
  visit_stride(p, [&](auto tag, auto constant) {
    using T = typename decltype(tag)::type;
    using A = Accumulate<T>;
    const auto on = static_cast<cudaStream_t>(stream);
    A* partial = static_cast<A*>(p.workspace);
    if (blocks > 0) {
      launch(backward_weight_kernel<T, decltype(constant)::value>,
             dim3(static_cast<unsigned>(blocks), tiles.slices(), static_cast<unsigned>(p.count)),
             dim3(kStageThreads), cells * sizeof(A), on, tiles, halos, filters, source_of<T>(p), partial);
    }
    launch(finish_weight_kernel<A>,
           dim3(static_cast<unsigned>(ceil_div(int64_t{filters.taps} * p.channels, 32))), dim3(kStageThreads),
           0, on, static_cast<const A*>(partial), blocks, filters, static_cast<const A*>(p.gates),
           p.channels);
  });
}

}  // namespace pynas::cuda
