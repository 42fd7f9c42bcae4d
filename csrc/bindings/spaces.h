// What the search spaces bring to pynas._C, a function for each.
#pragma once

#include <pybind11/pybind11.h>

namespace pynas {

void bind_nasbench101(pybind11::module_& m);

}  // namespace pynas
