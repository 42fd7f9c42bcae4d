// The CUDA side of sample_grad: how the work is cut, and the steps that sample_grad_cuda.cu combines.
//
//   pack      inputs to channels-last with padded channels, unless they lie so already
//   produce   gradients of "units" (a sample group, or a run of its rows), tile by tile of the weight:
//             tiles on tensor cores (sample_grad_tile_cuda.cu), thin grouped convolutions and the bias by
//             plain loops (sample_grad_direct_cuda.cu)
//   consume   in registers (moments, norms), or from a workspace slab of raw gradients
//             (sample_grad_fold_cuda.cu): float64, Gram, thin convolutions, and few sample groups of many
//             rows, which are cut into row splits
//
// Rows of the weight matrix of a convolution group are its output channels, columns are tap * channels +
// channel. Channels are padded to 16 bytes, so that a vector of columns is a vector of neighbouring input
// channels.
#pragma once

#include "common/visit.h"
#include "ops/sample_grad/sample_grad.h"

namespace pynas::cuda {

constexpr int kTile = 64;  // weight rows and columns of one block
constexpr int kTileElements = kTile * kTile;
constexpr int kTileThreads = 256;
constexpr int kTileWarps = kTileThreads / 32;
#if defined(PYNAS_CUDA_EMULATION)  // small tests must share tiles, split rows and need several slabs
constexpr int kTargetBlocks = 4;
constexpr int64_t kSlabBytes = 96 << 10;
constexpr int kMaxUnitBlocks = 2;
#else
// Two for each of an H100's 132 multiprocessors; fixed, so that sums do not depend on the GPU.
constexpr int kTargetBlocks = 264;
constexpr int64_t kSlabBytes = 64 << 20;  // of raw gradients at a time
constexpr int kMaxUnitBlocks = 32768;     // of a grid's second axis; the rest by striding
#endif

struct ChannelsLast {  // [batch][rows][columns][convolution groups][padded channels], the last two contiguous
  const void* data = nullptr;
  int64_t batch = 0, row = 0, column = 0;  // strides in elements
  int channels = 0;                        // of one convolution group, padded
};

// Everything a producer must know about the layer. Row r of a sample group is its sample r / positions at
// position r % positions.
struct Layer {
  ChannelsLast grad_output, input;
  int sample_groups, group_size, positions, rows;  // rows = group_size * positions
  int height, width, out_width;
  int stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x, kernel_width, taps;
  int conv_groups, group_out_channels, group_channels;
  int row_tiles, column_tiles;  // of one convolution group
  int row_splits, split_rows;   // of a sample group; its last split may be shorter
  Divider by_positions, by_out_width;

  __host__ __device__ int units() const { return sample_groups * row_splits; }
  int64_t tiles() const { return int64_t{conv_groups} * row_tiles * column_tiles; }
  int64_t weights() const { return int64_t{conv_groups} * group_out_channels * group_channels * taps; }
};

// Where weight p = (o, c, tap) lies in a raw or partial buffer that holds elements first .. first + size.
struct ElementMap {
  enum Kind { kTiles, kDirect, kBias } kind;
  int64_t first, size;
  Divider by_taps, by_channels, by_group_out;  // p -> tap, c, o -> convolution group
  int taps, group_channels, group_out_channels, out_channels, padded_channels, row_tiles, column_tiles;

  // The index in the buffer, or -1 when this slab does not hold it.
  __device__ int64_t locate(uint32_t p) const {
    int64_t index = p;
    if (kind != kBias) {
      const uint32_t quotient = by_taps.divide(p), tap = by_taps.remainder(p, quotient);
      const uint32_t o = by_channels.divide(quotient), c = by_channels.remainder(quotient, o);
      if (kind == kDirect) {
        index = int64_t{c * taps + tap} * out_channels + o;
      } else {
        const uint32_t group = by_group_out.divide(o), m = by_group_out.remainder(o, group);
        const uint32_t n = tap * padded_channels + c;
        const int64_t tile = (int64_t{group} * row_tiles + m / kTile) * column_tiles + n / kTile;
        index = tile * kTileElements + m % kTile * kTile + n % kTile;
      }
    }
    index -= first;
    return index >= 0 && index < size ? index : -1;
  }
};

// The bits of the moments that a tile block holds in registers, ascending; slot 0 is the
// sum where the centred moment needs it.
struct MomentSlots {
  int count = 0;
  int bit[kNumMoments] = {};
};

// target[batch][rows][columns][conv_groups][padded] = source of those strides, zero beyond `channels`.
void pack(const void* source, void* target, int64_t bytes, int64_t batch, int64_t rows, int64_t columns,
          int conv_groups, int channels, int padded, const int64_t (&strides)[4], cudaStream_t stream);

// Raw gradients [units][tile_count * kTileElements] of tiles first_tile .. first_tile + tile_count.
void tiles_to_raw(const Layer&, DType, bool tf32, int64_t first_tile, int64_t tile_count, void* raw,
                  cudaStream_t);
// Partial moments [splits][slots][tiles * kTileElements]: `splits` blocks divide the sample groups of a tile.
void tiles_to_moments(const Layer&, DType, bool tf32, const MomentSlots&, int splits, float* partial,
                      cudaStream_t);
// Partial squared norms [sample_groups][tiles * kTileWarps].
void tiles_to_norms(const Layer&, DType, bool tf32, int splits, float* partial, cudaStream_t);

// Raw gradients [units][count] of elements first .. first + count in the order (c, tap, o).
void direct_to_raw(const Layer&, DType, int64_t first, int64_t count, void* raw, cudaStream_t);
// Raw gradients [units][out_channels] of the bias.
void bias_to_raw(const Layer&, DType, void* raw, cudaStream_t);

// Consumers. T: float, or double for float64 inputs; `wide` chooses.
void merge_moments(const ElementMap&, const MomentSlots&, const float* partial, int splits, int sample_groups,
                   int64_t weights, uint32_t mask, float* out, cudaStream_t);
void fold_moments(const ElementMap&, bool wide, const void* raw, int sample_groups, int row_splits,
                  int64_t weights, uint32_t mask, void* out, cudaStream_t);
// out[g] (+)= sum_e v[g][e], or sum_e v[g][e]^2 if squared, with v[g][e] = sum over row splits of
// values[g][split][e]. `first` overwrites.
void add_norms(bool wide, bool squared, bool first, const void* values, int sample_groups, int row_splits,
               int64_t size, void* out, cudaStream_t);
// partial[split][g][h] (+)= sum over the split's elements of raw[g] raw[h] for h <= g; finish_gram adds up
// the splits into the symmetric out [G, G].
int gram_splits(int sample_groups);
void add_gram(bool wide, bool first, const void* raw, int sample_groups, int64_t size, void* partial,
              cudaStream_t);
void finish_gram(bool wide, bool any, const void* partial, int sample_groups, void* out, cudaStream_t);

}  // namespace pynas::cuda
