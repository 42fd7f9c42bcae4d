// From a DType to the types a CPU kernel template is instantiated for: common/cuda_dtype.h's counterpart.
// Include only from files compiled per ISA; everything lives in the namespace of that ISA.
#pragma once

#include "common/dtype.h"

namespace pynas::cpu::PYNAS_ISA_NS {

// In is how values are stored, Sum what they are computed in.
template <class InType, class SumType>
struct Types {
  using In = InType;
  using Sum = SumType;
};

// Calls function(Types<In, Sum>{}).
template <class F>
void visit_dtype(DType dtype, F&& function) {
  switch (dtype) {
    case DType::kFloat32:
      return function(Types<float, float>{});
    case DType::kFloat64:
      return function(Types<double, double>{});
    case DType::kBFloat16:
      return function(Types<BFloat16, float>{});
    case DType::kFloat16:
      return function(Types<Float16, float>{});
  }
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
