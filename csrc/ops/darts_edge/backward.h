// The backward pass, three sweeps over the samples. See darts_edge.h for the formulas.
//
//   A  per channel sum g, sum g x and sum g (z_k - mean_k) of every term; from these the gradients of mixture
//      weights and normalisations, and dL/dz_k as an affine function of g and z_k
//   B  the second convolutions of the separable candidates, back to BN_1, with the sums for its gradients
//   C  the first convolutions and, with skip and pools, dL/dx
//
// Depthwise outputs and pools are computed again where they are needed. Rows of Scratch::sums:
//
//   slot               sum g (z_slot - mean_slot); for the first stage of a separable candidate, with
//                      dL/dBN_1(z_1) in the place of g
//   kSlots             sum g
//   kSlots + 1         sum g x
//   kSlots + 2 + slot  sum dL/dBN_1(z_1), for the first stages of separable candidates
#pragma once

#include "ops/darts_edge/forward.h"
#include "ops/darts_edge/input_gradient.h"

namespace pynas::cpu::PYNAS_ISA_NS::darts {

// Prefetches what product_gradient_rows reads for sample n.
inline void prefetch_gradient(const Plan& plan, Scratch& s, int slot, int64_t n) {
  if (n < 0) return;
  const int64_t size = plan.pixels * plan.p.channels;
  s.prefetch.add((slot < kSeparable ? plan.inner_gradient[slot] : plan.p.grad_output) + n * size, size);
  prefetch_product(plan, s, slot, n);
}

// dL/dz = slope g + offset + curve (z - mean) for output rows [first, last) of sample n, into
// s.product_gradient. For first stages of separable candidates g is dL/dBN_1(z_1).
inline void product_gradient_rows(const Plan& plan, int slot, const Scratch& s, int64_t n, int64_t first,
                                  int64_t last) {
  const bool inner = slot < kSeparable;
  for (int64_t block = 0; block < plan.blocks; ++block)
    with_lanes(plan.lanes(block), [&](auto lanes) {
      const int64_t from = first * plan.out.width, to = last * plan.out.width;
      const int64_t step = inner ? static_cast<int64_t>(lanes) : plan.p.channels;
      const float* g = inner ? plan.inner_gradient[slot] + plan.product_at(n, block)
                             : plan.p.grad_output + plan.image_at(plan.out, n, block);
      const float* z = plan.stage(slot).product + plan.product_at(n, block);
      float* dz = s.product_gradient + block * plan.chunk_plane;
      V slope, offset, curve, mean;
      plan.affine_gradient[slot].load_at(block, slope, offset, curve, mean);
      for (int64_t i = from; i < to; ++i, dz += kL)
        store(dz, slope * load_channels(g + i * step, lanes) + offset +
                      AffineGradient::bend(curve, load_channels(z + i * lanes, lanes), mean));
    });
}

// From dL/dz in a chunk to the gradient of what the product read: into padded planes, or for the factorised
// reduction right into the image's gradient.
inline void product_backward(const Plan& plan, const Convolution& conv, Scratch& s, int64_t first,
                             int64_t last) {
  const int64_t from = first * plan.out.width, pixels = (last - first) * plan.out.width;
  const auto each_pixel = [&](auto sink) {
    product(conv.backward, s.product_gradient, plan.chunk_plane, pixels,
            [&](int64_t block, int64_t pixel, auto& sums) {
              constexpr int kPixels = std::extent_v<std::remove_reference_t<decltype(sums)>, 0>;
              constexpr int kVectors = std::extent_v<std::remove_reference_t<decltype(sums)>, 1>;
              s.prefetch.step();
              PYNAS_UNROLL_ALL for (int i = 0; i < kPixels; ++i)
                  PYNAS_UNROLL_ALL for (int v = 0; v < kVectors; ++v)
                      sink(block + v, from + pixel + i, sums[i][v]);
            });
  };
  if (conv.reduces)
    each_pixel([&](int64_t block, int64_t pixel, V sum) {
      const int64_t odd = block >= plan.blocks ? 1 : 0;
      const int64_t h = pixel / plan.out.width * 2 + odd, w = pixel % plan.out.width * 2 + odd;
      if (h >= plan.in.height || w >= plan.in.width) return;
      float* to =
          s.image_gradient + (((block - odd * plan.blocks) * plan.in.height + h) * plan.in.width + w) * kL;
      store(to, load(to) + sum);
    });
  else
    each_pixel([&](int64_t block, int64_t pixel, V sum) {
      store(s.gradient + block * plan.out_planes.plane + plan.padded_offset[pixel], sum);
    });
}

// Gradients of one convolution's weights, and (`input`) of its rectified input, which is written to
// s.image_gradient or (`add`) added to it.
inline void convolution_backward(const Plan& plan, int slot, Scratch& s, int64_t n, bool input, bool add) {
  const Convolution& conv = plan.convolutions[slot];
  const bool second = is_second(slot);
  const PaddedPlanes& planes = second ? plan.out_planes : plan.in_planes;
  if (conv.reduces && !add)
    std::memset(s.image_gradient, 0,
                static_cast<size_t>(plan.blocks * plan.in.pixels() * kL) * sizeof(float));
  for (int64_t h = 0; h < plan.out.height; h += plan.chunk_rows) {
    const int64_t end = least(h + plan.chunk_rows, plan.out.height);
    gather_activations(plan, conv, s, h, end);
    product_gradient_rows(plan, slot, s, n, h, end);
    product_gradient(s.product_gradient, plan.chunk_plane, plan.blocks, s.activations, plan.chunk_plane,
                     conv.forward.in_blocks, (end - h) * plan.out.width, s.grad_pointwise[slot]);
    product_backward(plan, conv, s, h, end);
  }
  if (conv.reduces) return;
  with_kernel(conv.size, conv.dilation, conv.stride, [&](auto size, auto dilation, auto stride) {
    const int64_t taps = size * size * kL;
    for (int64_t block = 0; block < plan.blocks; ++block) {
      const float* gradient = s.gradient + block * plan.out_planes.plane;
      const float* rectified = s.rectified + block * planes.plane;
      float* image_gradient = s.image_gradient + block * planes.image.pixels() * kL;
      // Some rows at a time, which the L1 cache holds while every row of the kernel passes over them.
      const int64_t rows = most(1, 128 / plan.out.width);
      for (int64_t h = 0; h < plan.out.height; h += rows) {
        const int64_t end = least(h + rows, plan.out.height);
        depthwise_weight_gradient<size, dilation, stride>(plan.out_planes, gradient, planes, rectified, h,
                                                          end, s.grad_depthwise[slot] + block * taps,
                                                          s.prefetch);
        if (input)
          depthwise_transposed_rows<size, dilation, stride>(
              plan.out_planes, gradient, conv.depthwise + block * taps, h * stride,
              least(end * stride, planes.image.height), planes.image.width, add, image_gradient, s.prefetch);
      }
    }
  });
}

// Adds [rows][kL] float sums of one block to the thread's.
inline void add_sums(const Plan& plan, const Scratch& s, int64_t block, int first_row, int rows,
                     const float* sums) {
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < kL; ++i)
      s.sums[((first_row + r) * plan.blocks + block) * kL + i] += static_cast<double>(sums[r * kL + i]);
}

// Sweep A of sample n.
template <int S>
void reduce_sample(const Plan& plan, const Scratch& s, int64_t n) {
  constexpr int64_t kRows = 16;  // rows that are summed in float32
  const int64_t row = plan.out.width * plan.p.channels;
  for (int64_t block = 0; block < plan.blocks; ++block)
    with_lanes(plan.lanes(block), [&](auto lanes) {
      float sums[(kSlots + 2) * kL] = {};
      const float* x = plan.p.x + plan.image_at(plan.in, n, block);
      const float* g = plan.p.grad_output + plan.image_at(plan.out, n, block);
      for_term_rows<S>(plan, s, n, block, lanes, [&](int64_t h, const Terms& terms) {
        reduce_row(plan, terms, block, lanes, x + h * row, g + h * row, sums);
        if (h % kRows != kRows - 1 && h + 1 != plan.out.height) return;
        add_sums(plan, s, block, 0, kSlots + 2, sums);
        std::memset(sums, 0, sizeof sums);
      });
    });
}

// From dL/drelu(BN_1(z_1)) in s.image_gradient to d = dL/dBN_1(z_1) in
// plan.inner_gradient, with sum d and sum d (z_1 - mean).
inline void rectify_inner_gradient(const Plan& plan, int slot, const Scratch& s, int64_t n) {
  const int64_t width = plan.out.width;
  for (int64_t block = 0; block < plan.blocks; ++block)
    with_lanes(plan.lanes(block), [&](auto lanes) {
      const float* rectified = s.rectified + block * plan.out_planes.plane;
      const float* gradient = s.image_gradient + block * plan.pixels * kL;
      const float* z = plan.stage(slot).product + plan.product_at(n, block);
      float* to = plan.inner_gradient[slot] + plan.product_at(n, block);
      const V mean = load(plan.affine_gradient[slot].mean + block * kL);
      for (int64_t h = 0; h < plan.out.height; ++h) {
        V total = zero<float>(), dot = zero<float>();
        for (int64_t w = 0; w < width; ++w) {
          const int64_t i = h * width + w;
          const V d =
              relu_gradient(load(rectified + plan.out_planes.row(h) + w * kL), load(gradient + i * kL));
          store_channels(to + i * lanes, d, lanes);
          total += d;
          dot += d * (load_channels(z + i * lanes, lanes) - mean);
        }
        float sums[2 * kL];
        store(sums, dot);
        store(sums + kL, total);
        add_sums(plan, s, block, slot, 1, sums);
        add_sums(plan, s, block, kSlots + 2 + slot, 1, sums + kL);
      }
    });
}

// A row of sums, added up over the threads in the scratch of the first.
inline const double* total_row(const Plan& plan, int row) {
  const int64_t width = plan.blocks * kL;
  double* total = plan.scratch[0].sums + row * width;
  for (size_t t = 1; t < plan.scratch.size(); ++t)
    for (int64_t i = 0; i < width; ++i) total[i] += plan.scratch[t].sums[row * width + i];
  return total;
}

inline void write_zeros(float* to, int64_t count) {
  if (to != nullptr && count > 0) std::memset(to, 0, static_cast<size_t>(count) * sizeof(float));
}

// Gradients of candidates that have no part in the mixture.
inline void write_zero_gradients(const Plan& plan) {
  const int64_t C = plan.p.channels;
  for (const DartsCandidateParams& candidate : plan.p.candidates)
    if (candidate.weight == 0.0f || &candidate == &plan.candidate(Candidate::kNone))
      write_zeros(candidate.grad_weight, 1);
  for (int slot = 0; slot < kSlots; ++slot) {
    if (plan.active[slot]) continue;
    const DartsStage& stage = plan.stage(slot);
    const bool reduces = slot == kReduce;
    write_zeros(stage.grad_depthwise, reduces ? 0 : C * kFacts[slot].size * kFacts[slot].size);
    write_zeros(stage.grad_pointwise, reduces ? C / 2 * C : C * C);
    write_zeros(stage.grad_pointwise_2, (C - C / 2) * C);
    write_zeros(stage.norm.grad_gamma, C);
    write_zeros(stage.norm.grad_beta, C);
  }
}

// The threads' gradients of the convolutions' weights, added up into those of the caller.
inline void write_weight_gradients(const Plan& plan) {
  const int64_t C = plan.p.channels, half = C / 2;
  const auto total = [&](float*(Scratch::* gradients)[kConvolutions], int slot, int64_t i) {
    float sum = 0.0f;
    for (const Scratch& s : plan.scratch) sum += (s.*gradients)[slot][i];
    return sum;
  };
  for (int slot = 0; slot < kConvolutions; ++slot) {
    const Convolution& conv = plan.convolutions[slot];
    if (!conv.active) continue;
    const DartsStage& stage = *conv.stage;
    const int64_t taps = conv.reduces ? 0 : conv.size * conv.size, row = conv.forward.in_blocks * kL;
    for (int64_t i = 0; stage.grad_depthwise && i < C * taps; ++i) {
      const int64_t c = i / taps, k = i % taps;
      stage.grad_depthwise[i] = total(&Scratch::grad_depthwise, slot, (c / kL * taps + k) * kL + c % kL);
    }
    for (int64_t o = 0; o < C; ++o) {
      const bool odd = conv.reduces && o >= half;
      float* to = odd ? stage.grad_pointwise_2 : stage.grad_pointwise;
      if (to == nullptr) continue;
      for (int64_t c = 0; c < C; ++c)
        to[(odd ? o - half : o) * C + c] =
            total(&Scratch::grad_pointwise, slot, o * row + (odd ? plan.blocks * kL : 0) + c);
    }
  }
}

inline void backward(Plan& plan, const Parallel& parallel) {
  const DartsEdgeParams& p = plan.p;
  const double count = static_cast<double>(p.samples * plan.pixels);
  if (p.recompute_products) compute_products(plan, parallel, false);
  write_zero_gradients(plan);
  for (int slot = 0; slot < kSlots; ++slot) {
    if (!plan.active[slot]) continue;
    const DartsNorm& norm = plan.stage(slot).norm;
    if (slot < kSeparable) plan.affine[slot].set(norm, p.channels, 1.0f);
    for (int64_t c = 0; c < plan.blocks * kL; ++c)
      plan.affine_gradient[slot].mean[c] = c < p.channels ? norm.mean[c] : 0.0f;
  }
  plan.sweep(
      parallel,
      [&](Scratch& s) {
        for (int64_t i = 0; i < kSumRows * plan.blocks * kL; ++i) s.sums[i] = 0.0;
        if (plan.pools) s.pools.clear(plan.in.width, plan.out.width, p.stride);
        for (int slot = 0; slot < kConvolutions; ++slot) {
          const Convolution& conv = plan.convolutions[slot];
          if (!conv.active) continue;
          write_zeros(s.grad_depthwise[slot], plan.blocks * kL * conv.size * conv.size);
          write_zeros(s.grad_pointwise[slot], conv.forward.size());
        }
        clear_planes(plan, plan.out_planes, s.gradient);
      },
      [&](Scratch& s, int64_t n, int64_t) {
        p.stride == 1 ? reduce_sample<1>(plan, s, n) : reduce_sample<2>(plan, s, n);
      });
  const double* total = total_row(plan, kSlots);
  for (int slot = kSeparable; slot < kSlots; ++slot) {
    if (!plan.active[slot]) continue;
    const double grad = plan.affine_gradient[slot].set(p, plan.stage(slot).norm, plan.weight(slot), count,
                                                       total, total_row(plan, slot));
    if (float* to = plan.candidate(kFacts[slot].candidate).grad_weight) *to = static_cast<float>(grad);
  }
  if (float* to = plan.candidate(Candidate::kSkipConnect).grad_weight; to != nullptr && plan.identity) {
    double grad = 0.0;
    const double* with_x = total_row(plan, kSlots + 1);
    for (int64_t c = 0; c < p.channels; ++c) grad += with_x[c];
    *to = static_cast<float>(grad);
  }
  if (plan.active[kSep3First] || plan.active[kSep5First])
    plan.sweep(
        parallel, [&](Scratch& s) { clear_planes(plan, plan.out_planes, s.rectified); },
        [&](Scratch& s, int64_t n, int64_t next) {
          for (int i = 0; i < kSeparable; ++i) {
            if (!plan.active[i]) continue;
            s.prefetch.clear();
            const int then = plan.active[1 - i] ? 1 - i : i;
            prefetch_product(plan, s, then, then > i ? n : next);
            prefetch_gradient(plan, s, kSep3Second + then, then > i ? n : next);
            rectify_product(plan, i, n, s.rectified);
            convolution_backward(plan, kSep3Second + i, s, n, true, false);
            rectify_inner_gradient(plan, i, s, n);
          }
        });
  for (int i = 0; i < kSeparable; ++i)
    if (plan.active[i])
      plan.affine_gradient[i].set(p, plan.stage(i).norm, 1.0f, count, total_row(plan, kSlots + 2 + i),
                                  total_row(plan, i));
  int slots[kConvolutions], count_of_slots = 0;
  for (int slot = 0; slot < kConvolutions; ++slot)
    if (plan.active[slot] && !is_second(slot)) slots[count_of_slots++] = slot;
  plan.sweep(
      parallel, [&](Scratch& s) { clear_planes(plan, plan.in_planes, s.rectified); },
      [&](Scratch& s, int64_t n, int64_t next) {
        if (count_of_slots > 0) rectify_input(plan, n, s.rectified);
        for (int i = 0; i < count_of_slots; ++i) {
          const bool last = i + 1 == count_of_slots;
          s.prefetch.clear();
          if (last) prefetch_input(plan, s, next);
          prefetch_gradient(plan, s, slots[last ? 0 : i + 1], last ? next : n);
          convolution_backward(plan, slots[i], s, n, p.grad_x != nullptr, i > 0);
        }
        if (p.grad_x != nullptr)
          p.stride == 1 ? input_gradient<1>(plan, s, n, count_of_slots > 0)
                        : input_gradient<2>(plan, s, n, count_of_slots > 0);
      });
  write_weight_gradients(plan);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS::darts
