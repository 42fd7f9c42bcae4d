#include "common/simd.h"
#include "common/visit.h"
#include "ops/moments_update/moments_update.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

// One read of g, one read and one write of each state: 28 bytes an element in float32, so memory-bound. The
// update is fused because three separate torch expressions would move the same bytes about four times.
template <class G, class T>
void update(const MomentsUpdateParams& p, int64_t begin, int64_t end) {
  const G* grad = static_cast<const G*>(p.grad);
  T* mean = static_cast<T*>(p.mean);
  T* abs_mean = static_cast<T*>(p.abs_mean);
  T* m2 = static_cast<T*>(p.m2);
  const T weight = T(1) / static_cast<T>(p.count);
#pragma GCC ivdep
  for (int64_t i = begin; i < end; ++i) {
    const T g = to_float(grad[i]);
    const T delta = g - mean[i];
    const T updated = mean[i] + delta * weight;
    mean[i] = updated;
    abs_mean[i] += ((g < T(0) ? -g : g) - abs_mean[i]) * weight;
    m2[i] += delta * (g - updated);
  }
}

}  // namespace

void moments_update(const MomentsUpdateParams& p, const Parallel& parallel) {
  visit_dtype(p.grad_dtype, [&](auto types) {
    using Chosen = decltype(types);
    parallel(p.n, 16384, [&](int64_t begin, int64_t end) {
      update<typename Chosen::In, typename Chosen::Sum>(p, begin, end);
    });
  });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
