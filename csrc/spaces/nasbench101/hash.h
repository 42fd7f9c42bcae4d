// The module hash that names a cell in the files of NAS-Bench-101: equal for cells that differ in the order
// of their vertices only.
#pragma once

#include <cstdint>

#include "common/parallel.h"
#include "spaces/nasbench101/cell.h"

namespace pynas::nasbench101 {

// digests [count][16] of the pruned cells; zeros for a code without a cell. For a cell of V vertices v, with
// all digests h written as hexadecimal text:
//
//   h_0(v)     = MD5("(out-degree, in-degree, label)")
//   label      = -1 of the input, -2 of the output, else the operation
//   h_{i+1}(v) = MD5(sorted h_i of the sources of v | sorted h_i of its targets | h_i(v))
//   hash       = MD5 of the sorted h_V(v), as Python writes a list of strings
void hash(const Code* codes, int64_t count, uint8_t* digests, const Parallel& parallel);

}  // namespace pynas::nasbench101
