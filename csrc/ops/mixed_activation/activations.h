// One predecessor's share of a node, vector by vector: see mixed_activation.h for the formulas. Which
// activations have a weight is a template parameter, so those without one cost nothing.
#pragma once

#include "common/simd_convert.h"
#include "common/simd_math.h"
#include "ops/mixed_activation/mixed_activation.h"

namespace pynas::cpu::PYNAS_ISA_NS {

template <class T>
using SumOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

constexpr int bit(Activation a) { return 1 << static_cast<int>(a); }

// The weights of predecessor j, and which of them are not zero.
template <class S>
struct EdgeWeights {
  S of[kActivations] = {};
  S total = 0;
  int mask = 0;

  EdgeWeights(const MixedActivationParams& p, int64_t j) {
    const S* row = static_cast<const S*>(p.weights) + j * p.candidates;
    for (int a = 0; a < kActivations; ++a) {
      const S weight = p.column[a] < 0 ? S(0) : row[p.column[a]];
      if (weight == S(0)) continue;
      of[a] = weight;
      total += weight;
      mask |= 1 << a;
    }
  }
  S operator[](Activation a) const { return of[static_cast<int>(a)]; }
};

// sigma(c), 1 - sigma(c), and f_k(h), f_k'(h) of the activations in the mask. With t = e^-|x|,
//
//   sigma(|x|)  = 1 / (1 + t)
//   sigma(-|x|) = t / (1 + t)
//   tanh(|x|)   = (1 - t^2) / (1 + t^2)
//
// where t^2 - 1 = (t - 1) (t - 1 + 2) comes from t - 1 without cancelling. All quotients share one division:
// their denominators lie in [1, 2], so the product cannot overflow. The branches on the mask are the same for
// all vectors; kAll is without them.
template <class S, bool kAll>
struct Gate {
  using V = Vec<S>;
  V open, shut;                 // sigma(c), 1 - sigma(c)
  V value[kActivations] = {};   // f_k(h)
  V tanh_slope, sigmoid_slope;  // f_k'(h)

  PYNAS_INLINE Gate(V c, V h, int mask) {
    const bool has_tanh = kAll || (mask & bit(Activation::kTanh)) != 0;
    const bool has_sigmoid = kAll || (mask & bit(Activation::kSigmoid)) != 0;
    const V one = broadcast<S>(S(1));
    const V tc = exponential<S>(-abs(c)).exp;
    const V bottom_c = one + tc;
    V inverse_c;
    if (has_tanh || has_sigmoid) {
      const Exponential<S> th = exponential<S>(-abs(h));
      const V square_less_one = th.expm1 * (th.expm1 + S(2));  // t^2 - 1
      const V bottom_s = has_sigmoid ? one + th.exp : one, bottom_t = has_tanh ? square_less_one + S(2) : one;
      const V pair = bottom_s * bottom_t, r = one / (bottom_c * pair), rc = r * bottom_c;
      inverse_c = r * pair;
      if (has_tanh) {
        const V inverse = rc * bottom_s, twice = (th.exp + th.exp) * inverse;
        value[0] = with_sign<S>(square_less_one * inverse, h);
        tanh_slope = twice * twice;  // 1 - tanh^2 = 4 t^2 / (1 + t^2)^2
      }
      if (has_sigmoid) {
        const V inverse = rc * bottom_t;
        value[2] = (h < S(0) ? th.exp : one) * inverse;
        sigmoid_slope = th.exp * inverse * inverse;
      }
    } else {
      inverse_c = one / bottom_c;
    }
    const auto negative = c < S(0);
    open = (negative ? tc : one) * inverse_c;
    shut = (negative ? one : tc) * inverse_c;
    value[1] = h < V{} ? V{} : h;  // NaN stays
    value[3] = h;
  }
};

}  // namespace pynas::cpu::PYNAS_ISA_NS
