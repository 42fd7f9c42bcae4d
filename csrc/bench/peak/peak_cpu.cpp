#include "bench/peak/peak.h"

#include "common/fold.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

constexpr int kChains = 12;  // hides the latency of two multiply-add units, fits 16 registers

}  // namespace

void multiply_adds(const PeakParams& params, const Parallel& parallel) {
  constexpr int L = kLanes<float>;
  parallel(parallel.threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      Vec<float> chain[kChains];
      PYNAS_UNROLL for (int i = 0; i < kChains; ++i) chain[i] = broadcast(static_cast<float>(i));
      volatile float half = 0.5f, one = 1.0f;  // unknown to the compiler
      const Vec<float> factor = broadcast<float>(half), term = broadcast<float>(one);
      for (int64_t round = 0; round < params.rounds; ++round) {
        PYNAS_UNROLL for (int i = 0; i < kChains; ++i) chain[i] = chain[i] * factor + term;
      }
      PYNAS_UNROLL for (int i = 0; i < kChains; ++i) asm volatile("" : : "m"(chain[i]));
    }
  });
  *params.result = 2.0 * kChains * L * static_cast<double>(params.rounds) * parallel.threads;
}

void read_memory(const PeakParams& params, const Parallel& parallel) {
  constexpr int64_t kStep = kChains * kLanes<float>;
  parallel(params.count / kStep, 1024, [&](int64_t begin, int64_t end) {
    Vec<float> totals[kChains] = {};
    for (const float *at = params.values + begin * kStep, *stop = params.values + end * kStep; at < stop;
         at += kStep) {
      PYNAS_UNROLL for (int i = 0; i < kChains; ++i) totals[i] += load(at + i * kLanes<float>);
    }
    PYNAS_UNROLL for (int i = 0; i < kChains; ++i) asm volatile("" : : "m"(totals[i]));
  });
  *params.result = 4.0 * static_cast<double>(params.count / kStep * kStep);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
