// Packing, and the producers that need no tensor cores: thin grouped (depthwise) convolutions and the bias.
#include "ops/sample_grad/cuda/sample_grad_cuda.h"

namespace pynas::cuda {
namespace {

struct PackShape {
  int64_t pixels, batch_stride, channel_stride, row_stride, column_stride;
  int64_t rows, columns;
  int channels, padded, packed_channels;  // of a convolution group, the same padded, padded times groups
};

// target[pixel][group][c] = source[pixel][group * channels + c], zero for c >= channels.
// Block: 32 pixels x 32 packed channels through shared memory, so that both sides touch whole sectors.
// Thread: 4 elements read with lanes along pixels, 4 written with lanes along channels.
// Roofline: each element read once and written once, elements (1 + padded / channels) sizeof(Word) bytes /
//   3.35 TB/s.
// Design: the tile kernel can then use 16-byte cp.async for any strides, instead of gathering elements in its
//   inner loop.
template <class Word>
__global__ void __launch_bounds__(256)
    pack_kernel(PackShape shape, const Word* __restrict__ source, Word* __restrict__ target) {
  SHARED(Word, tile, [32][33]);
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
  const int64_t pixel0 = int64_t{blockIdx.x} * 32;
  const int channel0 = blockIdx.y * 32;
  const int64_t pixel = pixel0 + lane;
  if (pixel < shape.pixels) {
    const int64_t x = pixel % shape.columns, line = pixel / shape.columns;
    const Word* from = source + line / shape.rows * shape.batch_stride +
                       line % shape.rows * shape.row_stride + x * shape.column_stride;
    for (int i = row; i < 32; i += 8) {
      const int packed = channel0 + i, group = packed / shape.padded, c = packed % shape.padded;
      const bool real = packed < shape.packed_channels && c < shape.channels;
      tile[i][lane] = real ? from[(int64_t{group} * shape.channels + c) * shape.channel_stride] : Word(0);
    }
  }
  __syncthreads();
  for (int i = row; i < 32; i += 8) {
    if (pixel0 + i < shape.pixels && channel0 + lane < shape.packed_channels) {
      target[(pixel0 + i) * shape.packed_channels + channel0 + lane] = tile[lane][i];
    }
  }
}

// For element e = first + local, in the order (c, tap, o) of the weight:
//   raw[unit][local] = sum over the unit's rows of grad_output[row, o] input[row shifted by tap, c]
// kBias: e = o, and raw[unit][local] = sum over the unit's rows of grad_output[row, o].
// Block: 32 elements (neighbouring output channels), unit by unit; 8 warps take every 8th row and add up at
//   the end of each unit.
// Thread: one element, one row in eight.
// Roofline: both tensors once, B (O Ho Wo + C H W) sizeof(T) bytes / 3.35 TB/s; other taps read L1 and L2.
// Design: a tile of 64 x 64 weights would be nearly empty here (9 weights a group for depthwise 3x3).
template <class T, bool kBias>
__global__ void __launch_bounds__(256)
    direct_kernel(Layer layer, int64_t first, int64_t count, Accumulate<T>* __restrict__ raw) {
  using Sum = Accumulate<T>;
  SHARED(Sum, partial, [8][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t local = int64_t{blockIdx.x} * 32 + lane;
  const bool active = local < count;
  const int64_t element = first + (active ? local : 0);
  const int out_channels = layer.conv_groups * layer.group_out_channels;
  const int o = static_cast<int>(element % out_channels), j = static_cast<int>(element / out_channels);
  const int group = o / layer.group_out_channels, tap = j % layer.taps, c = j / layer.taps;
  const int dy = tap / layer.kernel_width * layer.dilation_y - layer.padding_y;
  const int dx = tap % layer.kernel_width * layer.dilation_x - layer.padding_x;
  const T* delta = static_cast<const T*>(layer.grad_output.data) +
                   int64_t{group} * layer.grad_output.channels + o % layer.group_out_channels;
  const T* input = static_cast<const T*>(layer.input.data) + int64_t{group} * layer.input.channels + c;

  for (int unit = blockIdx.y; unit < layer.sample_groups * layer.row_splits; unit += gridDim.y) {
    const int sample_group = unit / layer.row_splits, split = unit % layer.row_splits;
    const int begin = split * layer.split_rows, end = min(layer.rows, begin + layer.split_rows);
    Sum sum = 0;
    for (int r = begin + warp; active && r < end; r += 8) {
      const uint32_t sample = layer.by_positions.divide(r),
                     position = layer.by_positions.remainder(r, sample);
      const int y = layer.by_out_width.divide(position), x = layer.by_out_width.remainder(position, y);
      const int64_t b = int64_t{sample_group} * layer.group_size + sample;
      const Sum d = to_accumulate(
          delta[b * layer.grad_output.batch + y * layer.grad_output.row + x * layer.grad_output.column]);
      if constexpr (kBias) {
        sum += d;
      } else {
        const int iy = y * layer.stride_y + dy, ix = x * layer.stride_x + dx;
        if (iy < 0 || iy >= layer.height || ix < 0 || ix >= layer.width) continue;
        sum +=
            d * to_accumulate(input[b * layer.input.batch + iy * layer.input.row + ix * layer.input.column]);
      }
    }
    partial[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && active) {
      Sum total = 0;
      for (int w = 0; w < 8; ++w) total += partial[w][lane];
      raw[unit * count + local] = total;
    }
    __syncthreads();  // the next unit overwrites `partial`
  }
}

template <bool kBias>
void launch_direct(const Layer& layer, DType dtype, int64_t first, int64_t count, void* raw,
                   cudaStream_t stream) {
  if (count == 0 || layer.units() == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(count, 32)),
                  static_cast<unsigned>(min(layer.units(), kMaxUnitBlocks)));
  visit_dtype(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch(direct_kernel<T, kBias>, grid, dim3(256), 0, stream, layer, first, count,
           static_cast<Accumulate<T>*>(raw));
  });
}

}  // namespace

void pack(const void* source, void* target, int64_t bytes, int64_t batch, int64_t rows, int64_t columns,
          int conv_groups, int channels, int padded, const int64_t (&strides)[4], cudaStream_t stream) {
  const PackShape shape{
      batch * rows * columns, strides[0], strides[1], strides[2], strides[3], rows, columns, channels, padded,
      conv_groups * padded};
  if (shape.pixels == 0 || shape.packed_channels == 0) return;
  const dim3 grid(static_cast<unsigned>(ceil_div(shape.pixels, 32)),
                  static_cast<unsigned>(ceil_div(shape.packed_channels, 32)));
  auto run = [&](auto tag) {
    using Word = typename decltype(tag)::type;
    launch(pack_kernel<Word>, grid, dim3(256), 0, stream, shape, static_cast<const Word*>(source),
           static_cast<Word*>(target));
  };
  if (bytes == 2) run(TypeTag<uint16_t>{});
  if (bytes == 4) run(TypeTag<uint32_t>{});
  if (bytes == 8) run(TypeTag<uint64_t>{});
}

void direct_to_raw(const Layer& layer, DType dtype, int64_t first, int64_t count, void* raw,
                   cudaStream_t stream) {
  launch_direct<false>(layer, dtype, first, count, raw, stream);
}

void bias_to_raw(const Layer& layer, DType dtype, void* raw, cudaStream_t stream) {
  launch_direct<true>(layer, dtype, 0, int64_t{layer.conv_groups} * layer.group_out_channels, raw, stream);
}

}  // namespace pynas::cuda
