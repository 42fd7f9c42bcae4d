// dL/dx of one sample: what came through relu from the convolutions, through the pools, and through skip.
#pragma once

#include "ops/darts_edge/terms.h"

namespace pynas::cpu::PYNAS_ISA_NS::darts {

// Adds what the gradient of a pooled row gives to those of the maxima and sums of the rows in its window.
template <class Lanes>
PYNAS_INLINE void pools_backward_row(const Plan& plan, const PoolScratch& s, int64_t block, Lanes lanes,
                                     int64_t h, const PoolWindow& window, const float* g) {
  const int64_t step = plan.p.channels, top = h * plan.p.stride - 1;
  V slope, offset, curve, mean;
  if (plan.active[kMaxPool]) {
    plan.affine_gradient[kMaxPool].load_at(block, slope, offset, curve, mean);
    const bool above = top >= 0, below = top + 2 < plan.in.height;
    const float *first = above ? window.max[0] : s.never, *last = below ? window.max[2] : s.never;
    float* rows[3];
    for (int i = 0; i < 3; ++i) rows[i] = s.row_max_gradient[(top + i + kRing) % kRing];
    for (int64_t w = 0; w < plan.out.width; ++w) {
      const V maximum = load(s.max + w * lanes);
      const V d =
          slope * load_channels(g + w * step, lanes) + offset + AffineGradient::bend(curve, maximum, mean);
      const Routed to = route(maximum, load(first + w * kL), load(window.max[1] + w * kL),
                              load(last + w * kL), above, below, d);
      store(rows[0] + w * kL, load(rows[0] + w * kL) + to.a);
      store(rows[1] + w * kL, load(rows[1] + w * kL) + to.b);
      store(rows[2] + w * kL, load(rows[2] + w * kL) + to.c);
    }
  }
  if (plan.active[kAvgPool]) {
    plan.affine_gradient[kAvgPool].load_at(block, slope, offset, curve, mean);
    const V inverse_rows = broadcast(1.0f / static_cast<float>(window.last - window.first + 1));
    for (int64_t w = 0; w < plan.out.width; ++w) {
      const V d = slope * load_channels(g + w * step, lanes) + offset +
                  AffineGradient::bend(curve, load(s.mean + w * lanes), mean);
      const V share = d * (inverse_rows * broadcast(s.inverse_columns[w]));
      for (int64_t row = window.first; row <= window.last; ++row) {
        float* to = s.row_sum_gradient[row % kRing] + w * kL;
        store(to, load(to) + share);
      }
    }
  }
}

// From the gradients of the maxima and sums over columns in one row of x to those of its pixels, in s.spread.
// Contributions to a pixel that later windows still add to wait in registers.
template <int S, class Lanes>
PYNAS_INLINE void pools_backward_columns(const PoolScratch& s, int64_t ring, const float* x, int64_t step,
                                         Lanes lanes, int64_t in_width, int64_t out_width) {
  const V never = broadcast(std::numeric_limits<float>::quiet_NaN());
  const float *maxima = s.row_max[ring], *of_max = s.row_max_gradient[ring],
              *of_sum = s.row_sum_gradient[ring];
  float* to = s.spread + kL;  // a window's left column may lie outside
  V waiting = zero<float>(), last = zero<float>();
  for (int64_t w = 0; w < out_width; ++w) {
    const bool inside_left = w > 0, inside_right = w * S + 1 < in_width;
    const auto pixel = [&](int64_t column) { return load_channels(x + column * step, lanes); };
    const V sum = load(of_sum + w * kL);
    const Routed max =
        route(load(maxima + w * kL), inside_left ? pixel(w * S - 1) : never, pixel(w * S),
              inside_right ? pixel(w * S + 1) : never, inside_left, inside_right, load(of_max + w * kL));
    store(to + (w * S - 1) * kL, waiting + max.a + sum);
    if (S == 1) {
      waiting = last + max.b + sum;
      last = max.c + sum;
    } else {
      store(to + w * S * kL, max.b + sum);
      waiting = max.c + sum;
    }
  }
  store(to + (S == 1 ? out_width - 1 : out_width * S - 1) * kL, waiting);
}

// Over a row of pixels, with the first term where there are convolutions, the second at stride 1 and the
// third where there are pools:
//   dL/dx_c = [x_c > 0] image_gradient_c + w_skip g_c + spread_c
template <bool kPools, class Lanes>
PYNAS_INLINE void write_gradient_row(const Plan& plan, const Scratch& s, bool convolutions, Lanes lanes,
                                     const float* x, const float* g, const float* image_gradient, float* to) {
  const int64_t step = plan.p.channels;
  const V skip = broadcast(plan.identity ? plan.weight(kReduce) : 0.0f);
  for (int64_t w = 0; w < plan.in.width; ++w) {
    V d = zero<float>();
    if constexpr (kPools) d = load(s.pools.spread + (w + 1) * kL);
    if (convolutions) d += relu_gradient(load_channels(x + w * step, lanes), load(image_gradient + w * kL));
    if (plan.identity) d += skip * load_channels(g + w * step, lanes);
    store_channels(to + w * step, d, lanes);
  }
}

// dL/dx of sample n. convolutions: whether s.image_gradient holds dL/drelu(x).
template <int S>
void input_gradient(const Plan& plan, const Scratch& s, int64_t n, bool convolutions) {
  const int64_t step = plan.p.channels, width = plan.in.width;
  for (int64_t block = 0; block < plan.blocks; ++block)
    with_lanes(plan.lanes(block), [&](auto lanes) {
      const float* x = plan.p.x + plan.image_at(plan.in, n, block);
      const float* g = plan.p.grad_output + plan.image_at(plan.out, n, block);
      const float* image_gradient = s.image_gradient + block * plan.in.pixels() * kL;
      float* to = plan.p.grad_x + plan.image_at(plan.in, n, block);
      if (!plan.pools) {
        for (int64_t h = 0; h < plan.in.height; ++h)
          write_gradient_row<false>(plan, s, convolutions, lanes, x + h * width * step, g + h * width * step,
                                    image_gradient + h * width * kL, to + h * width * step);
        return;
      }
      int64_t started = 0, finished = 0;
      pool_rows<S>(s.pools, x, step, lanes, plan.in, plan.out, [&](int64_t h, const PoolWindow& window) {
        for (; started <= window.last; ++started) {
          const size_t bytes = static_cast<size_t>(plan.out.width * kL) * sizeof(float);
          std::memset(s.pools.row_max_gradient[started % kRing], 0, bytes);
          std::memset(s.pools.row_sum_gradient[started % kRing], 0, bytes);
        }
        pools_backward_row(plan, s.pools, block, lanes, h, window, g + h * plan.out.width * step);
        const int64_t end = h + 1 == plan.out.height ? plan.in.height : (h + 1) * S - 1;
        for (; finished < end; ++finished) {
          const int64_t at = finished * width;
          pools_backward_columns<S>(s.pools, finished % kRing, x + at * step, step, lanes, width,
                                    plan.out.width);
          write_gradient_row<true>(plan, s, convolutions, lanes, x + at * step, g + at * step,
                                   image_gradient + at * kL, to + at * step);
        }
      });
    });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS::darts
