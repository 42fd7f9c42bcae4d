// From a plan's tile to its gradient: pointers, ranges and the kernel that runs. Include only from
// sample_grad_cpu.cpp, once per instruction set.
#pragma once

#include "ops/sample_grad/plan.h"
#include "ops/sample_grad/tile.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

// Output positions [rows] x [cols] that columns with taps (r, s) .. (r, last_s) need.
template <class T>
Walk<T> walk_over(const Plan& plan, const Bundle& b, int64_t r, int64_t s, int64_t last_s, int64_t samples, const T* d,
                  Range& rows, Range& cols) {
  rows = plan.valid(0, r);
  cols = {plan.valid(1, last_s).begin, plan.valid(1, s).end};
  const int64_t plane = plan.layout == Layout::kDepthwise ? b.first_block * plan.out_blocks + b.out_block
                                                          : b.group * plan.out_blocks + b.out_block;
  Walk<T> walk{};
  walk.d = d + plane * plan.d.plane + rows.begin * plan.d.row + cols.begin * plan.d.col;
  walk.samples = samples;
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

template <class T>
const T* column_at(const Plan& plan, const T* x, int64_t block, int64_t r, int64_t s, int64_t h, int64_t w) {
  const int64_t y = h * plan.stride[0] + r * plan.dilation[0] - plan.padding[0];
  const int64_t column = w * plan.stride[1] + s * plan.dilation[1] - plan.padding[1] + plan.x_pad[0];
  return x + block * plan.x.plane + y * plan.x.row + column * plan.x.col;
}

template <class T>
void form_depthwise_tile(const Plan& plan, const Bundle& b, const T* x, const T* d, int64_t samples, T* out) {
  const int64_t kw = plan.kernel[1], x_tap = plan.dilation[1] * plan.x.col;
  for (int64_t r = 0; r < plan.kernel[0]; ++r) {
    for (int64_t s = 0; s < kw;) {
      const int64_t n = smaller(4, kw - s);
      Range rows, cols;
      Walk<T> walk = walk_over(plan, b, r, s, s + n - 1, samples, d, rows, cols);
      walk.x[0] = column_at(plan, x, b.first_block, r, s, rows.begin, cols.begin);
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

// out[v][lane] = the gradient of `samples` consecutive samples for the weights of a tile.
template <class T>
void form(const Plan& plan, const Bundle& b, const Tile& tile, const T* x, const T* d, int64_t samples, T* out) {
  if (plan.layout == Layout::kDepthwise) return form_depthwise_tile(plan, b, x, d, samples, out);
  const int64_t kw = plan.kernel[1], tap = tile.first_column / b.blocks;
  const int64_t last_tap = (tile.first_column + tile.columns - 1) / b.blocks;
  const int64_t r = tap / kw;
  Range rows, cols;
  Walk<T> walk = walk_over(plan, b, r, tap % kw, last_tap % kw, samples, d, rows, cols);
  for (int64_t n = 0; n < tile.columns; ++n) {
    const int64_t column = tile.first_column + n, block = b.group * plan.blocks + b.first_block + column % b.blocks;
    walk.x[n] = column_at(plan, x, block, r, column / b.blocks % kw, rows.begin, cols.begin);
  }
  walk.flatten();
  switch (tile.columns) {
    case 1:
      return form_tile<T, 1>(walk, out);
    case 2:
      return form_tile<T, 2>(walk, out);
    default:
      return form_tile<T, kColumns>(walk, out);
  }
}

// Slack lanes and outputs hold 0 x inf = NaN where an operand is not finite: nothing that a norm may add up.
template <class T>
void clear_slack(const Plan& plan, const Bundle& b, const Tile& tile, T* gradients) {
  constexpr int L = kLanes<T>;
  const int64_t outputs = plan.used_outputs(b);
  for (int64_t n = 0; n < tile.columns; ++n) {
    const int64_t used = plan.used_lanes(b.first_block + (tile.first_column + n) % b.blocks);
    if (used == L && outputs == plan.tile_outputs) continue;
    for (int64_t o = 0; o < plan.tile_outputs; ++o) {
      T* vector = gradients + (n * plan.tile_outputs + o) * L;
      for (int64_t lane = o < outputs ? used : 0; lane < L; ++lane) vector[lane] = T(0);
    }
  }
}

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
