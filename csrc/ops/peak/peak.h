// What the processor can do at best, for the floors that benchmarks report: multiply-adds that wait for
// nothing, and a pass over memory that does nothing else. Callers time them.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct PeakParams {
  int64_t rounds = 0;             // of multiply_adds
  const float* values = nullptr;  // of read_memory
  int64_t count = 0;              // values to read
  double* result = nullptr;       // floating-point operations done; bytes read
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void multiply_adds(const PeakParams&, const Parallel&))
PYNAS_DECLARE_PER_ISA(void read_memory(const PeakParams&, const Parallel&))
}  // namespace cpu

}  // namespace pynas
