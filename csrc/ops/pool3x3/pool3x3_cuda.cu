// Maximum and average over 3 x 3 windows of one input: see pool3x3.h for the formulas.
#include "common/visit.h"
#include "ops/depthwise/stage_cuda.h"
#include "ops/pool3x3/pool3x3.h"

namespace pynas::cuda {
namespace {

template <class T>
struct Pools {
  const T* x;
  T *max_out, *avg_out;
  const T *grad_max, *grad_avg;
  T* grad_input;
  const Accumulate<T>* gates;
  int64_t max_gate, avg_gate, height, width, out_height, out_width, channels;
  bool accumulate;
};

// Whether a value takes the place of the largest before it, in the order of the window's
// pixels: an equal one does not, a NaN always does.
template <class A>
__device__ bool displaces(A value, A largest) {
  return value > largest || value != value;
}

// How many of the positions first .. first + 2 lie inside [0, size).
__device__ inline int inside(int64_t first, int64_t size) {
  return static_cast<int>(min(first + 3, size) - max(first, int64_t{0}));
}

// Block: a tile of the output, rows x 8 pixels, of a slice of channels.
// Thread: 8 neighbouring outputs of one row and channel.
// Roofline: (s^2 + 2) outputs x channels x sizeof(T) bytes / 3.35 TB/s.
// Design: a thread reads a pixel once for all of its windows; windows of other rows find it in L1.
template <class T, int kStride>
__global__ void __launch_bounds__(kStageThreads) pool_forward_kernel(StageTiles tiles, Pools<T> p) {
  using A = Accumulate<T>;
  const int lane = threadIdx.x % tiles.slice, r = threadIdx.x / tiles.slice;
  const int64_t channel = int64_t{blockIdx.y} * tiles.slice + lane;
  const StageTiles::Corner at = tiles.corner(blockIdx.x);
  const int64_t i = at.y + r;
  if (i >= tiles.height || channel >= tiles.channels) return;
  const bool use_max = p.max_out != nullptr && is_open(p.gates, p.max_gate);
  const bool use_avg = p.avg_out != nullptr && is_open(p.gates, p.avg_gate);
  constexpr int kSpan = (kColumns - 1) * kStride + 3;
  const int64_t y0 = i * kStride - 1, x0 = at.x * kStride - 1;
  A largest[kColumns] = {}, sums[kColumns] = {};
  bool any[kColumns] = {};
  for (int dy = 0; dy < 3 && (use_max || use_avg); ++dy) {
    const int64_t y = y0 + dy;
    if (y < 0 || y >= p.height) continue;
    const T* row = p.x + (at.image * p.height + y) * p.width * p.channels + channel;
#pragma unroll
    for (int q = 0; q < kSpan; ++q) {
      const int64_t x = x0 + q;
      if (x < 0 || x >= p.width) continue;
      const A value = to_accumulate(row[x * p.channels]);
#pragma unroll
      for (int u = 0; u < kColumns; ++u) {
        if (q < u * kStride || q >= u * kStride + 3) continue;
        sums[u] += value;
        if (!any[u] || displaces(value, largest[u])) largest[u] = value;
        any[u] = true;
      }
    }
  }
  const int64_t pixel = (at.image * tiles.height + i) * tiles.width + at.x;
#pragma unroll
  for (int u = 0; u < kColumns; ++u) {
    if (at.x + u >= tiles.width) break;
    const int64_t to = (pixel + u) * p.channels + channel;
    const int pixels = inside(y0, p.height) * inside(x0 + u * kStride, p.width);
    if (p.max_out != nullptr) p.max_out[to] = round_to<T>(use_max ? largest[u] : A(0));
    if (p.avg_out != nullptr) p.avg_out[to] = round_to<T>(use_avg ? sums[u] / A(pixels) : A(0));
  }
}

// Block: a tile of the input, rows x 8 pixels, of a slice of channels.
// Thread: its share of the windows that reach the tile, then 8 neighbouring inputs of one row and channel.
// Roofline: (2 + 2 / s^2, and 1 more to accumulate) inputs x channels x sizeof(T) bytes / 3.35 TB/s.
// Design: which pixel is a window's maximum is found once for each window and block, and kept in shared
//   memory, where the window's pixels look it up; gathering instead of scattering keeps the order of the sum.
template <class T, int kStride>
__global__ void __launch_bounds__(kStageThreads)
    pool_backward_kernel(StageTiles tiles, Halo halo, Halo windows, Pools<T> p) {
  using A = Accumulate<T>;
  DYNAMIC_SHARED(A, tile);
  const int slice = tiles.slice, lane = threadIdx.x % slice, r = threadIdx.x / slice;
  A* of_max = tile + halo.cells(slice);
  A* of_avg = of_max + windows.cells(slice);
  signed char* winners = reinterpret_cast<signed char*>(of_avg + windows.cells(slice));
  const int64_t channel = int64_t{blockIdx.y} * slice + lane;
  const StageTiles::Corner at = tiles.corner(blockIdx.x);
  const bool use_max = p.grad_max != nullptr && is_open(p.gates, p.max_gate);
  const bool use_avg = p.grad_avg != nullptr && is_open(p.gates, p.avg_gate);
  // The first window that reaches the tile, and its first pixel.
  constexpr int kBefore = kStride == 1 ? 1 : 0;
  const int64_t i0 = at.y / kStride - kBefore, j0 = at.x / kStride - kBefore;
  const int64_t y0 = i0 * kStride - 1, x0 = j0 * kStride - 1;
  halo.fill(tile, slice, [&](int row, int column) {
    const int64_t y = y0 + row, x = x0 + column;
    if (y < 0 || y >= p.height || x < 0 || x >= p.width || channel >= p.channels) return A(0);
    return A(to_accumulate(p.x[((at.image * p.height + y) * p.width + x) * p.channels + channel]));
  });
  __syncthreads();
  for (int cell = r; cell < windows.rows * windows.columns; cell += kStageThreads / slice) {
    const int row = static_cast<int>(windows.by_columns.divide(static_cast<uint32_t>(cell)));
    const int column = cell - row * windows.columns, to = (row * windows.pitch + column) * slice + lane;
    const int64_t i = i0 + row, j = j0 + column;
    const bool valid = i >= 0 && i < p.out_height && j >= 0 && j < p.out_width && channel < p.channels;
    const int64_t from = ((at.image * p.out_height + i) * p.out_width + j) * p.channels + channel;
    const int64_t y = i * kStride - 1, x = j * kStride - 1;
    of_max[to] = valid && use_max ? A(to_accumulate(p.grad_max[from])) : A(0);
    of_avg[to] = valid && use_avg
                     ? A(to_accumulate(p.grad_avg[from])) / A(inside(y, p.height) * inside(x, p.width))
                     : A(0);
    int winner = -1;
    A largest = 0;
    for (int position = 0; position < 9 && valid && use_max; ++position) {
      const int dy = position / 3, dx = position % 3;
      if (y + dy < 0 || y + dy >= p.height || x + dx < 0 || x + dx >= p.width) continue;
      const A value = tile[((row * kStride + dy) * halo.pitch + column * kStride + dx) * slice + lane];
      if (winner < 0 || displaces(value, largest)) {
        winner = position;
        largest = value;
      }
    }
    winners[to] = static_cast<signed char>(winner);
  }
  __syncthreads();
  const int64_t y = at.y + r;
  if (y >= tiles.height || channel >= tiles.channels) return;
  const int64_t pixel = (at.image * tiles.height + y) * tiles.width + at.x;
#pragma unroll
  for (int u = 0; u < kColumns; ++u) {
    if (at.x + u >= tiles.width) break;
    A sum = 0;
    // Window i holds this row at dy = y + 1 - s i.
    for (int dy = 0; dy < 3; ++dy) {
      const int si = r + 1 - dy + kBefore * kStride;
      if (si % kStride != 0) continue;
#pragma unroll
      for (int dx = 0; dx < 3; ++dx) {
        const int sj = u + 1 - dx + kBefore * kStride;
        if (sj % kStride != 0) continue;
        const int window = (si / kStride * windows.pitch + sj / kStride) * slice + lane;
        sum += of_avg[window] + (winners[window] == dy * 3 + dx ? of_max[window] : A(0));
      }
    }
    T& cell = p.grad_input[(pixel + u) * p.channels + channel];
    if (p.accumulate) sum += to_accumulate(cell);
    cell = round_to<T>(sum);
  }
}

template <class T>
Pools<T> pools_of(const Pool3x3Params& p) {
  return {static_cast<const T*>(p.x),
          static_cast<T*>(p.max_out),
          static_cast<T*>(p.avg_out),
          static_cast<const T*>(p.grad_max),
          static_cast<const T*>(p.grad_avg),
          static_cast<T*>(p.grad_input),
          static_cast<const Accumulate<T>*>(p.gates),
          p.max_gate,
          p.avg_gate,
          p.height,
          p.width,
          p.out_height,
          p.out_width,
          p.channels,
          p.accumulate};
}

}  // namespace

void pool3x3_forward(const Pool3x3Params& p, void* stream) {
  const StageTiles tiles(p.batch, p.out_height, p.out_width, p.channels);
  if (tiles.tiles() == 0 || p.channels == 0) return;
  visit_dtype_and_stride(p.dtype, p.stride, [&](auto tag, auto stride) {
    using T = typename decltype(tag)::type;
    launch(pool_forward_kernel<T, decltype(stride)::value>, tiles.grid(), dim3(kStageThreads), 0,
           static_cast<cudaStream_t>(stream), tiles, pools_of<T>(p));
  });
}

void pool3x3_backward(const Pool3x3Params& p, void* stream) {
  const StageTiles tiles(p.batch, p.height, p.width, p.channels);
  if (tiles.tiles() == 0 || p.channels == 0) return;
  visit_dtype_and_stride(p.dtype, p.stride, [&](auto tag, auto stride) {
    using T = typename decltype(tag)::type;
    constexpr int kStride = decltype(stride)::value, kMore = kStride == 1 ? 2 : 1;
    const Halo windows(tiles.rows / kStride + kMore, kColumns / kStride + kMore);
    const Halo halo((windows.rows - 1) * kStride + 3, (windows.columns - 1) * kStride + 3);
    const size_t sums = (halo.cells(tiles.slice) + 2 * windows.cells(tiles.slice)) * sizeof(Accumulate<T>);
    launch(pool_backward_kernel<T, kStride>, tiles.grid(), dim3(kStageThreads),
           sums + static_cast<size_t>(windows.cells(tiles.slice)), static_cast<cudaStream_t>(stream), tiles,
           halo, windows, pools_of<T>(p));
  });
}

}  // namespace pynas::cuda
