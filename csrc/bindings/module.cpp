// pynas._C: build facts and what is not a tensor operator. Importing it registers the operators with torch.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <stdexcept>
#include <string>
#include <vector>

#include "bench/peak/peak.h"
#include "bindings/candidates.h"
#include "bindings/spaces.h"
#include "bindings/tensor.h"
#include "common/isa.h"

namespace py = pybind11;

namespace {

constexpr int64_t kMaxRounds = 1000000000;  // seconds, not hours

double multiply_adds(int64_t rounds) {
  if (rounds < 1 || rounds > kMaxRounds)
    throw std::invalid_argument("rounds: expected 1 to " + std::to_string(kMaxRounds) + ", got " +
                                std::to_string(rounds));
  double operations = 0;
  pynas::PeakParams params;
  params.rounds = rounds;
  params.result = &operations;
  PYNAS_DISPATCH_ISA(multiply_adds, params, pynas::torch_parallel())
  return operations;
}

double read_memory(const py::array_t<float, py::array::c_style>& values) {
  double bytes = 0;
  pynas::PeakParams params;
  params.values = values.data();
  params.count = values.size();
  params.result = &bytes;
  const py::gil_scoped_release unlocked;
  PYNAS_DISPATCH_ISA(read_memory, params, pynas::torch_parallel())
  return bytes;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled core of pynas: build facts; importing it registers torch.ops.pynas.*";
  // Fails at import, with the choices, when PYNAS_ISA asks for what this processor cannot do.
  pynas::active_isa();
  m.def("isa", [] { return std::string(pynas::isa_name(pynas::active_isa())); }, "Instruction set in use.");
  m.def(
      "available_isas",
      [] {
        std::vector<std::string> names;
        for (pynas::Isa isa : pynas::available_isas()) names.emplace_back(pynas::isa_name(isa));
        return names;
      },
      "Instruction sets this processor has, lowest first.");
  m.def("multiply_adds", &multiply_adds, py::arg("rounds"), py::call_guard<py::gil_scoped_release>(),
        "Keep the multiply-add units of every thread busy; the floating-point operations done.");
  m.def("read_memory", &read_memory, py::arg("values").noconvert(),
        "Read a contiguous float32 array once, shared out between the threads; the bytes read.");
  m.def(
      "release_free_memory",
      [] {
#if defined(__GLIBC__)
        malloc_trim(0);
#endif
      },
      py::call_guard<py::gil_scoped_release>(),
      "Give the system back what the allocator keeps of freed memory.");
  pynas::bind_candidates(m);
  pynas::bind_nasbench101(m);
#if defined(PYNAS_WITH_CUDA)
  m.attr("has_cuda") = true;
  m.attr("cuda_archs") = PYNAS_CUDA_ARCHS;
#else
  m.attr("has_cuda") = false;
  m.attr("cuda_archs") = "";
#endif
  m.attr("torch_version") = PYNAS_TORCH_VERSION;
  m.attr("compiler") = PYNAS_COMPILER;
}
