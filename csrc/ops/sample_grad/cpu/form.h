// From a plan's tile to its gradient: the pointers, the ranges and the register kernel that they are handed
// to. Include only from sample_grad_cpu.cpp, once per instruction set.
#pragma once

#include "ops/sample_grad/cpu/plan.h"
#include "ops/sample_grad/cpu/tile.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

// A tile made ready: everything but the samples that it sums over.
template <class T>
struct ReadyTile {
  int64_t first_vector = 0, vectors = 0;
  int64_t first_column = 0, columns = 0;
  Bundle bundle{};
  Walk<T> walk{};        // dense
  const T* x = nullptr;  // depthwise: the operands of the bundle
  const T* d = nullptr;
};

// The output positions that the columns of taps (r, s) .. (r, last_s) sum over, and the strides along them.
template <class T>
Walk<T> walk_over(const Plan& plan, int64_t r, int64_t s, int64_t last_s, const T* d_plane, Range& rows,
                  Range& cols) {
  rows = plan.valid(0, r);
  cols = {plan.valid(1, last_s).begin, plan.valid(1, s).end};
  Walk<T> walk{};
  walk.d = d_plane + rows.begin * plan.d.row + cols.begin * plan.d.col;
  walk.samples = 1;
  walk.rows = cols.size() > 0 ? rows.size() : 0;
  walk.cols = cols.size();
  walk.x_sample = plan.x.sample;
  walk.x_row = plan.stride[0] * plan.x.row;
  walk.x_col = plan.stride[1] * plan.x.col;
  walk.d_sample = plan.d.sample;
  walk.d_row = plan.d.row;
  walk.d_col = plan.d.col;
  return walk;
}

// The input element that tap (r, s) multiplies at output position (h, w).
template <class T>
const T* column_at(const Plan& plan, const T* x_plane, int64_t r, int64_t s, int64_t h, int64_t w) {
  const int64_t y = h * plan.stride[0] + r * plan.dilation[0] - plan.padding[0];
  const int64_t column = w * plan.stride[1] + s * plan.dilation[1] - plan.padding[1] + plan.x_pad[0];
  return x_plane + y * plan.x.row + column * plan.x.col;
}

template <class T>
ReadyTile<T> make_ready(const Plan& plan, const Bundle& b, const Tile& tile, const T* x, const T* d) {
  ReadyTile<T> ready;
  ready.first_vector = b.first_vector + tile.first_column * plan.tile_outputs;
  ready.vectors = tile.columns * plan.tile_outputs;
  ready.first_column = tile.first_column;
  ready.columns = tile.columns;
  ready.bundle = b;
  if (plan.layout == Layout::kDepthwise) {
    ready.x = x + b.first_block * plan.x.plane;
    ready.d = d + (b.first_block * plan.out_blocks + b.out_block) * plan.d.plane;
    return ready;
  }
  const int64_t kw = plan.kernel[1], tap = tile.first_column / b.blocks;
  const int64_t last_tap = (tile.first_column + tile.columns - 1) / b.blocks, r = tap / kw;
  Range rows, cols;
  const T* d_plane = d + (b.group * plan.out_blocks + b.out_block) * plan.d.plane;
  ready.walk = walk_over(plan, r, tap % kw, last_tap % kw, d_plane, rows, cols);
  for (int64_t n = 0; n < tile.columns; ++n) {
    const int64_t column = tile.first_column + n,
                  block = b.group * plan.blocks + b.first_block + column % b.blocks;
    ready.walk.x[n] =
        column_at(plan, x + block * plan.x.plane, r, column / b.blocks % kw, rows.begin, cols.begin);
  }
  ready.walk.flatten();
  return ready;
}

template <class T>
void form_depthwise_tile(const Plan& plan, const T* x, const T* d, int64_t samples, bool add, T* out) {
  const int64_t kw = plan.kernel[1], x_tap = plan.dilation[1] * plan.x.col;
  for (int64_t r = 0; r < plan.kernel[0]; ++r) {
    for (int64_t s = 0; s < kw;) {
      const int64_t n = least(4, kw - s);
      Range rows, cols;
      Walk<T> walk = walk_over(plan, r, s, s + n - 1, d, rows, cols);
      walk.samples = samples;
      walk.add = add;
      walk.x[0] = column_at(plan, x, r, s, rows.begin, cols.begin);
      T* to = out + (r * kw + s) * kLanes<T>;
      switch (n) {
        case 1:
          form_depthwise<T, 1>(walk, x_tap, to);
          break;
        case 2:
          form_depthwise<T, 2>(walk, x_tap, to);
          break;
        case 3:
          form_depthwise<T, 3>(walk, x_tap, to);
          break;
        default:
          form_depthwise<T, 4>(walk, x_tap, to);
      }
      s += n;
    }
  }
}

template <class T>
void form_part(const Plan& plan, const ReadyTile<T>& tile, int64_t first, int64_t samples, bool add, T* out) {
  const int64_t x_offset = first * plan.x.sample, d_offset = first * plan.d.sample;
  if (plan.layout == Layout::kDepthwise) {
    return form_depthwise_tile(plan, tile.x + x_offset, tile.d + d_offset, samples, add, out);
  }
  Walk<T> walk = tile.walk;
  walk.samples = samples;
  walk.add = add;
  walk.d += d_offset;
  for (int64_t n = 0; n < tile.columns; ++n) walk.x[n] += x_offset;
  switch (tile.columns) {
    case 1:
      return form_tile<T, 1>(walk, out);
    case 2:
      return form_tile<T, 2>(walk, out);
    default:
      return form_tile<T, kColumns>(walk, out);
  }
}

// out[v][lane] = the gradient for the weights of a tile, summed over the `samples` packed
// samples from `first` on. Long sums are cut into pieces, because the rounding error of
// one running sum grows with its length.
template <class T>
void form(const Plan& plan, const ReadyTile<T>& tile, int64_t first, int64_t samples, T* out) {
  constexpr int64_t kPositions = 4096;
  const int64_t step = most(1, kPositions / most(1, plan.positions()));
  for (int64_t i = 0; i < samples; i += step) {
    form_part(plan, tile, first + i, least(step, samples - i), i > 0, out);
  }
}

// Sets slack lanes and outputs to zero before they enter norms and products. Where an operand is not finite
// they hold NaN, the product of 0 and infinity.
template <class T>
void clear_slack(const Plan& plan, const ReadyTile<T>& tile, T* gradients) {
  constexpr int L = kLanes<T>;
  const int64_t outputs = plan.used_outputs(tile.bundle);
  for (int64_t n = 0; n < tile.columns; ++n) {
    const int64_t block = tile.bundle.first_block + (tile.first_column + n) % tile.bundle.blocks;
    const int64_t used = plan.used_lanes(block);
    if (used == L && outputs == plan.tile_outputs) continue;
    for (int64_t o = 0; o < plan.tile_outputs; ++o) {
      T* vector = gradients + (n * plan.tile_outputs + o) * L;
      for (int64_t lane = o < outputs ? used : 0; lane < L; ++lane) vector[lane] = T(0);
    }
  }
}

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
