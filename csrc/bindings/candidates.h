// The table of ops/mixed_op/candidates.h, for the test that compares it with the one in Python.
#pragma once

#include <pybind11/pybind11.h>

namespace pynas {

void bind_candidates(pybind11::module_& m);

}  // namespace pynas
