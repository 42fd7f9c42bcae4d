#include "spaces/nasbench101/hash.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "common/math.h"
#include "spaces/nasbench101/md5.h"

namespace pynas {

void md5_pad(uint8_t* message, int64_t bytes) {
  const int64_t size = md5_blocks(bytes) * kMd5Block;
  message[bytes] = 0x80;
  std::memset(message + bytes + 1, 0, static_cast<size_t>(size - bytes - 1));
  for (int i = 0; i < 8; ++i)
    message[size - 8 + i] = static_cast<uint8_t>(static_cast<uint64_t>(bytes) * 8 >> 8 * i);
}

namespace nasbench101 {
namespace {

constexpr int kBatch = 64;  // cells whose messages go through MD5 together
constexpr int kHex = 2 * kMd5Digest;
// The list of seven digests, each between quotes and after ", ", is the longest message.
constexpr int64_t kMaxBlocks = md5_blocks(kMaxVertices * (kHex + 4));

// Messages waiting for MD5, by their number of blocks.
class Messages {
 public:
  // A message of `bytes` bytes to be written at the address returned, its digest to be put in `digest`.
  uint8_t* add(int64_t bytes, uint8_t* digest) {
    const int64_t blocks = md5_blocks(bytes);
    const int i = used_++;
    const int bin = static_cast<int>(blocks - 1), place = count_[bin]++;
    addresses_[bin][place] = buffer_[i];
    digests_[bin][place] = digest;
    return buffer_[i];
  }

  void digest() {
    for (int bin = 0; bin < kMaxBlocks; ++bin) {
      Md5Params params;
      params.messages = addresses_[bin];
      params.count = count_[bin];
      params.blocks = bin + 1;
      params.digests = digests_[bin];
      PYNAS_DISPATCH_ISA(md5, params)
      count_[bin] = 0;
    }
    used_ = 0;
  }

 private:
  static constexpr int kCapacity = kBatch * kMaxVertices;
  uint8_t buffer_[kCapacity][kMaxBlocks * kMd5Block];
  const uint8_t* addresses_[kMaxBlocks][kCapacity];
  uint8_t* digests_[kMaxBlocks][kCapacity];
  int count_[kMaxBlocks] = {};
  int used_ = 0;
};

struct Labelled {
  Cell cell;
  uint8_t targets[kMaxVertices] = {};
  int in_degree[kMaxVertices] = {}, out_degree[kMaxVertices] = {};
  uint8_t digest[kMaxVertices][kMd5Digest];
  char text[kMaxVertices][kHex];  // the digests in hexadecimal
  int order[kMaxVertices];        // the vertices by their digests, which is the order of their texts
};

// The first eight bytes of a digest as a number that orders as they do.
uint64_t leading(const uint8_t* digest) {
  uint64_t key = 0;
  for (int i = 0; i < 8; ++i) key = key << 8 | digest[i];
  return key;
}

void read_digests(Labelled& one) {
  constexpr char kDigits[] = "0123456789abcdef";
  uint64_t keys[kMaxVertices];
  for (int v = 0; v < one.cell.vertices; ++v) {
    for (int i = 0; i < kMd5Digest; ++i) {
      one.text[v][2 * i] = kDigits[one.digest[v][i] >> 4];
      one.text[v][2 * i + 1] = kDigits[one.digest[v][i] & 15];
    }
    keys[v] = leading(one.digest[v]);
    int place = v;
    for (; place > 0; --place) {
      const int before = one.order[place - 1];
      if (keys[before] < keys[v] ||
          (keys[before] == keys[v] && std::memcmp(one.digest[before], one.digest[v], kMd5Digest) <= 0))
        break;
      one.order[place] = before;
    }
    one.order[place] = v;
  }
}

uint8_t* write_sorted(uint8_t* at, const Labelled& one, unsigned vertices) {
  for (int i = 0; i < one.cell.vertices; ++i) {
    if (!(vertices >> one.order[i] & 1u)) continue;
    std::memcpy(at, one.text[one.order[i]], kHex);
    at += kHex;
  }
  return at;
}

void first_round(Labelled& one, Messages& messages) {
  const Cell& cell = one.cell;
  for (int t = 1; t < cell.vertices; ++t) {
    for (int s = 0; s < t; ++s) {
      if (!(cell.sources[t] >> s & 1u)) continue;
      one.targets[s] |= static_cast<uint8_t>(1u << t);
      ++one.out_degree[s];
      ++one.in_degree[t];
    }
  }
  for (int v = 0; v < cell.vertices; ++v) {
    const bool end = v == 0 || v == cell.vertices - 1;
    uint8_t* message = messages.add(end ? 10 : 9, one.digest[v]);
    uint8_t* at = message;
    for (char c : {'(', static_cast<char>('0' + one.out_degree[v]), ',', ' ',
                   static_cast<char>('0' + one.in_degree[v]), ',', ' '})
      *at++ = static_cast<uint8_t>(c);
    if (end) *at++ = '-';
    *at++ = static_cast<uint8_t>('0' + (v == 0 ? 1 : end ? 2 : cell.operation[v]));
    *at++ = ')';
    md5_pad(message, at - message);
  }
}

void next_round(Labelled& one, Messages& messages) {
  for (int v = 0; v < one.cell.vertices; ++v) {
    const unsigned sources = one.cell.sources[v], targets = one.targets[v];
    const int64_t bytes = kHex * (one.in_degree[v] + one.out_degree[v] + 1) + 2;
    uint8_t* message = messages.add(bytes, one.digest[v]);
    uint8_t* at = write_sorted(message, one, sources);
    *at++ = '|';
    at = write_sorted(at, one, targets);
    *at++ = '|';
    std::memcpy(at, one.text[v], kHex);
    md5_pad(message, bytes);
  }
}

void last_round(Labelled& one, Messages& messages, uint8_t* digest) {
  const int vertices = one.cell.vertices;
  const int64_t bytes = vertices * (kHex + 4);
  uint8_t* message = messages.add(bytes, digest);
  uint8_t* at = message;
  for (int v = 0; v < vertices; ++v) {
    *at++ = v == 0 ? '[' : ',';
    if (v > 0) *at++ = ' ';
    *at++ = '\'';
    at = write_sorted(at, one, 1u << one.order[v]);
    *at++ = '\'';
  }
  *at = ']';
  md5_pad(message, bytes);
}

}  // namespace

void hash(const Code* codes, int64_t count, uint8_t* digests, const Parallel& parallel) {
  parallel(ceil_div(count, kBatch), 1, [&](int64_t begin, int64_t end) {
    const auto messages = std::make_unique<Messages>();
    std::vector<Labelled> cells;
    for (int64_t batch = begin; batch < end; ++batch) {
      const int64_t first = batch * kBatch;
      cells.assign(static_cast<size_t>(std::min<int64_t>(kBatch, count - first)), Labelled{});
      for (size_t i = 0; i < cells.size(); ++i) {
        cells[i].cell = prune(unpack(codes[first + static_cast<int64_t>(i)]));
        first_round(cells[i], *messages);
      }
      messages->digest();
      for (Labelled& one : cells) read_digests(one);
      for (int round = 0; round < kMaxVertices; ++round) {
        for (Labelled& one : cells)
          if (round < one.cell.vertices) next_round(one, *messages);
        messages->digest();
        for (Labelled& one : cells)
          if (round < one.cell.vertices) read_digests(one);
      }
      for (size_t i = 0; i < cells.size(); ++i) {
        uint8_t* digest = digests + (first + static_cast<int64_t>(i)) * kMd5Digest;
        if (cells[i].cell.vertices > 0) {
          last_round(cells[i], *messages, digest);
        } else {
          std::memset(digest, 0, kMd5Digest);
        }
      }
      messages->digest();
    }
  });
}

}  // namespace nasbench101
}  // namespace pynas
