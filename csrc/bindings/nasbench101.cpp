// Cells of NAS-Bench-101 and MD5, for Python: plain functions of codes (spaces/nasbench101/cell.h).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/spaces.h"
#include "bindings/tensor.h"
#include "spaces/nasbench101/cell.h"
#include "spaces/nasbench101/hash.h"
#include "spaces/nasbench101/md5.h"

namespace py = pybind11;

namespace pynas {
namespace nasbench101_binding {
namespace {

using namespace nasbench101;

using Codes = py::array_t<Code, py::array::c_style>;  // of numbers that a code can hold, and no others
using WidthTuples = std::vector<std::tuple<int64_t, int64_t, int64_t>>;

// An int64 holds the number of weights of a cell this wide more than a hundred times over.
constexpr int64_t kMaxChannels = int64_t{1} << 24;

void check_code(Code code) {
  if (!is_code(code))
    throw std::invalid_argument("code: expected 21 bits of edges and five operations of 0 to 2, got " +
                                std::to_string(code));
}

void check_channels(const char* name, int64_t channels) {
  if (channels < 1 || channels > kMaxChannels)
    throw std::invalid_argument(std::string(name) + ": expected 1 to " + std::to_string(kMaxChannels) +
                                " channels, got " + std::to_string(channels));
}

Cell pruned_cell(Code code) {
  check_code(code);
  const Cell cell = prune(unpack(code));
  if (cell.vertices == 0)
    throw std::invalid_argument("code: the input of the cell does not reach its output");
  return cell;
}

Widths read_widths(const WidthTuples& tuples) {
  Widths widths;
  double parameters = 0;  // of a network whose vertices are all as wide as the widest
  for (const auto& [in_channels, out_channels, cells] : tuples) {
    check_channels("widths", in_channels);
    check_channels("widths", out_channels);
    if (cells < 0)
      throw std::invalid_argument("widths: expected a number of cells, got " + std::to_string(cells));
    const double widest = static_cast<double>(std::max(in_channels, out_channels));
    parameters += static_cast<double>(cells) * (10 * widest + 4) * widest * kMaxVertices;
    widths.push_back({in_channels, out_channels, cells});
  }
  if (parameters > 0x1p62)
    throw std::invalid_argument("widths: expected a network whose parameters an int64 can count, got " +
                                std::to_string(parameters) + " of them");
  return widths;
}

template <class T>
py::array_t<T> to_array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::array_t<uint8_t> hash_array(const Codes& codes) {
  if (codes.ndim() != 1)
    throw std::invalid_argument("codes: expected one axis, got " + std::to_string(codes.ndim()));
  for (py::ssize_t i = 0; i < codes.size(); ++i) check_code(codes.data()[i]);
  py::array_t<uint8_t> digests({codes.size(), py::ssize_t{kMd5Digest}});
  const Code* from = codes.data();
  uint8_t* to = digests.mutable_data();
  const int64_t count = codes.size();
  {
    const py::gil_scoped_release unlocked;
    hash(from, count, to, torch_parallel());
  }
  return digests;
}

std::vector<py::bytes> md5_of(const std::vector<std::string>& texts) {
  std::vector<std::vector<uint8_t>> padded(texts.size());
  std::vector<uint8_t> digests(texts.size() * kMd5Digest);
  std::map<int64_t, std::pair<std::vector<const uint8_t*>, std::vector<uint8_t*>>> by_blocks;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto bytes = static_cast<int64_t>(texts[i].size());
    padded[i].resize(static_cast<size_t>(md5_blocks(bytes) * kMd5Block));
    std::copy(texts[i].begin(), texts[i].end(), padded[i].begin());
    md5_pad(padded[i].data(), bytes);
    auto& [from, to] = by_blocks[md5_blocks(bytes)];
    from.push_back(padded[i].data());
    to.push_back(digests.data() + i * kMd5Digest);
  }
  for (const auto& [blocks, addresses] : by_blocks) {
    Md5Params params;
    params.messages = addresses.first.data();
    params.count = static_cast<int64_t>(addresses.first.size());
    params.blocks = blocks;
    params.digests = addresses.second.data();
    PYNAS_DISPATCH_ISA(md5, params)
  }
  std::vector<py::bytes> result;
  for (size_t i = 0; i < texts.size(); ++i)
    result.emplace_back(reinterpret_cast<const char*>(digests.data()) + i * kMd5Digest, kMd5Digest);
  return result;
}

}  // namespace
}  // namespace nasbench101_binding

void bind_nasbench101(py::module_& m) {
  using namespace nasbench101_binding;
  m.def("nasbench101_is_valid", &is_valid, py::arg("code"),
        "Whether the input reaches the output and at most 9 edges lie on such paths.");
  m.def(
      "nasbench101_prune", [](Code code) { return pack(pruned_cell(code)); }, py::arg("code"),
      "The cell without what lies on no path from its input to its output.");
  m.def(
      "nasbench101_channels",
      [](Code code, int64_t in_channels, int64_t out_channels) {
        const Cell cell = pruned_cell(code);
        check_channels("in_channels", in_channels);
        check_channels("out_channels", out_channels);
        int64_t channels[kMaxVertices];
        vertex_channels(cell, in_channels, out_channels, channels);
        return std::vector<int64_t>(channels, channels + cell.vertices);
      },
      py::arg("code"), py::arg("in_channels"), py::arg("out_channels"),
      "Channels of each vertex of the pruned cell.");
  m.def(
      "nasbench101_cost",
      [](Code code, int64_t in_channels, int64_t out_channels) {
        check_channels("in_channels", in_channels);
        check_channels("out_channels", out_channels);
        const Cost one = cost(pruned_cell(code), in_channels, out_channels);
        return std::make_pair(one.weights, one.normed);
      },
      py::arg("code"), py::arg("in_channels"), py::arg("out_channels"),
      "Convolution weights of a cell, and channels that pass a batch norm in it.");
  m.def(
      "nasbench101_canonical",
      [](Code code, const WidthTuples& widths) {
        pruned_cell(code);
        return canonical(code, read_widths(widths));
      },
      py::arg("code"), py::arg("widths"),
      "Of all orders of the pruned cell's vertices, the first of those with the fewest parameters; widths "
      "are "
      "(in_channels, out_channels, number of such cells).");
  m.def(
      "nasbench101_unique",
      [](const WidthTuples& tuples) {
        const Widths widths = read_widths(tuples);
        std::vector<Code> codes;
        {
          const py::gil_scoped_release unlocked;
          codes = unique(widths, torch_parallel());
        }
        return to_array(codes);
      },
      py::arg("widths"), "The canonical code of every cell, ascending.");
  m.def(
      "nasbench101_valid_edges",
      [] {
        std::vector<uint32_t> edges;
        {
          const py::gil_scoped_release unlocked;
          edges = valid_edges(torch_parallel());
        }
        return to_array(edges);
      },
      "Every code >> 10 of a valid cell, ascending.");
  m.def("nasbench101_hash", &hash_array, py::arg("codes"),
        "MD5 digests [n, 16], uint8, by which the benchmark's files name these cells.");
  m.def("md5", &md5_of, py::arg("messages"), "The MD5 digest of every message.");
}

}  // namespace pynas
