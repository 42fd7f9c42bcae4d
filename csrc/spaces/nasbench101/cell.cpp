#include "spaces/nasbench101/cell.h"

#include <bit>

#include "spaces/nasbench101/orders.h"

namespace pynas::nasbench101 {
namespace {

constexpr int kOutput = kMaxVertices - 1;

constexpr int edge_bit(int target) { return kOperationBits + target * (target - 1) / 2; }
constexpr int operation_bit(int vertex) { return 2 * (kOutput - 1 - vertex); }

}  // namespace

bool is_code(Code code) {
  if (code >> (kOperationBits + kEdgeBits) != 0) return false;
  for (int v = 1; v < kOutput; ++v)
    if ((code >> operation_bit(v) & 3u) >= kOperations) return false;
  return true;
}

Cell unpack(Code code) {
  Cell cell;
  cell.vertices = kMaxVertices;
  for (int t = 1; t < kMaxVertices; ++t)
    cell.sources[t] = static_cast<uint8_t>(code >> edge_bit(t) & ((1u << t) - 1));
  for (int v = 1; v < kOutput; ++v) cell.operation[v] = static_cast<uint8_t>(code >> operation_bit(v) & 3u);
  return cell;
}

Code pack(const Cell& cell) {
  Code code = 0;
  for (int t = 1; t < cell.vertices; ++t) {
    const bool output = t == cell.vertices - 1;
    code |= Code{cell.sources[t]} << edge_bit(output ? kOutput : t);
    if (!output) code |= Code{cell.operation[t]} << operation_bit(t);
  }
  return code;
}

Cell prune(const Cell& cell) {
  const int output = cell.vertices - 1;
  unsigned fed = 1;
  for (int t = 1; t <= output; ++t)
    if (cell.sources[t] & fed) fed |= 1u << t;
  unsigned used = 1u << output;
  for (int t = output; t > 0; --t)
    if (used >> t & 1u) used |= cell.sources[t];
  const unsigned kept = fed & used;
  Cell pruned;
  if (!(kept & 1u) || !(kept >> output & 1u)) return pruned;
  for (int t = 0; t <= output; ++t) {
    if (!(kept >> t & 1u)) continue;
    const int position = pruned.vertices++;
    pruned.operation[position] = cell.operation[t];
    for (int s = 0, source = 0; s < t; ++s) {
      if (!(kept >> s & 1u)) continue;
      if (cell.sources[t] >> s & 1u) pruned.sources[position] |= static_cast<uint8_t>(1u << source);
      ++source;
    }
  }
  return pruned;
}

int count_edges(const Cell& cell) {
  int edges = 0;
  for (int t = 1; t < cell.vertices; ++t) edges += std::popcount(cell.sources[t]);
  return edges;
}

bool is_valid(Code code) {
  if (!is_code(code)) return false;
  const Cell cell = prune(unpack(code));
  return cell.vertices > 0 && count_edges(cell) <= kMaxEdges;
}

void vertex_channels(const Cell& cell, int64_t in_channels, int64_t out_channels,
                     int64_t channels[kMaxVertices]) {
  const int output = cell.vertices - 1;
  for (int v = 0; v < kMaxVertices; ++v) channels[v] = 0;
  channels[0] = in_channels;
  channels[output] = out_channels;
  const unsigned concatenated = cell.sources[output] & ~1u;
  const int parts = std::popcount(concatenated);
  if (parts == 0) return;  // the input alone feeds the output
  int64_t remainder = out_channels % parts;
  for (int v = 1; v < output; ++v)
    if (concatenated >> v & 1u) channels[v] = out_channels / parts + (remainder-- > 0 ? 1 : 0);
  for (int v = output - 1; v > 0; --v) {
    if (concatenated >> v & 1u) continue;
    for (int t = v + 1; t < output; ++t)
      if (cell.sources[t] >> v & 1u && channels[t] > channels[v]) channels[v] = channels[t];
  }
}

Cost cost(const Cell& cell, int64_t in_channels, int64_t out_channels) {
  int64_t channels[kMaxVertices];
  vertex_channels(cell, in_channels, out_channels, channels);
  Cost total;
  for (int v = 1; v < cell.vertices; ++v) {
    const int64_t c = channels[v];
    if (cell.sources[v] & 1u) {  // the projection of the input
      total.weights += in_channels * c;
      total.normed += c;
    }
    if (v < cell.vertices - 1 && cell.operation[v] < 2) {
      total.weights += (cell.operation[v] == 0 ? 9 : 1) * c * c;
      total.normed += c;
    }
  }
  return total;
}

Code canonical(Code code, const Widths& widths) {
  const Cell cell = prune(unpack(code));
  if (cell.vertices == 0) return 0;
  const bool costly = order_matters(cell, widths);
  Code best = 0;
  int64_t least = 0;
  for_each_order(cell, [&](const Cell& ordered, const uint8_t*) {
    int64_t params = 0;
    if (costly) {
      for (const Width& width : widths) {
        const Cost one = cost(ordered, width.in_channels, width.out_channels);
        params += width.cells * (one.weights + 2 * one.normed);
      }
    }
    const Code packed = pack(ordered);
    if (best == 0 || params < least || (params == least && packed < best)) {
      best = packed;
      least = params;
    }
  });
  return best;
}

}  // namespace pynas::nasbench101
