// What the CUDA kernels of an edge's stages share: a block is a tile of an image times a slice of channels, a
// thread one channel of one row of the tile, kColumns neighbouring pixels wide. Lanes follow the channels, so
// that global and shared memory are accessed in whole segments.
#pragma once

#include "common/visit.h"

namespace pynas::cuda {

constexpr int kStageThreads = 256;
constexpr int kColumns = 8;

// Whether a stage is computed: its mixture weight, on the device, is not zero.
template <class A>
__device__ bool is_open(const A* gates, int64_t gate) {
  return gates == nullptr || gate < 0 || gates[gate] != A(0);
}

// Tiles of an image [batch, height, width, channels], rows x kColumns pixels and `slice` channels each.
struct StageTiles {
  int64_t batch, height, width, channels;
  int slice, rows, tiles_x, tiles_y;

  StageTiles(int64_t batch_, int64_t height_, int64_t width_, int64_t channels_)
      : batch(batch_), height(height_), width(width_), channels(channels_) {
    // As few idle lanes as possible, then as wide as possible.
    slice = 32;
    for (const int narrower : {16, 8}) {
      if (ceil_div(channels, narrower) * narrower < ceil_div(channels, slice) * slice) slice = narrower;
    }
    rows = kStageThreads / slice;
    tiles_x = static_cast<int>(ceil_div(width, kColumns));
    tiles_y = static_cast<int>(ceil_div(height, rows));
  }
  int64_t tiles() const { return batch * tiles_y * tiles_x; }
  dim3 grid() const { return dim3(static_cast<unsigned>(tiles()), slices()); }
  unsigned slices() const { return static_cast<unsigned>(ceil_div(channels, slice)); }

  struct Corner {
    int64_t image, y, x;
  };
  __device__ Corner corner(int64_t tile) const {
    const int64_t row = tile / tiles_x, image = row / tiles_y;
    return {image, (row - image * tiles_y) * rows, (tile - row * tiles_x) * kColumns};
  }
};

// A tile of an image with its surroundings in shared memory, [rows][pitch][slice]. An odd pitch keeps the
// rows of a warp's lanes in different banks.
struct Halo {
  int rows = 0, columns = 0, pitch = 0;
  Divider by_columns;

  Halo() = default;
  Halo(int rows_, int columns_)
      : rows(rows_), columns(columns_), pitch(columns_ | 1), by_columns(static_cast<uint32_t>(columns_)) {}
  __host__ __device__ int cells(int slice) const { return rows * pitch * slice; }

  // Fills this thread's share with what read(row, column) gives.
  template <class A, class F>
  __device__ void fill(A* tile, int slice, F read) const {
    const int lane = threadIdx.x % slice;
    for (int i = threadIdx.x / slice; i < rows * columns; i += kStageThreads / slice) {
      const int row = static_cast<int>(by_columns.divide(static_cast<uint32_t>(i)));
      const int column = i - row * columns;
      tile[(row * pitch + column) * slice + lane] = read(row, column);
    }
  }
};

}  // namespace pynas::cuda
