// MD5 (RFC 1321) of many short messages at once, one in each lane of a vector.
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace pynas {

constexpr int kMd5Block = 64;
constexpr int kMd5Digest = 16;

// Blocks that a message of `bytes` bytes fills with its padding: a one bit, zeros, and the length in 8 bytes.
constexpr int64_t md5_blocks(int64_t bytes) { return (bytes + 8) / kMd5Block + 1; }

struct Md5Params {
  const uint8_t* const* messages = nullptr;  // [count], padded, each of `blocks` blocks
  int64_t count = 0;
  int64_t blocks = 0;
  uint8_t* const* digests = nullptr;  // [count][kMd5Digest]
};

// Pads a message of `bytes` bytes in a buffer of md5_blocks(bytes) blocks.
void md5_pad(uint8_t* message, int64_t bytes);

namespace cpu {
PYNAS_DECLARE_PER_ISA(void md5(const Md5Params&))
}

}  // namespace pynas
