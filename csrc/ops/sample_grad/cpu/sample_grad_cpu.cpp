#include "ops/sample_grad/sample_grad.h"

#include "ops/sample_grad/cpu/engine.h"

namespace pynas::cpu::PYNAS_ISA_NS {

void sample_grad_workspace(const SampleGradParams& params, int threads, size_t& bytes) {
  bytes = params.dtype == DType::kFloat64 ? Engine<double>(params, threads).workspace_bytes()
                                          : Engine<float>(params, threads).workspace_bytes();
}

void sample_grad(const SampleGradParams& params, const Parallel& parallel) {
  if (params.dtype == DType::kFloat64) {
    Engine<double>(params, parallel.threads).run(parallel);
  } else {
    Engine<float>(params, parallel.threads).run(parallel);
  }
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
