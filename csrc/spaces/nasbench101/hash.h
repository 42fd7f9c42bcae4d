// The module hash that names a cell in the files of NAS-Bench-101: equal for cells that differ in the order
// of their vertices only.
#pragma once

#include <cstdint>

#include "common/parallel.h"
#include "spaces/nasbench101/cell.h"

namespace pynas::nasbench101 {

// h_0(v) = MD5("(out-degree, in-degree, label)"), labels -1 of the input, -2 of the output, 0 .. 2 between;
// h_{i+1}(v) = MD5(sorted h_i of the sources of v | sorted h_i of its targets | h_i(v)), V times for V
// vertices; the hash is MD5 of the sorted h_V, written as Python writes a list of strings. All in hexadecimal
// text.
// Digests, [count][16], of the pruned cells; of a code without a cell, zeros.
void hash(const Code* codes, int64_t count, uint8_t* digests, const Parallel& parallel);

}  // namespace pynas::nasbench101
