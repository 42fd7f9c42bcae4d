// The exponential function of vectors of numbers x <= 0, and the transfer of a sign.
// Include only from files compiled per ISA.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/simd.h"

namespace pynas::cpu::PYNAS_ISA_NS {

// e^r - 1 = r + r^2 P(r) for |r| <= ln(2) / 2, P fitted in Chebyshev's nodes; the argument is reduced by
// x = n ln 2 + r, with ln 2 in two parts of which the first times n is exact (Cody & Waite 1980).
template <class T>
struct ExponentialConstants;

template <>
struct ExponentialConstants<float> {
  using Bits = int32_t;
  static constexpr float kLog2e = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr float kRound = 0x1.8p23f;    // added, it leaves the nearest integer in the lowest bits
  static constexpr float kSmallest = -87.336f;  // below lie results that are not normal numbers
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kPolynomial[] = {0.00139262135f, 0.00836320297f, 0.0416665544f, 0.166665768f, 0.5f};
};

template <>
struct ExponentialConstants<double> {
  using Bits = int64_t;
  static constexpr double kLog2e = 1.44269504088896340736, kLn2High = 0x1.62e42fee00000p-1,
                          kLn2Low = 0x1.a39ef35793c76p-33;
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kSmallest = -708.396;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kPolynomial[] = {
      1.6086650044578211e-10, 2.0918170876658783e-9, 2.5052071034565118e-8, 2.7557263189476207e-7,
      2.7557319247274563e-6,  2.4801587336526004e-5, 1.9841269841268278e-4, 1.3888888888879043e-3,
      8.3333333333333401e-3,  4.1666666666666677e-2, 1.6666666666666667e-1, 0.5};
};

template <class T>
struct Exponential {
  Vec<T> exp, expm1;  // e^x and e^x - 1, each with a small relative error
};

// For x <= 0 or NaN, which stays NaN. Within 2 ulp; exp below the smallest normal number is zero.
template <class T>
PYNAS_INLINE Exponential<T> exponential(Vec<T> x) {
  using C = ExponentialConstants<T>;
  typedef typename C::Bits Bits __attribute__((vector_size(kVectorBytes)));
  const auto underflow = x < C::kSmallest;
  x = underflow ? Vec<T>{} + C::kSmallest : x;
  const Vec<T> rounded = x * C::kLog2e + C::kRound;
  const Vec<T> n = rounded - C::kRound;
  const Vec<T> r = (x - n * C::kLn2High) - n * C::kLn2Low;
  Vec<T> p = Vec<T>{} + C::kPolynomial[0];
  PYNAS_UNROLL
  for (size_t i = 1; i < sizeof(C::kPolynomial) / sizeof(T); ++i) p = p * r + C::kPolynomial[i];
  p = r * r * p + r;
  // 2^n, built in the exponent: the lowest bits of `rounded` are n, and the shift drops the others.
  const Bits power =
      (reinterpret_cast<Bits>(rounded) << C::kMantissa) + ((Bits{} + C::kBias) << C::kMantissa);
  const Vec<T> scale = reinterpret_cast<Vec<T>>(power);
  const Vec<T> exp = scale * p + scale, expm1 = scale * p + (scale - T(1));
  return {underflow ? Vec<T>{} : exp, expm1};
}

// |magnitude| with the sign of `from`, also of zeros and NaN.
template <class T>
PYNAS_INLINE Vec<T> with_sign(Vec<T> magnitude, Vec<T> from) {
  typedef std::make_unsigned_t<typename ExponentialConstants<T>::Bits> Bits
      __attribute__((vector_size(kVectorBytes)));
  const Bits sign = reinterpret_cast<Bits>(broadcast<T>(-T(0)));
  return reinterpret_cast<Vec<T>>((reinterpret_cast<Bits>(magnitude) & ~sign) |
                                  (reinterpret_cast<Bits>(from) & sign));
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
