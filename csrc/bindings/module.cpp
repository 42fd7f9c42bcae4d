// pynas._C: build facts and what is not a tensor operator. Importing it registers the operators with torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "common/isa.h"

namespace py = pybind11;

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
