// Weight gradients of depthwise convolutions: see depthwise.h for the formula.
#include "ops/depthwise/depthwise_cuda.h"

namespace pynas::cuda {
namespace {

#if defined(PYNAS_CUDA_EMULATION)  // small tests must give a block several tiles
constexpr int kWeightBlocks = 12;
#else
// 8 for each of an H100's 132 multiprocessors; fixed, so that sums do not depend on the GPU.
constexpr int kWeightBlocks = 1056;
#endif

// partial[block][tap][channel] = the block's share of the weight gradient; taps of all filters, one behind
// the other.
// Block: every gridDim.x-th tile of the output, of a slice of channels (blockIdx.y), for one filter
//   (blockIdx.z).
// Thread: all taps of one row of the tile and one channel in registers, over all its tiles.
// Roofline: (s^2 + filters) outputs x channels x sizeof(T) bytes / 3.35 TB/s; x is read again for every
//   filter, from L2 at best.
// Design: the sums stay in registers until the end, so that partial results are few and their order is fixed.
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
// Roofline: blocks x taps x channels x sizeof(A) bytes / 3.35 TB/s.
// Design: a second pass instead of atomics, so that the sum has one order.
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

// Blocks among which the tiles of one filter and one slice of channels are divided.
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
  visit_dtype_and_stride(p.dtype, p.stride, [&](auto tag, auto constant) {
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
