// The bridge between torch tensors and kernel parameters. Only bindings and *_torch.cpp files include torch.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/library.h>

#include <algorithm>
#include <cstddef>

#include "bindings/check.h"
#include "common/dtype.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace pynas {

// at::parallel_for behind the torch-free interface of common/parallel.h.
inline Parallel torch_parallel() {
  Parallel parallel;
  parallel.threads = at::get_num_threads();
  parallel.run = [](int64_t tasks, int64_t grain, Parallel::Body body, void* context) {
    at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) { body(context, begin, end); });
  };
  return parallel;
}

inline DType dtype_of(const at::Tensor& tensor, const char* op, const char* argument) {
  check::floating(op, argument, tensor);
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return DType::kFloat32;
    case at::kDouble:
      return DType::kFloat64;
    case at::kBFloat16:
      return DType::kBFloat16;
    default:
      return DType::kFloat16;
  }
}

// Sums are kept in float32, and in float64 for float64 inputs.
inline at::ScalarType accumulate_type(DType dtype) {
  return dtype == DType::kFloat64 ? at::kDouble : at::kFloat;
}

// The current stream of the tensor's device, from libc10 alone: c10/cuda headers need a CUDA build of torch.
inline void* current_stream(const at::Tensor& tensor) {
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  return guard.getStreamNativeHandle(guard.getStream(tensor.device()));
}

// An operator's name as a template argument.
template <size_t N>
struct OpName {
  char text[N];
  constexpr OpName(const char (&name)[N]) { std::copy_n(name, N, text); }
};

// The C++ function of an operator behind the checks that all operators share: every tensor must be dense,
// whole and on the device of the first one; argument number kHost may be on the CPU as well.
template <OpName kName, auto kFunction, int kHost, class Signature = decltype(kFunction)>
struct Kernel;

template <OpName kName, auto kFunction, int kHost, class Result, class... Arguments>
struct Kernel<kName, kFunction, kHost, Result (*)(Arguments...)> {
  static Result call(Arguments... arguments) {
    check::Place first;
    int position = 0;
    (visit(arguments, position++, first), ...);
    return kFunction(std::forward<Arguments>(arguments)...);
  }

 private:
  static void visit(const at::Tensor& tensor, int position, check::Place& first, int64_t index = -1) {
    const check::Place place{&tensor, position, index};
    if (first.tensor == nullptr && position != kHost) first = place;
    check::argument(kName.text, place, first.tensor == nullptr ? place : first, position == kHost);
  }
  static void visit(const std::optional<at::Tensor>& tensor, int position, check::Place& first) {
    if (tensor.has_value()) visit(*tensor, position, first);
  }
  static void visit(const at::TensorList& tensors, int position, check::Place& first) {
    for (size_t i = 0; i < tensors.size(); ++i) visit(tensors[i], position, first, static_cast<int64_t>(i));
  }
  template <class Other>
  static void visit(const Other&, int, check::Place&) {}
};

// What an operator of this name is registered with.
template <OpName kName, auto kFunction, int kHost = -1>
constexpr auto kernel() {
  return &Kernel<kName, kFunction, kHost>::call;
}

}  // namespace pynas

// Registers the kernels of an operator; kHost of Kernel may follow as a last argument.
#define PYNAS_REGISTER_CPU(op, function, ...)                                  \
  TORCH_LIBRARY_IMPL(pynas, CPU, m) {                                          \
    m.impl(#op, ::pynas::kernel<#op, &function __VA_OPT__(, ) __VA_ARGS__>()); \
  }
#if defined(PYNAS_WITH_CUDA)
#define PYNAS_DISPATCH_DEVICE(tensor, function, params)                 \
  do {                                                                  \
    if ((tensor).is_cuda()) {                                           \
      const c10::DeviceGuard guard((tensor).device());                  \
      ::pynas::cuda::function(params, ::pynas::current_stream(tensor)); \
    } else {                                                            \
      PYNAS_DISPATCH_ISA(function, params, ::pynas::torch_parallel());  \
    }                                                                   \
  } while (false)
#define PYNAS_REGISTER(op, function, ...)                                      \
  PYNAS_REGISTER_CPU(op, function, __VA_ARGS__)                                \
  TORCH_LIBRARY_IMPL(pynas, CUDA, m) {                                         \
    m.impl(#op, ::pynas::kernel<#op, &function __VA_OPT__(, ) __VA_ARGS__>()); \
  }
#else
#define PYNAS_DISPATCH_DEVICE(tensor, function, params) \
  PYNAS_DISPATCH_ISA(function, params, ::pynas::torch_parallel())
#define PYNAS_REGISTER(op, function, ...) PYNAS_REGISTER_CPU(op, function, __VA_ARGS__)
#endif
