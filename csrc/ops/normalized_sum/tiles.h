// Register tiles of normalized_sum: V vectors of neighbouring elements times R lines, whose coefficients are
// loaded once for all lines. In is the storage type, S what is computed in. Include only from files compiled
// per ISA; everything lives in the namespace of that ISA.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <type_traits>

#include "common/fold.h"
#include "ops/normalized_sum/normalized_sum.h"

namespace pynas::cpu::PYNAS_ISA_NS {

constexpr int kTile = kVectorBytes == 64 ? 16 : 8;  // sums held in registers, beside what feeds them

template <class S, class In>
PYNAS_INLINE Vec<S> load_some(const In* p, int lanes) {
  if (lanes == kLanes<S>) return load_as<S>(p);
  Vec<S> v{};
  for (int i = 0; i < lanes; ++i) v[i] = to_float(p[i]);
  return v;
}
PYNAS_INLINE void store_some(double* p, Vec<double> v, int lanes) {
  if (lanes == kLanes<double>) return store(p, v);
  store_partial(p, v, lanes);
}
template <class Out>
PYNAS_INLINE void store_some(Out* p, Vec<float> v, int lanes) {
  store_lanes(p, v, lanes);
}

// Stores a whole vector; with kStream (float32 on x86-64) past the caches, so that a line that is only
// written is not read first. Streaming takes an address aligned to the vector, and end_stream() makes the
// values visible to other threads.
template <bool kStream, class Out, class V>
PYNAS_INLINE void store_once(Out* p, V v) {
#if defined(__x86_64__)
  if constexpr (kStream && std::is_same_v<Out, float>) {
#if defined(__AVX512F__)
    return _mm512_stream_ps(p, reinterpret_cast<__m512>(v));
#elif defined(__AVX2__)
    return _mm256_stream_ps(p, reinterpret_cast<__m256>(v));
#else
    return _mm_stream_ps(p, reinterpret_cast<__m128>(v));
#endif
  }
#endif
  store_some(p, v, static_cast<int>(sizeof(V) / sizeof(v[0])));
}
PYNAS_INLINE void end_stream() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Calls body(integral_constant V, first vector) for groups of 4, 2 or 1 vectors that cover [0, vectors).
template <class F>
PYNAS_INLINE void for_groups(int64_t vectors, F body) {
  int64_t v = 0;
  for (; v + 4 <= vectors; v += 4) body(std::integral_constant<int, 4>{}, v);
  for (; v + 2 <= vectors; v += 2) body(std::integral_constant<int, 2>{}, v);
  for (; v < vectors; ++v) body(std::integral_constant<int, 1>{}, v);
}

// Two sums over lines 0 .. lines - 1 for each of V vectors: terms(line, v, first, second) adds those of a
// line. With 4 / V lines at a time, four sums of each kind are in flight, which hides the latency of the
// additions.
template <class S, int V, class Terms>
PYNAS_INLINE void sum_lines(int64_t lines, Terms terms, Vec<S> (&first)[V], Vec<S> (&second)[V]) {
  constexpr int R = 4 / V;
  Vec<S> a[R][V] = {}, b[R][V] = {};
  int64_t m = 0;
  for (; m + R <= lines; m += R) {
    PYNAS_UNROLL
    for (int i = 0; i < R; ++i) PYNAS_UNROLL
    for (int v = 0; v < V; ++v) terms(m + i, v, a[i][v], b[i][v]);
  }
  for (; m < lines; ++m) PYNAS_UNROLL
  for (int v = 0; v < V; ++v) terms(m, v, a[0][v], b[0][v]);
  PYNAS_UNROLL
  for (int v = 0; v < V; ++v) {
    first[v] = a[0][v];
    second[v] = b[0][v];
    for (int i = 1; i < R; ++i) {
      first[v] += a[i][v];
      second[v] += b[i][v];
    }
  }
}

// The inputs that take part, those whose weight is not zero: index[0 .. count).
template <class S>
struct Active {
  int count = 0;
  int index[NormalizedSumParams::kMaxInputs];
  S weight[NormalizedSumParams::kMaxInputs];  // of every input

  explicit Active(const NormalizedSumParams& p) {
    for (int k = 0; k < p.count; ++k) {
      weight[k] = p.weights == nullptr ? S(1) : static_cast<const S*>(p.weights)[k];
      if (weight[k] != S(0)) index[count++] = k;
    }
  }
};

// How memory is walked. Rows (inner = 1): r rows of channels together fill whole vectors, so that any number
// of channels takes no partial ones; a pattern of P = r C coefficients repeats, and fewer than r rows are
// left over at the end (the tail). Planes: a channel's inner values are neighbours; the pattern is one value
// per channel.
template <class S>
struct Walk {
  bool planes;
  int64_t repeat;   // r
  int64_t pattern;  // P, or C for planes
  int64_t units;    // whole patterns, or planes
  int64_t tail;     // elements behind the last whole pattern
  int64_t tasks;

  Walk(const NormalizedSumParams& p, const Parallel& parallel) : planes(p.inner > 1) {
    repeat = 1;
    while (!planes && repeat * p.channels % kLanes<S> != 0) repeat *= 2;
    pattern = repeat * p.channels;
    units = planes ? p.outer * p.channels : p.outer / repeat;
    tail = planes ? 0 : (p.outer - units * repeat) * p.channels;
    const int64_t work = p.outer * p.channels * p.inner * p.count;
    tasks = least(parallel.threads, 1 + work / 32768);
  }
  int64_t first_unit(int64_t task) const { return units * task / tasks; }

  // Values that task `task` has seen of pattern entry q.
  double values(const NormalizedSumParams& p, int64_t task, int64_t q) const {
    const int64_t begin = first_unit(task), end = first_unit(task + 1);
    if (!planes) return static_cast<double>(end - begin);
    const int64_t before_end = (end + pattern - 1 - q) / pattern,
                  before_begin = (begin + pattern - 1 - q) / pattern;
    return static_cast<double>((before_end - before_begin) * p.inner);
  }
};

}  // namespace pynas::cpu::PYNAS_ISA_NS
