// Cells of NAS-Bench-101: directed acyclic graphs of at most 7 vertices, the input first and the output last.
// Every vertex between them has one of three operations; at most 9 edges lie on paths from input to output.
//
// A cell is handed around as one integer, its code:
//
//   bit 10 + source + target (target - 1) / 2   the edge from `source` to `target`, 0 <= source < target <= 6
//   bits 2 (5 - v), 2 (5 - v) + 1               the operation of vertex v, 1 <= v <= 5
//
// In the code of a cell of fewer than 7 vertices the output is vertex 6 all the same, and the unused vertices
// before it have no edges and operation 0.
#pragma once

#include <cstdint>
#include <vector>

#include "common/parallel.h"

namespace pynas::nasbench101 {

constexpr int kMaxVertices = 7;
constexpr int kMaxEdges = 9;
constexpr int kOperations = 3;  // 3x3 convolution, 1x1 convolution, 3x3 max pooling
constexpr int kEdgeBits = kMaxVertices * (kMaxVertices - 1) / 2;
constexpr int kOperationBits = 2 * (kMaxVertices - 2);

using Code = uint32_t;

struct Cell {
  int vertices = 0;                    // 0: no cell, the input does not reach the output
  uint8_t sources[kMaxVertices] = {};  // bit s of sources[t]: there is an edge from s to t
  uint8_t operation[kMaxVertices] = {};
};

// Whether the number is a code: no bits above its edges, and no operation but 0, 1 and 2.
bool is_code(Code code);
Cell unpack(Code code);
Code pack(const Cell& cell);

// The cell without the vertices that lie on no path from the input to the output; they keep their order.
Cell prune(const Cell& cell);
int count_edges(const Cell& cell);
// Whether the number is a code whose pruned cell exists and has at most kMaxEdges edges.
bool is_valid(Code code);

// Channels of every vertex of a pruned cell. The vertices that the output concatenates divide
// `out_channels` evenly, where the first ones take one more each of what is left over; any other
// vertex has as many as the widest one that it feeds.
void vertex_channels(const Cell& cell, int64_t in_channels, int64_t out_channels,
                     int64_t channels[kMaxVertices]);

struct Cost {
  int64_t weights = 0;  // of the convolutions; times pixels, the multiply-adds
  int64_t normed = 0;   // channels that pass a batch norm
};
Cost cost(const Cell& cell, int64_t in_channels, int64_t out_channels);

// `cells` cells of a network that map `in_channels` to `out_channels`.
struct Width {
  int64_t in_channels, out_channels, cells;
};
using Widths = std::vector<Width>;

// Of all orders of the vertices of the pruned cell, the one with the fewest parameters in a network of these
// widths; of several, the one that comes first by (edges, operations). The order matters where channels do
// not divide evenly.
Code canonical(Code code, const Widths& widths);

// The canonical code of every cell up to the order of its vertices, in ascending order.
std::vector<Code> unique(const Widths& widths, const Parallel& parallel);

// Every set of edges, code >> kOperationBits, of a valid cell, in ascending order.
std::vector<uint32_t> valid_edges(const Parallel& parallel);

}  // namespace pynas::nasbench101
