// How much of a convolution is worked on at a time, and the memory that takes. Everything is static: kernel
// files are compiled once per instruction set, and no copy of theirs may be shared by the linker.
#pragma once

#include <cstdint>

#include "common/math.h"
#include "ops/conv3x3/conv3x3.h"

namespace pynas {

constexpr int64_t kChannelPadding = 16;  // the widest vector

static inline int64_t padded_channels(int64_t channels) {
  return ceil_div(channels, kChannelPadding) * kChannelPadding;
}

// The tiles that one thread transforms, multiplies and transforms back before it goes on to the next.
struct Chunk {
  int64_t tiles;
  int64_t input, output;  // floats of their transforms
  int64_t zeros;          // floats of a pixel outside the image
  int64_t products;       // floats of the transformed weights, or of a thread's sums for their gradient
};

static inline Chunk chunk_of(const Conv3x3Params& p, bool grad_weight) {
  const int64_t C = padded_channels(p.in_channels), O = padded_channels(p.out_channels);
  const int64_t products = 36 * p.in_channels * O;
  // The transforms of a chunk take 256 KiB of L2, but have 24 tiles at least, to make use of the weights that
  // are read. Sums that do not fit L2 are read and written once a chunk, and want longer ones.
  int64_t tiles = (256 << 10) / (36 * 4 * (C + O));
  tiles = tiles < 24 ? 24 : tiles > 48 ? 48 : tiles / 12 * 12;
  if (grad_weight && products * 4 > 2 << 20) tiles = 96;
  // One line more for each of the 36 products keeps them off the same lines of the cache.
  return {tiles, 36 * (tiles * C + kChannelPadding), 36 * (tiles * O + kChannelPadding), C > O ? C : O,
          products};
}

// Floats of workspace that `threads` threads need.
static inline int64_t conv3x3_workspace(const Conv3x3Params& p, int threads) {
  const Chunk chunk = chunk_of(p, false);
  return chunk.zeros + chunk.products + threads * (chunk.input + chunk.output);
}
static inline int64_t conv3x3_grad_weight_workspace(const Conv3x3Params& p, int threads) {
  const Chunk chunk = chunk_of(p, true);
  return chunk.zeros + threads * (chunk.products + chunk.input + chunk.output);
}

}  // namespace pynas
