// The forward pass, three sweeps over the samples, with the statistics of the
// normalisations finished between them:
//
//   1  relu(x), every first convolution, the pools' statistics
//   2  the second convolutions of the separable candidates
//   3  the weighted sum
//
// Within a sweep a thread takes one image after the other, which its L2 cache holds; some rows of depthwise
// output at a time go through the L1 cache into the product.
#pragma once

#include "ops/darts_edge/terms.h"

namespace pynas::cpu::PYNAS_ISA_NS::darts {

inline void clear_planes(const Plan& plan, const PaddedPlanes& planes, float* to) {
  std::memset(to, 0, static_cast<size_t>(plan.blocks * planes.plane) * sizeof(float));
}

// Prefetch what the computation of sample n will read; nothing where n < 0.
inline void prefetch_input(const Plan& plan, Scratch& s, int64_t n) {
  if (n >= 0) s.prefetch.add(plan.p.x + plan.image_at(plan.in, n, 0), plan.in.pixels() * plan.p.channels);
}
inline void prefetch_product(const Plan& plan, Scratch& s, int slot, int64_t n) {
  if (n >= 0) s.prefetch.add(plan.stage(slot).product + plan.product_at(n, 0), plan.pixels * plan.p.channels);
}

// relu(x) of sample n into padded planes.
inline void rectify_input(const Plan& plan, int64_t n, float* planes) {
  const int64_t step = plan.p.channels, width = plan.in.width;
  for (int64_t block = 0; block < plan.blocks; ++block)
    with_lanes(plan.lanes(block), [&](auto lanes) {
      const float* x = plan.p.x + plan.image_at(plan.in, n, block);
      float* to = planes + block * plan.in_planes.plane;
      for (int64_t h = 0; h < plan.in.height; ++h)
        for (int64_t w = 0; w < width; ++w)
          store(to + plan.in_planes.row(h) + w * kL, relu(load_channels(x + (h * width + w) * step, lanes)));
    });
}

// relu(BN(z)) = max(scale z + offset, 0) of sample n into padded planes.
inline void rectify_product(const Plan& plan, int slot, int64_t n, float* planes) {
  const int64_t width = plan.out.width;
  for (int64_t block = 0; block < plan.blocks; ++block)
    with_lanes(plan.lanes(block), [&](auto lanes) {
      const float* z = plan.stage(slot).product + plan.product_at(n, block);
      float* to = planes + block * plan.out_planes.plane;
      const V scale = load(plan.affine[slot].scale + block * kL),
              offset = load(plan.affine[slot].offset + block * kL);
      for (int64_t h = 0; h < plan.out.height; ++h)
        for (int64_t w = 0; w < width; ++w)
          store(to + plan.out_planes.row(h) + w * kL,
                relu(scale * load_channels(z + (h * width + w) * lanes, lanes) + offset));
    });
}

// What a product reads for output rows [first, last), into s.activations: depthwise
// convolutions of the rectified planes, or for the factorised reduction the even pixels
// and, in as many blocks behind them, the odd ones.
inline void gather_activations(const Plan& plan, const Convolution& conv, Scratch& s, int64_t first,
                               int64_t last) {
  const PaddedPlanes& planes = conv.stride == plan.p.stride ? plan.in_planes : plan.out_planes;
  for (int64_t block = 0; block < plan.blocks; ++block) {
    const float* from = s.rectified + block * planes.plane;
    float* to = s.activations + block * plan.chunk_plane;
    if (!conv.reduces) {
      with_kernel(conv.size, conv.dilation, conv.stride, [&](auto size, auto dilation, auto stride) {
        depthwise_rows<size, dilation, stride>(planes, from,
                                               conv.depthwise + block * conv.size * conv.size * kL, first,
                                               last, plan.out.width, to, s.prefetch);
      });
      continue;
    }
    float* odd = to + plan.blocks * plan.chunk_plane;
    for (int64_t h = first; h < last; ++h) {
      const bool inside = 2 * h + 1 < plan.in.height;
      for (int64_t w = 0; w < plan.out.width; ++w, to += kL, odd += kL) {
        store(to, load(from + planes.row(2 * h) + 2 * w * kL));
        store(odd, inside ? load(from + planes.row(2 * h + 1) + (2 * w + 1) * kL) : zero<float>());
      }
    }
  }
}

// z for output rows [first, last) of sample n and, with `statistics`, its sums in s.moments.
inline void convolve_rows(const Plan& plan, int slot, Scratch& s, int64_t n, int64_t first, int64_t last,
                          bool statistics) {
  const Convolution& conv = plan.convolutions[slot];
  gather_activations(plan, conv, s, first, last);
  Moments& moments = s.moments[slot];
  const int64_t from = first * plan.out.width, pixels = (last - first) * plan.out.width;
  product(
      conv.forward, s.activations, plan.chunk_plane, pixels, [&](int64_t block, int64_t pixel, auto& sums) {
        constexpr int kPixels = std::extent_v<std::remove_reference_t<decltype(sums)>, 0>;
        constexpr int kVectors = std::extent_v<std::remove_reference_t<decltype(sums)>, 1>;
        PYNAS_UNROLL_ALL for (int v = 0; v < kVectors; ++v) {
          const int lanes = plan.lanes(block + v);
          float* z = conv.stage->product + plan.product_at(n, block + v) + (from + pixel) * lanes;
          if (lanes == kL) {
            PYNAS_UNROLL_ALL for (int i = 0; i < kPixels; ++i) {
              store(z + i * kL, sums[i][v]);
              __builtin_prefetch(z + (3 * kPixels + i) * kL, 1, 2);  // a line is fetched before it is written
            }
          } else {
            for (int i = 0; i < kPixels; ++i) store_channels(z + i * lanes, sums[i][v], lanes);
          }
          if (statistics) moments.add<kPixels>(block + v, pixel == 0, [&](int i) { return sums[i][v]; });
        }
      });
  if (statistics) moments.flush_all(pixels);
}

// Statistics of the pools of sample n.
template <int S>
void pool_statistics(const Plan& plan, Scratch& s, int64_t n) {
  constexpr int64_t kRows = 16;  // rows that are summed in float32
  for (int64_t block = 0; block < plan.blocks; ++block)
    with_lanes(plan.lanes(block), [&](auto lanes) {
      for_term_rows<S>(plan, s, n, block, lanes, [&](int64_t h, const Terms&) {
        for (int slot : {kMaxPool, kAvgPool}) {
          if (!plan.active[slot]) continue;
          const float* row = slot == kMaxPool ? s.pools.max : s.pools.mean;
          int64_t w = 0;
          const auto add = [&](auto count) {
            s.moments[slot].template add<decltype(count)::value>(
                block, h == 0 && w == 0, [&](int i) { return load_channels(row + (w + i) * lanes, lanes); });
          };
          for (; w + 8 <= plan.out.width; w += 8) add(std::integral_constant<int, 8>{});
          for (; w < plan.out.width; ++w) add(std::integral_constant<int, 1>{});
          if (h % kRows == kRows - 1) s.moments[slot].flush(block);
        }
      });
    });
  for (int slot : {kMaxPool, kAvgPool})
    if (plan.active[slot]) s.moments[slot].flush_all(plan.pixels);
}

// Sweeps 1 and 2. With `statistics` mean and rstd of every normalisation are computed;
// without, they are given.
inline void compute_products(Plan& plan, const Parallel& parallel, bool statistics) {
  const auto finish = [&](int slot) {
    const DartsNorm& norm = plan.stage(slot).norm;
    if (!plan.active[slot]) return;
    if (statistics)
      finish_statistics(plan.p, norm, plan.threads, [&](int t) -> const Moments& {
        return plan.scratch[static_cast<size_t>(t)].moments[slot];
      });
    plan.affine[slot].set(norm, plan.p.channels, slot < kSeparable ? 1.0f : plan.weight(slot));
  };
  plan.sweep(
      parallel,
      [&](Scratch& s) {
        clear_planes(plan, plan.in_planes, s.rectified);
        if (plan.pools) s.pools.clear(plan.in.width, plan.out.width, plan.p.stride);
        for (int slot = 0; slot < kSlots; ++slot)
          if (statistics && plan.active[slot]) s.moments[slot].clear();
      },
      [&](Scratch& s, int64_t n, int64_t next) {
        s.prefetch.clear();
        prefetch_input(plan, s, next);
        rectify_input(plan, n, s.rectified);
        for (int64_t h = 0; h < plan.out.height; h += plan.chunk_rows)
          for (int slot = 0; slot < kConvolutions; ++slot)
            if (plan.active[slot] && !is_second(slot))
              convolve_rows(plan, slot, s, n, h, least(h + plan.chunk_rows, plan.out.height), statistics);
        if (plan.pools && statistics)
          plan.p.stride == 1 ? pool_statistics<1>(plan, s, n) : pool_statistics<2>(plan, s, n);
      });
  for (int slot = 0; slot < kSlots; ++slot)
    if (!is_second(slot)) finish(slot);
  if (!plan.active[kSep3Second] && !plan.active[kSep5Second]) return;
  plan.sweep(
      parallel, [&](Scratch& s) { clear_planes(plan, plan.out_planes, s.rectified); },
      [&](Scratch& s, int64_t n, int64_t next) {
        for (int i = 0; i < kSeparable; ++i) {
          if (!plan.active[i]) continue;
          s.prefetch.clear();
          const int then = plan.active[1 - i] ? 1 - i : i;
          prefetch_product(plan, s, then, then > i ? n : next);
          rectify_product(plan, i, n, s.rectified);
          for (int64_t h = 0; h < plan.out.height; h += plan.chunk_rows)
            convolve_rows(plan, kSep3Second + i, s, n, h, least(h + plan.chunk_rows, plan.out.height),
                          statistics);
        }
      });
  finish(kSep3Second);
  finish(kSep5Second);
}

// Sweep 3 of sample n.
template <int S>
void combine_sample(const Plan& plan, const Scratch& s, int64_t n) {
  const int64_t row = plan.out.width * plan.p.channels;
  for (int64_t block = 0; block < plan.blocks; ++block)
    with_lanes(plan.lanes(block), [&](auto lanes) {
      const float* x = plan.p.x + plan.image_at(plan.in, n, block);
      float* y = plan.p.out + plan.image_at(plan.out, n, block);
      for_term_rows<S>(plan, s, n, block, lanes, [&](int64_t h, const Terms& terms) {
        combine_row(plan, terms, block, lanes, x + h * row, y + h * row);
      });
    });
}

inline void forward(Plan& plan, const Parallel& parallel) {
  const DartsEdgeParams& p = plan.p;
  if (!p.batch_statistics)
    for (int slot = 0; slot < kSlots; ++slot)
      if (plan.active[slot]) take_running_statistics(p, plan.stage(slot).norm);
  compute_products(plan, parallel, p.batch_statistics);
  for (int64_t i = 0; i < plan.blocks * kL; ++i) {
    plan.offset[i] = 0.0f;
    for (int slot = kSeparable; slot < kSlots; ++slot)
      if (plan.active[slot]) plan.offset[i] += plan.affine[slot].offset[i];
  }
  plan.sweep(
      parallel, [](Scratch&) {},
      [&](Scratch& s, int64_t n, int64_t) {
        p.stride == 1 ? combine_sample<1>(plan, s, n) : combine_sample<2>(plan, s, n);
      });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS::darts
