// The orders that the vertices of a pruned cell can be listed in, every edge pointing forward.
#pragma once

#include <bit>

#include "spaces/nasbench101/cell.h"

namespace pynas::nasbench101 {

namespace detail {

template <class F>
void place(const Cell& cell, Cell& ordered, uint8_t* position, unsigned placed, F& body) {
  const int next = std::popcount(placed), output = cell.vertices - 1;
  if (next == output) {
    uint8_t& sources = ordered.sources[output];
    sources = 0;
    for (int s = 0; s < output; ++s)
      if (cell.sources[output] >> s & 1u) sources |= static_cast<uint8_t>(1u << position[s]);
    body(static_cast<const Cell&>(ordered), static_cast<const uint8_t*>(position));
    return;
  }
  for (int v = 1; v < output; ++v) {
    if (placed >> v & 1u || cell.sources[v] & ~placed) continue;
    position[v] = static_cast<uint8_t>(next);
    ordered.operation[next] = cell.operation[v];
    ordered.sources[next] = 0;
    for (int s = 0; s < v; ++s)
      if (cell.sources[v] >> s & 1u) ordered.sources[next] |= static_cast<uint8_t>(1u << position[s]);
    place(cell, ordered, position, placed | 1u << v, body);
  }
}

}  // namespace detail

// Calls body(ordered, position) for each, where vertex v of `cell` is vertex position[v] of `ordered`.
template <class F>
void for_each_order(const Cell& cell, F&& body) {
  Cell ordered;
  ordered.vertices = cell.vertices;
  uint8_t position[kMaxVertices] = {};
  position[cell.vertices - 1] = static_cast<uint8_t>(cell.vertices - 1);
  detail::place(cell, ordered, position, 1u, body);
}

// Whether the number of parameters can depend on the order: only where channels do not divide evenly.
inline bool order_matters(const Cell& cell, const Widths& widths) {
  const int parts = std::popcount(cell.sources[cell.vertices - 1] & ~1u);
  for (const Width& width : widths)
    if (parts > 1 && width.out_channels % parts != 0) return true;
  return false;
}

}  // namespace pynas::nasbench101
