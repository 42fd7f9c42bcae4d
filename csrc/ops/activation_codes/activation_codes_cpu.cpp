#include "common/math.h"
#include "ops/activation_codes/activation_codes.h"
#include "ops/activation_codes/popcount.h"
#include "ops/activation_codes/positive_bits.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

// Words [begin, end) of all rows, counted through. Roofline: the bytes of x over the memory bandwidth.
template <class T>
void pack(const ActivationCodesParams& p, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(p.x);
  int64_t row = begin / p.stride, word = begin % p.stride;
  for (; begin < end; ++row, word = 0) {
    const int64_t last = least(p.stride, word + end - begin);
    const T* values = x + row * p.features;
    uint64_t* codes = p.codes + row * p.stride;
    begin += last - word;
    for (; word < least(last, p.features / 64); ++word) codes[word] = positive_bits(values + word * 64);
    for (; word < last; ++word) {
      const int64_t rest = p.features - word * 64;
      codes[word] = rest > 0 ? positive_bits(values + word * 64, static_cast<int>(rest)) : 0;
    }
  }
}

// Rows of a block on either side. Counters, codes and constants stay in registers, of which AVX-512 has 32.
constexpr int kBlock = kVectorBytes == 64 ? 4 : 2;

// Codes of kBlock rows. Rows beyond the last repeat it, and what they give is not kept.
struct Rows {
  const uint64_t* row[kBlock];

  Rows(const CodeAgreementParams& p, int64_t first) {
    for (int k = 0; k < kBlock; ++k) row[k] = p.codes + least(first + k, p.batch - 1) * p.stride;
  }
  // A vector of each row's words from `word`; only n of them with kPartial.
  template <bool kPartial>
  PYNAS_INLINE Words read(int k, int64_t word, int n) const {
    return kPartial ? load_partial(row[k] + word, n) : load(row[k] + word);
  }
};

// Adds to counts[i][j] the number of bits in which row i of `left` and row j of `right`
// differ, in one vector of words.
template <class Counter, bool kPartial>
PYNAS_INLINE void count(const Rows& left, const Rows& right, int64_t word, int n,
                        Words (&counts)[kBlock][kBlock]) {
  Words other[kBlock];
  PYNAS_UNROLL
  for (int j = 0; j < kBlock; ++j) other[j] = right.read<kPartial>(j, word, n);
  PYNAS_UNROLL
  for (int i = 0; i < kBlock; ++i) {
    const Words own = left.read<kPartial>(i, word, n);
    PYNAS_UNROLL
    for (int j = 0; j < kBlock; ++j) counts[i][j] = Counter::add(counts[i][j], own ^ other[j]);
  }
}

// K of rows [first, first + kBlock) with rows [second, second + kBlock), and its mirror image.
template <class Counter>
void agree(const CodeAgreementParams& p, int64_t first, int64_t second) {
  constexpr int kWide = kLanes<uint64_t>;
  const Rows left(p, first), right(p, second);
  Words counts[kBlock][kBlock] = {};
  int64_t word = 0;
  for (; word + kWide <= p.words; word += kWide) count<Counter, false>(left, right, word, kWide, counts);
  if (word < p.words) {
    count<Counter, true>(left, right, word, static_cast<int>(p.words - word), counts);
  }
  for (int64_t i = first; i < least(first + kBlock, p.batch); ++i) {
    for (int64_t j = second; j < least(second + kBlock, p.batch); ++j) {
      if (j < i) continue;  // of a block on the diagonal: the other half
      const auto differing = static_cast<int64_t>(sum<uint64_t>(counts[i - first][j - second]));
      const int64_t agreeing = p.times * (p.features - differing);
      p.agreement[i * p.batch + j] += agreeing;
      if (i != j) p.agreement[j * p.batch + i] += agreeing;
    }
  }
}

// Blocks of pairs on and above the diagonal. Roofline: batch^2 / 2 bit counts for each word.
template <class Counter>
void agree_all(const CodeAgreementParams& p, const Parallel& parallel) {
  const int64_t blocks = ceil_div(p.batch, kBlock);
  const int64_t grain = (1 << 16) / (kBlock * kBlock * (p.words + 8)) + 1;
  parallel(blocks * (blocks + 1) / 2, grain, [&](int64_t begin, int64_t end) {
    int64_t row = 0, behind = begin;  // the row of block `begin`, and its place behind the row's first block
    while (behind >= blocks - row) behind -= blocks - row++;
    for (int64_t task = begin; task < end; ++task) {
      agree<Counter>(p, row * kBlock, (row + behind) * kBlock);
      if (++behind == blocks - row) {
        ++row;
        behind = 0;
      }
    }
  });
}

}  // namespace

void activation_codes(const ActivationCodesParams& p, const Parallel& parallel) {
  visit_dtype(p.dtype, [&](auto types) {
    parallel(p.batch * p.stride, 512,
             [&](int64_t begin, int64_t end) { pack<typename decltype(types)::In>(p, begin, end); });
  });
}

void code_agreement(const CodeAgreementParams& p, const Parallel& parallel) {
#if defined(PYNAS_VPOPCNT)
  if (VpopcntCounter::supported()) return agree_all<VpopcntCounter>(p, parallel);
#endif
  agree_all<Counter>(p, parallel);
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
