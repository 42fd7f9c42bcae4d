// Rows of normalised terms: summed into the output, and reduced against its gradient. All terms of a row lie
// alike, with pixels of one block `lanes` floats apart; in images, pixels lie all channels apart.
#pragma once

#include "ops/darts_edge/plan.h"

namespace pynas::cpu::PYNAS_ISA_NS::darts {

constexpr int kMostTerms = 7;  // two separable, two dilated, two pools, and the factorised reduction

// The normalised terms of the mixture, of one block: where they lie and in which slots.
struct Terms {
  int count = 0;
  int slot[kMostTerms];
  const float* row[kMostTerms];

  // Products start at `pixel` of sample n; pools are rows of their scratch.
  Terms(const Plan& plan, const Scratch& s, int64_t n, int64_t block, int64_t pixel) {
    for (int k = 0; k < kSlots; ++k) {
      if (!plan.active[k] || k == kSep3First || k == kSep5First) continue;
      slot[count] = k;
      row[count++] = k == kMaxPool ? s.pools.max
                     : k == kAvgPool
                         ? s.pools.mean
                         : plan.stage(k).product + plan.product_at(n, block) + pixel * plan.lanes(block);
    }
  }
};

// Calls body with the number of terms as a constant.
template <int kLeft = kMostTerms, class F>
PYNAS_INLINE void with_count(int count, F body) {
  if constexpr (kLeft == 0) {
    body(std::integral_constant<int, 0>{});
  } else {
    if (count == kLeft)
      body(std::integral_constant<int, kLeft>{});
    else
      with_count<kLeft - 1>(count, body);
  }
}

// y_c = w_skip x_c + offset_c + sum_k scale_kc term_kc over a row; the first term at stride 1 only.
template <class Lanes>
void combine_row(const Plan& plan, const Terms& terms, int64_t block, Lanes lanes, const float* x, float* y) {
  const int64_t width = plan.out.width, step = plan.p.channels;
  const V offset = load(plan.offset + block * kL);
  const V skip = broadcast(plan.identity ? plan.weight(kReduce) : 0.0f);
  with_count(terms.count, [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    V scale[kCount + 1];
    const float* row[kCount + 1];
    PYNAS_UNROLL_ALL for (int k = 0; k < kCount; ++k) {
      scale[k] = load(plan.affine[terms.slot[k]].scale + block * kL);
      row[k] = terms.row[k];
    }
    const auto sum = [&](int64_t w, V even) {
      V odd = zero<float>();
      PYNAS_UNROLL_ALL for (int k = 0; k < kCount; ++k) {
        V& half = k % 2 ? odd : even;
        half += scale[k] * load_channels(row[k] + w * lanes, lanes);
      }
      store_channels(y + w * step, even + odd, lanes);
    };
    if (plan.identity)
      for (int64_t w = 0; w < width; ++w) sum(w, offset + skip * load_channels(x + w * step, lanes));
    else
      for (int64_t w = 0; w < width; ++w) sum(w, offset);
  });
}

// Adds a row to sums [kSlots + 2][kL]:
//   sums[slot]       += sum_w g (term - mean)
//   sums[kSlots]     += sum_w g
//   sums[kSlots + 1] += sum_w g x                (stride 1)
template <class Lanes>
void reduce_row(const Plan& plan, const Terms& terms, int64_t block, Lanes lanes, const float* x,
                const float* g, float* sums) {
  const int64_t width = plan.out.width, step = plan.p.channels;
  with_count(terms.count, [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    V mean[kCount + 1], dot[kCount + 1];
    const float* row[kCount + 1];
    PYNAS_UNROLL_ALL for (int k = 0; k < kCount; ++k) {
      mean[k] = load(plan.affine_gradient[terms.slot[k]].mean + block * kL);
      dot[k] = load(sums + terms.slot[k] * kL);
      row[k] = terms.row[k];
    }
    V total = load(sums + kSlots * kL), skip = load(sums + (kSlots + 1) * kL);
    const auto add = [&](int64_t w) {
      const V gradient = load_channels(g + w * step, lanes);
      total += gradient;
      PYNAS_UNROLL_ALL for (int k = 0; k < kCount; ++k) dot[k] +=
          gradient * (load_channels(row[k] + w * lanes, lanes) - mean[k]);
      return gradient;
    };
    if (plan.identity)
      for (int64_t w = 0; w < width; ++w) skip += add(w) * load_channels(x + w * step, lanes);
    else
      for (int64_t w = 0; w < width; ++w) add(w);
    PYNAS_UNROLL_ALL for (int k = 0; k < kCount; ++k) store(sums + terms.slot[k] * kL, dot[k]);
    store(sums + kSlots * kL, total);
    store(sums + (kSlots + 1) * kL, skip);
  });
}

// Calls body(row of the output, terms) for every row of a block, pools computed where there are any.
template <int S, class Lanes, class F>
PYNAS_INLINE void for_term_rows(const Plan& plan, const Scratch& s, int64_t n, int64_t block, Lanes lanes,
                                F body) {
  const auto row = [&](int64_t h) { body(h, Terms(plan, s, n, block, h * plan.out.width)); };
  if (plan.pools)
    pool_rows<S>(s.pools, plan.p.x + plan.image_at(plan.in, n, block), plan.p.channels, lanes, plan.in,
                 plan.out, [&](int64_t h, const PoolWindow&) { row(h); });
  else
    for (int64_t h = 0; h < plan.out.height; ++h) row(h);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS::darts
