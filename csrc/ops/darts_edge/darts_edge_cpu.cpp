#include "ops/darts_edge/darts_edge.h"

#include "ops/darts_edge/backward.h"
#include "ops/darts_edge/forward.h"

namespace pynas::cpu::PYNAS_ISA_NS {

void darts_edge_workspace(const DartsEdgeParams& params, int threads, int64_t* forward_bytes,
                          int64_t* backward_bytes) {
  *forward_bytes = darts::Plan(params, threads, false, Arena(nullptr)).bytes();
  *backward_bytes = darts::Plan(params, threads, true, Arena(nullptr)).bytes();
}

void darts_edge_forward(const DartsEdgeParams& params, const Parallel& parallel) {
  darts::Plan plan(params, parallel.threads, false, Arena(params.workspace));
  plan.pack(false);
  darts::forward(plan, parallel);
}

void darts_edge_backward(const DartsEdgeParams& params, const Parallel& parallel) {
  darts::Plan plan(params, parallel.threads, true, Arena(params.workspace));
  plan.pack(true);
  darts::backward(plan, parallel);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
