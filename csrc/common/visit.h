// From a DType, and a stride, to the types and constants that a kernel template is instantiated for. CPU
// kernels, compiled per ISA, see them in the namespace of that ISA; CUDA kernels in pynas::cuda.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/dtype.h"

#if defined(PYNAS_ISA_NS)

namespace pynas::cpu::PYNAS_ISA_NS {

// In is how values are stored, Sum what they are computed in.
template <class InType, class SumType>
struct Types {
  using In = InType;
  using Sum = SumType;
};

// Calls function(Types<In, Sum>{}), unless the dtype is float16: for kernels whose binding widens it.
template <class F>
void visit_dtype_without_half(DType dtype, F&& function) {
  switch (dtype) {
    case DType::kFloat32:
      return function(Types<float, float>{});
    case DType::kFloat64:
      return function(Types<double, double>{});
    case DType::kBFloat16:
      return function(Types<BFloat16, float>{});
    case DType::kFloat16:
      return;
  }
}

// Calls function(Types<In, Sum>{}).
template <class F>
void visit_dtype(DType dtype, F&& function) {
  if (dtype == DType::kFloat16) return function(Types<Float16, float>{});
  visit_dtype_without_half(dtype, function);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS

#else

#include "common/cuda_compat.h"

namespace pynas::cuda {

template <class T>
struct TypeTag {
  using type = T;
};

// Calls function(TypeTag<T>{}).
template <class F>
void visit_dtype(DType dtype, F&& function) {
  switch (dtype) {
    case DType::kFloat32:
      return function(TypeTag<float>{});
    case DType::kFloat64:
      return function(TypeTag<double>{});
    case DType::kBFloat16:
      return function(TypeTag<__nv_bfloat16>{});
    case DType::kFloat16:
      return function(TypeTag<__half>{});
  }
}

// Calls function(TypeTag<T>{}, the stride, 1 or 2, as a constant).
template <class F>
void visit_dtype_and_stride(DType dtype, int64_t stride, F&& function) {
  visit_dtype(dtype, [&](auto tag) {
    if (stride == 1) return function(tag, std::integral_constant<int, 1>{});
    function(tag, std::integral_constant<int, 2>{});
  });
}

inline int64_t dtype_bytes(DType dtype) {
  if (dtype == DType::kFloat64) return 8;
  return dtype == DType::kFloat32 ? 4 : 2;
}

}  // namespace pynas::cuda

#endif
