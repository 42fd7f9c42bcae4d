// The CPU kernels of mixed_activation: see mixed_activation.h for the formulas.
#include "ops/mixed_activation/mixed_activation.h"

#include <cstring>

#include "common/fold.h"
#include "common/visit.h"
#include "ops/mixed_activation/activations.h"
#include "ops/mixed_activation/columns.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

// Where a vector of features lies in its row. The last one of a row is moved back to be whole: its first
// lanes are done already and give the same results again, but do not count in sums. A row shorter than a
// vector (kShort) is one vector of as many lanes as it has features.
template <class S, bool kShort>
struct Place {
  int64_t first;  // the first feature that counts
  int64_t d;      // the vector's first feature
  int lanes;

  template <class T>
  PYNAS_INLINE Vec<S> read(const T* p) const {
    return kShort ? read_lanes<S>(p + d, lanes) : load_as<S>(p + d);
  }
  template <class T>
  PYNAS_INLINE void write(T* p, Vec<S> v) const {
    if constexpr (kShort) {
      for (int i = 0; i < lanes; ++i) store_one(v[i], p[i]);
    } else {
      store_whole(p + d, v);
    }
  }
  // v, with zeros in the lanes that do not count.
  PYNAS_INLINE Vec<S> fresh(Vec<S> v) const {
    typedef typename ExponentialConstants<S>::Bits Bits;
    typedef Bits Lanes __attribute__((vector_size(kVectorBytes)));
    Lanes lane;
    for (int i = 0; i < kLanes<S>; ++i) lane[i] = i;
    const Lanes skipped = Lanes{} + static_cast<Bits>(first - d), end = Lanes{} + static_cast<Bits>(lanes);
    if constexpr (kShort) return lane < end ? v : Vec<S>{};
    return lane >= skipped ? v : Vec<S>{};
  }
};

// Calls body(row, place) for the vectors of rows [begin, end).
template <class S, bool kShort, class F>
PYNAS_INLINE void for_vectors(int64_t features, int64_t begin, int64_t end, F body) {
  constexpr int64_t kL = kLanes<S>;
  for (int64_t b = begin; b < end; ++b) {
    if constexpr (kShort) {
      body(b, Place<S, true>{0, 0, static_cast<int>(features)});
    } else {
      for (int64_t first = 0; first < features; first += kL)
        body(b, Place<S, false>{first, first + kL <= features ? first : features - kL, kL});
    }
  }
}

// The memory of predecessor j.
template <class T>
struct Edge {
  const T *states, *products;
  T *grad_states, *grad_products;

  Edge(const MixedActivationParams& p, int64_t j)
      : states(static_cast<const T*>(p.states) + j * p.batch * p.features),
        products(static_cast<const T*>(p.products) + 2 * j * p.batch * p.features),
        grad_states(static_cast<T*>(p.grad_states) + j * p.batch * p.features),
        grad_products(static_cast<T*>(p.grad_products) + 2 * j * p.batch * p.features) {}
};

// sums_bd += the share of predecessor j, rows [begin, end).
template <class T, bool kAll, bool kShort>
void forward_edge(const MixedActivationParams& p, int64_t j, const EdgeWeights<SumOf<T>>& w, int64_t begin,
                  int64_t end) {
  using S = SumOf<T>;
  const int64_t D = p.features;
  const Edge<T> edge(p, j);
  S* sums = static_cast<S*>(p.sums);
  for_vectors<S, kShort>(D, begin, end, [&](int64_t b, const auto& place) __attribute__((always_inline)) {
    const Vec<S> s = place.read(edge.states + b * D);
    const Vec<S> c = place.read(edge.products + 2 * b * D), h = place.read(edge.products + (2 * b + 1) * D);
    const Gate<S, kAll> gate(c, h, w.mask);
    Vec<S> mixture{};
    PYNAS_UNROLL
    for (int a = 0; a < kActivations; ++a) {
      if (kAll || (w.mask >> a & 1) != 0) mixture += w.of[a] * gate.value[a];
    }
    const Vec<S> carried = s * w.total, share = carried + gate.open * (mixture - carried);
    place.write(sums + b * D, place.read(sums + b * D) + place.fresh(share));
  });
}

// The gradients of predecessor j, rows [begin, end), and its row of the block's partial sums.
template <class T, bool kAll, bool kShort>
void backward_edge(const MixedActivationParams& p, int64_t j, const EdgeWeights<SumOf<T>>& w, int64_t begin,
                   int64_t end, double* partial) {
  using S = SumOf<T>;
  const int64_t D = p.features;
  const Edge<T> edge(p, j);
  const S* sums = static_cast<const S*>(p.sums);
  const auto has = [&](Activation a) { return kAll || (w.mask & bit(a)) != 0; };
  Vec<S> carried{}, of[kActivations] = {};  // sum e s (1 - sigma), sum e sigma f_k
  for_vectors<S, kShort>(D, begin, end, [&](int64_t b, const auto& place) __attribute__((always_inline)) {
    const Vec<S> s = place.read(edge.states + b * D), e = place.read(sums + b * D);
    const Vec<S> c = place.read(edge.products + 2 * b * D), h = place.read(edge.products + (2 * b + 1) * D);
    const Gate<S, kAll> gate(c, h, w.mask);
    const Vec<S> opened = e * gate.open, shut = e * gate.shut, opened_fresh = place.fresh(opened);
    Vec<S> mixture{}, slope{};
    PYNAS_UNROLL
    for (int a = 0; a < kActivations; ++a) {
      if (!kAll && (w.mask >> a & 1) == 0) continue;
      mixture += w.of[a] * gate.value[a];
      of[a] += opened_fresh * gate.value[a];
    }
    if (has(Activation::kTanh)) slope += w[Activation::kTanh] * gate.tanh_slope;
    if (has(Activation::kRelu)) slope += h > S(0) ? broadcast<S>(w[Activation::kRelu]) : Vec<S>{};
    if (has(Activation::kSigmoid)) slope += w[Activation::kSigmoid] * gate.sigmoid_slope;
    slope += w[Activation::kIdentity];
    carried += place.fresh(shut) * s;
    place.write(edge.grad_states + b * D, shut * w.total);
    place.write(edge.grad_products + 2 * b * D, opened * gate.shut * (mixture - s * w.total));
    place.write(edge.grad_products + (2 * b + 1) * D, opened * slope);
  });
  const double common = static_cast<double>(sum_lanes<S>(carried));
  for (int a = 0; a < kActivations; ++a) {
    partial[a] = w.mask >> a & 1 ? common + static_cast<double>(sum_lanes<S>(of[a])) : 0.0;
  }
}

// Calls body.operator()<kAll, kShort>().
template <class S, class F>
PYNAS_INLINE void with_variant(int mask, int64_t features, F body) {
  const bool all = mask == (1 << kActivations) - 1, few = features < kLanes<S>;
  if (few) return body.template operator()<false, true>();
  return all ? body.template operator()<true, false>() : body.template operator()<false, false>();
}

// The gradients of a predecessor without a weight.
template <class T>
void clear_edge(const MixedActivationParams& p, int64_t j, int64_t begin, int64_t end) {
  const int64_t first = (j * p.batch + begin) * p.features, n = (end - begin) * p.features;
  std::memset(static_cast<T*>(p.grad_states) + first, 0, static_cast<size_t>(n) * sizeof(T));
  std::memset(static_cast<T*>(p.grad_products) + 2 * first, 0, static_cast<size_t>(2 * n) * sizeof(T));
}

// Calls body(block, first row, end row) for every block, enough of them to a thread to be worth its start.
template <class F>
void for_blocks(const MixedActivationParams& p, const Parallel& parallel, F body) {
  const int64_t rows = mixed_activation_block_rows(p.features), work = rows * p.features * p.predecessors;
  parallel(mixed_activation_blocks(p.batch, p.features), 1 + 8192 / (work + 1),
           [&](int64_t begin, int64_t end) {
             for (int64_t block = begin; block < end; ++block) {
               const int64_t last = (block + 1) * rows;
               body(block, block * rows, last < p.batch ? last : p.batch);
             }
           });
}

template <class T>
void forward(const MixedActivationParams& p, const Parallel& parallel) {
  using S = SumOf<T>;
  S* sums = static_cast<S*>(p.sums);
  for_blocks(p, parallel, [&](int64_t block, int64_t begin, int64_t end) {
    for (int64_t i = begin * p.features; i < end * p.features; ++i) sums[i] = S(0);
    for (int64_t j = 0; j < p.predecessors; ++j) {
      const EdgeWeights<S> weights(p, j);
      if (weights.mask == 0) continue;
      with_variant<S>(weights.mask, p.features, [&]<bool kAll, bool kShort>() {
        forward_edge<T, kAll, kShort>(p, j, weights, begin, end);
      });
    }
    if (p.normalization == Normalization::kNone) finish_rows<T>(p, begin, end);
    if (p.normalization == Normalization::kBatch) block_moments<S>(p, block, begin, end);
  });
  if (p.normalization == Normalization::kNone) return;
  if (p.normalization == Normalization::kBatch)
    parallel(p.features, 1024, [&](int64_t from, int64_t to) { merge_moments<S>(p, from, to); });
  column_scales<S>(p);
  for_blocks(p, parallel, [&](int64_t, int64_t begin, int64_t end) { finish_rows<T>(p, begin, end); });
}

template <class T>
void backward(const MixedActivationParams& p, const Parallel& parallel) {
  using S = SumOf<T>;
  const int64_t blocks = mixed_activation_blocks(p.batch, p.features);
  if (p.normalization != Normalization::kNone) column_scales<S>(p);
  if (p.normalization == Normalization::kBatch) {
    for_blocks(p, parallel,
               [&](int64_t block, int64_t begin, int64_t end) { block_gradients<T>(p, block, begin, end); });
    parallel(p.features, 1024, [&](int64_t from, int64_t to) { merge_gradients<S>(p, from, to); });
  }
  for_blocks(p, parallel, [&](int64_t block, int64_t begin, int64_t end) {
    fold_gradient<T>(p, begin, end);
    for (int64_t j = 0; j < p.predecessors; ++j) {
      const EdgeWeights<S> weights(p, j);
      double* partial = p.partial + (block * p.predecessors + j) * kActivations;
      if (weights.mask == 0) {
        clear_edge<T>(p, j, begin, end);
        for (int a = 0; a < kActivations; ++a) partial[a] = 0.0;
        continue;
      }
      with_variant<S>(weights.mask, p.features, [&]<bool kAll, bool kShort>() {
        backward_edge<T, kAll, kShort>(p, j, weights, begin, end, partial);
      });
    }
  });
  S* grad = static_cast<S*>(p.grad_weights);
  for (int64_t i = 0; i < p.predecessors * p.candidates; ++i) grad[i] = S(0);
  for (int64_t j = 0; j < p.predecessors; ++j) {
    for (int a = 0; a < kActivations; ++a) {
      if (p.column[a] < 0) continue;
      double total = 0.0;
      for (int64_t block = 0; block < blocks; ++block)
        total += p.partial[(block * p.predecessors + j) * kActivations + a];
      grad[j * p.candidates + p.column[a]] = static_cast<S>(total);
    }
  }
}

}  // namespace

void mixed_activation(const MixedActivationParams& p, const Parallel& parallel) {
  visit_dtype_without_half(p.dtype, [&](auto types) { forward<typename decltype(types)::In>(p, parallel); });
}

void mixed_activation_backward(const MixedActivationParams& p, const Parallel& parallel) {
  visit_dtype_without_half(p.dtype, [&](auto types) { backward<typename decltype(types)::In>(p, parallel); });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
