#include <algorithm>
#include <bit>

#include "common/math.h"
#include "spaces/nasbench101/orders.h"

namespace pynas::nasbench101 {
namespace {

constexpr int kChunk = 4096;  // sets of edges that one task goes through

// The vertices in one order: where each went, and what it costs there with each operation.
struct Order {
  Code edges = 0;  // packed, without operations
  uint8_t position[kMaxVertices] = {};
  int64_t fixed = 0;  // parameters of the projections of the input
  int64_t params[kMaxVertices][kOperations] = {};
};

Order describe(const Cell& ordered, const uint8_t* position, const Widths& widths) {
  Order order;
  order.edges = pack(ordered);
  std::copy_n(position, kMaxVertices, order.position);
  Cell bare = ordered;
  const auto params = [&](const Cell& cell) {
    int64_t sum = 0;
    for (const Width& width : widths) {
      const Cost one = cost(cell, width.in_channels, width.out_channels);
      sum += width.cells * (one.weights + 2 * one.normed);
    }
    return sum;
  };
  for (uint8_t& operation : bare.operation) operation = kOperations - 1;  // a pool has no parameters
  order.fixed = params(bare);
  for (int v = 1; v < ordered.vertices - 1; ++v) {
    for (int operation = 0; operation < kOperations - 1; ++operation) {
      bare.operation[v] = static_cast<uint8_t>(operation);
      order.params[v][operation] = params(bare) - order.fixed;
    }
    bare.operation[v] = kOperations - 1;
  }
  return order;
}

// The operations of `operation`, vertex v's, packed where `order` puts the vertices.
Code packed_operations(const Order& order, const uint8_t* operation, int vertices) {
  Cell moved;
  moved.vertices = vertices;
  for (int v = 1; v < vertices - 1; ++v) moved.operation[order.position[v]] = operation[v];
  return pack(moved);
}

// All cells whose edges are those of `cell`, provided that these come first among all orders of its vertices.
void label(Cell cell, const Widths& widths, std::vector<Order>& orders, std::vector<Code>& found) {
  const Code edges = pack(cell);
  bool first = true;
  for_each_order(cell, [&](const Cell& ordered, const uint8_t*) { first = first && pack(ordered) >= edges; });
  if (!first) return;
  const bool costly = order_matters(cell, widths);
  orders.clear();
  for_each_order(cell, [&](const Cell& ordered, const uint8_t* position) {
    // Without costs only orders that leave the edges as they are matter.
    if (costly || pack(ordered) == edges)
      orders.push_back(describe(ordered, position, costly ? widths : Widths{}));
  });
  const int interior = cell.vertices - 2;
  int labelings = 1;
  for (int i = 0; i < interior; ++i) labelings *= kOperations;
  for (int labeling = 0; labeling < labelings; ++labeling) {
    for (int v = interior, rest = labeling; v > 0; --v, rest /= kOperations)
      cell.operation[v] = static_cast<uint8_t>(rest % kOperations);
    const Code own = pack(cell);
    bool seen = false;  // an order with the same edges lists the operations earlier
    Code best = own;
    int64_t least = -1;
    for (const Order& order : orders) {
      const Code code = order.edges | packed_operations(order, cell.operation, cell.vertices);
      if (order.edges == edges && code < own) {
        seen = true;
        break;
      }
      int64_t params = order.fixed;
      for (int v = 1; v <= interior; ++v) params += order.params[order.position[v]][cell.operation[v]];
      if (least < 0 || params < least || (params == least && code < best)) {
        least = params;
        best = code;
      }
    }
    if (!seen) found.push_back(best);
  }
}

// The cell of `vertices` vertices with these edges, bit source + target (target - 1) / 2; no vertices unless
// every vertex is on a path from the input to the output.
Cell connected(uint32_t edges, int vertices) {
  Cell cell;
  unsigned used = 0;
  for (int t = 1; t < vertices; ++t) {
    cell.sources[t] = static_cast<uint8_t>(edges >> t * (t - 1) / 2 & ((1u << t) - 1));
    if (cell.sources[t] == 0) return cell;
    used |= cell.sources[t];
  }
  if (used == (1u << (vertices - 1)) - 1) cell.vertices = vertices;
  return cell;
}

// Calls body(first, last, results) on chunks of [0, tasks), and joins the results in order.
template <class T, class F>
std::vector<T> collect(int64_t tasks, const Parallel& parallel, F&& body) {
  const int64_t chunks = ceil_div(tasks, kChunk);
  std::vector<std::vector<T>> parts(static_cast<size_t>(chunks));
  parallel(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      body(i * kChunk, std::min<int64_t>(tasks, (i + 1) * kChunk), parts[static_cast<size_t>(i)]);
  });
  std::vector<T> all;
  for (const std::vector<T>& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace

std::vector<Code> unique(const Widths& widths, const Parallel& parallel) {
  std::vector<Code> all;
  for (int vertices = 2; vertices <= kMaxVertices; ++vertices) {
    const auto part = collect<Code>(int64_t{1} << vertices * (vertices - 1) / 2, parallel,
                                    [&](int64_t first, int64_t last, std::vector<Code>& found) {
                                      std::vector<Order> orders;
                                      for (int64_t edges = first; edges < last; ++edges) {
                                        if (std::popcount(static_cast<uint32_t>(edges)) > kMaxEdges) continue;
                                        const Cell cell = connected(static_cast<uint32_t>(edges), vertices);
                                        if (cell.vertices > 0) label(cell, widths, orders, found);
                                      }
                                    });
    all.insert(all.end(), part.begin(), part.end());
  }
  std::sort(all.begin(), all.end());
  return all;
}

std::vector<uint32_t> valid_edges(const Parallel& parallel) {
  return collect<uint32_t>(int64_t{1} << kEdgeBits, parallel,
                           [](int64_t first, int64_t last, std::vector<uint32_t>& found) {
                             for (int64_t edges = first; edges < last; ++edges)
                               if (is_valid(static_cast<Code>(edges) << kOperationBits))
                                 found.push_back(static_cast<uint32_t>(edges));
                           });
}

}  // namespace pynas::nasbench101
