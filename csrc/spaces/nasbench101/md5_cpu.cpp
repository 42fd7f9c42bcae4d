#include <cstring>

#include "spaces/nasbench101/md5.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
// A step waits for the one before: a second chain of steps fills the gaps.
constexpr int kChains = 2;
constexpr int kWords = kVectorBytes / 4;
constexpr int kLanes = kChains * kWords;

using Vector = uint32_t __attribute__((vector_size(kVectorBytes)));

// floor(2^32 |sin(i + 1)|)
constexpr uint32_t kSines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};
constexpr int kRotations[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

struct State {
  Vector a, b, c, d;
};

template <int round>
inline Vector mix(Vector b, Vector c, Vector d) {
  if constexpr (round == 0) return d ^ (b & (c ^ d));
  if constexpr (round == 1) return c ^ (d & (b ^ c));
  if constexpr (round == 2) return b ^ c ^ d;
  return c ^ (b | ~d);
}

template <int round>
inline void sixteen_steps(State (&state)[kChains], const Vector (&words)[16][kChains]) {
  constexpr int kFactor[4] = {1, 5, 3, 7}, kTerm[4] = {0, 1, 5, 0};
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    const int rotation = kRotations[round][i % 4];
    const int word = (kFactor[round] * i + kTerm[round]) % 16;
#pragma GCC unroll 2
    for (int chain = 0; chain < kChains; ++chain) {
      State& s = state[chain];
      const Vector sum = s.a + mix<round>(s.b, s.c, s.d) + words[word][chain] + kSines[16 * round + i];
      const Vector next = s.b + (sum << rotation | sum >> (32 - rotation));
      s = {s.d, next, s.b, s.c};
    }
  }
}

void lanes(const uint8_t* const* messages, int64_t blocks, uint32_t (&digests)[4][kLanes]) {
  State state[kChains];
  for (State& s : state)
    s = {Vector{} + 0x67452301u, Vector{} + 0xefcdab89u, Vector{} + 0x98badcfeu, Vector{} + 0x10325476u};
  for (int64_t block = 0; block < blocks; ++block) {
    alignas(kVectorBytes) uint32_t transposed[16][kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      uint32_t words[16];
      std::memcpy(words, messages[lane] + block * kMd5Block, kMd5Block);
      for (int word = 0; word < 16; ++word) transposed[word][lane] = words[word];
    }
    Vector words[16][kChains];
    std::memcpy(words, transposed, sizeof words);
    State before[kChains];
    for (int chain = 0; chain < kChains; ++chain) before[chain] = state[chain];
    sixteen_steps<0>(state, words);
    sixteen_steps<1>(state, words);
    sixteen_steps<2>(state, words);
    sixteen_steps<3>(state, words);
    for (int chain = 0; chain < kChains; ++chain) {
      state[chain].a += before[chain].a;
      state[chain].b += before[chain].b;
      state[chain].c += before[chain].c;
      state[chain].d += before[chain].d;
    }
  }
  for (int chain = 0; chain < kChains; ++chain) {
    std::memcpy(&digests[0][chain * kWords], &state[chain].a, kVectorBytes);
    std::memcpy(&digests[1][chain * kWords], &state[chain].b, kVectorBytes);
    std::memcpy(&digests[2][chain * kWords], &state[chain].c, kVectorBytes);
    std::memcpy(&digests[3][chain * kWords], &state[chain].d, kVectorBytes);
  }
}

}  // namespace

void md5(const Md5Params& params) {
  for (int64_t first = 0; first < params.count; first += kLanes) {
    const uint8_t* messages[kLanes];
    for (int lane = 0; lane < kLanes; ++lane)  // lanes left over repeat the first message
      messages[lane] = params.messages[first + lane < params.count ? first + lane : first];
    uint32_t digests[4][kLanes];
    lanes(messages, params.blocks, digests);
    for (int lane = 0; lane < kLanes && first + lane < params.count; ++lane)
      for (int word = 0; word < 4; ++word)
        std::memcpy(params.digests[first + lane] + 4 * word, &digests[word][lane], 4);
  }
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
