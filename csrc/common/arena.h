// The workspace of one call of a CPU kernel, in pieces. Include only from files compiled per ISA; everything
// lives in the namespace of that ISA.
#pragma once

#include <cstdint>

#include "common/math.h"

namespace pynas::cpu::PYNAS_ISA_NS {

// Hands out pieces of whole cache lines, front to back; with a null base it only adds up their sizes.
class Arena {
 public:
  // gap: bytes left free behind each piece, a multiple of a cache line, for kernels that load whole vectors
  // beyond the end.
  explicit Arena(void* base, int64_t gap = 0)
      : base_(ceil_div(reinterpret_cast<uintptr_t>(base), uintptr_t{kLine}) * kLine),
        gap_(gap),
        counts_(base == nullptr) {}

  template <class T>
  T* take(int64_t count) {
    const uintptr_t at = base_ + static_cast<uintptr_t>(used_);
    used_ += ceil_div(count * static_cast<int64_t>(sizeof(T)), kLine) * kLine + gap_;
    return counts_ ? nullptr : reinterpret_cast<T*>(at);
  }
  // What a workspace must have for the pieces taken so far, wherever it begins.
  int64_t bytes() const { return used_ + kLine; }

 private:
  static constexpr int64_t kLine = 64;
  uintptr_t base_;
  int64_t gap_, used_ = 0;
  bool counts_;
};

}  // namespace pynas::cpu::PYNAS_ISA_NS
