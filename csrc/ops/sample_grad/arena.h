// The workspace of one call, in pieces. Include only from sample_grad_cpu.cpp, once per instruction set.
#pragma once

#include "ops/sample_grad/plan.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

// Hands out pieces of whole cache lines, front to back; with a null base it only adds up their sizes.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <class U>
  U* take(int64_t n) {
    U* result = base_ == nullptr ? nullptr : reinterpret_cast<U*>(base_ + used_);
    used_ += divide_up(n * static_cast<int64_t>(sizeof(U)), 64) * 64 + 64;
    return result;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
