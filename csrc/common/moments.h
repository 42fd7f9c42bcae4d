// The sums over the gradients g_b of sample groups b that a kernel can be asked for.
// Results lie in the order of the bits.
#pragma once

#include <cstdint>

namespace pynas {

enum Moment : uint32_t {
  kMomentSum = 1u << 0,       // sum_b g_b
  kMomentAbs = 1u << 1,       // sum_b |g_b|
  kMomentSquare = 1u << 2,    // sum_b g_b^2
  kMomentSign = 1u << 3,      // sum_b sign(g_b), sign(0) = 0
  kMomentCentered = 1u << 4,  // sum_b (g_b - mean g)^2
  kMomentAll = 31u,
};
constexpr int kNumMoments = 5;

constexpr int count_moments(uint32_t mask) {
  int count = 0;
  for (int bit = 0; bit < kNumMoments; ++bit) count += static_cast<int>(mask >> bit & 1u);
  return count;
}

// Row of `moment` in a result that holds only the moments of `mask`.
constexpr int moment_row(uint32_t mask, Moment moment) { return count_moments(mask & (moment - 1u)); }

}  // namespace pynas
