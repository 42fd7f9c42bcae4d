// For operators that update tensors and return nothing.
#pragma once

#include <torch/library.h>

// Torch resolves lazily negated and conjugated tensors before an operator that knows nothing of them. For one
// that updates its arguments it expects them among what the operator returns, and reads beyond what there is
// where it returns nothing. So these operators see such tensors themselves: check::updated refuses them.
#define PYNAS_SEES_LAZY_SIGNS(op)                                                                \
  TORCH_LIBRARY_IMPL(pynas, Negative, m) { m.impl(#op, torch::CppFunction::makeFallthrough()); } \
  TORCH_LIBRARY_IMPL(pynas, Conjugate, m) { m.impl(#op, torch::CppFunction::makeFallthrough()); }
