// What the processor can do at best, for the roofline bounds that benchmarks report. Callers time them:
//
//   multiply_adds   chain_i = chain_i / 2 + 1, `rounds` times for independent vectors i that hide the latency
//   read_memory     the sum of `count` values
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

struct PeakParams {
  int64_t rounds = 0;             // of multiply_adds
  const float* values = nullptr;  // of read_memory
  int64_t count = 0;              // values to read
  double* result = nullptr;       // floating-point operations done, or bytes read
};

namespace cpu {
PYNAS_DECLARE_PER_ISA(void multiply_adds(const PeakParams&, const Parallel&))
PYNAS_DECLARE_PER_ISA(void read_memory(const PeakParams&, const Parallel&))
}  // namespace cpu

}  // namespace pynas
