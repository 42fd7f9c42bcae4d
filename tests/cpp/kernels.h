// The kernels under test: those of CUDA, under emulation, or those of the instruction set that PYNAS_ISA_NS
// names. Where both take the same arguments a test calls kernels::name(params, check::kWhere).
#pragma once

#include <algorithm>

#include "common/dtype.h"
#include "common/parallel.h"

#if defined(PYNAS_ISA_NS)
namespace pynas::cpu::PYNAS_ISA_NS {}
namespace kernels = pynas::cpu::PYNAS_ISA_NS;
#else
namespace pynas::cuda {}
namespace kernels = pynas::cuda;
#endif

namespace check {

#if defined(PYNAS_ISA_NS)
// The ranges that three threads would take, the last first.
inline void run_ranges(int64_t tasks, int64_t grain, pynas::Parallel::Body body, void* context) {
  const int64_t size = std::max(grain, (tasks + 2) / 3);
  for (int64_t range = (tasks - 1) / size; range >= 0; --range)
    body(context, range * size, std::min(tasks, (range + 1) * size));
}
constexpr pynas::Parallel kWhere{3, run_ranges};
constexpr bool kCpu = true;
#else
constexpr void* kWhere = nullptr;  // the default stream
constexpr bool kCpu = false;
#endif

// Whether kernels without float16 on the CPU, whose bindings widen it, take the dtype here.
constexpr bool unless_half(pynas::DType dtype) { return !kCpu || dtype != pynas::DType::kFloat16; }

}  // namespace check
