// Exact (erf) GELU and its derivative on vectors. Included by kernel files inside for_each_isa.h,
// after vec.h and exp.h.

#include "../../gelu_polynomials.h"

// F(-a) for a >= 0; 0 from a = 10.8 on.
inline Vec<float> normal_tail(Vec<float> a) {
  return exp2_nonpositive(log2_of_normal_tail(a));
}

// gelu(inf) is inf and gelu(-inf) a NaN, as x (1 + erf(x / sqrt(2))) / 2 has it.
inline Vec<float> gelu(Vec<float> x) {
  const Vec<float> tail = normal_tail(x < 0 ? -x : x);
  return x * (x < 0 ? tail : 1 - tail);
}

// The derivative of gelu at x; a NaN at both infinities, as PyTorch's.
inline Vec<float> gelu_grad(Vec<float> x) {
  Vec<float> a = x < 0 ? -x : x;
  // Not larger: m must not overflow, nor a NaN get lost.
  const Vec<float> far = broadcast(kNormalTailEnds);
  a = a > far ? far : a;
  const Vec<float> tail = gelu_grad_over_normal_tail(a) * normal_tail(a);
  return (x < 0 ? tail : 1 - tail) + 0 * x;
}

// In float64, lane by lane to the library's accuracy: it serves gradcheck, not speed.
inline Vec<double> gelu(Vec<double> x) {
  constexpr double kSqrtOfHalf = 0.70710678118654752440;
  Vec<double> result;
  for (int i = 0; i < kLanes<double>; i++) {
    result[i] = x[i] * 0.5 * __builtin_erfc(-x[i] * kSqrtOfHalf);
  }
  return result;
}

inline Vec<double> gelu_grad(Vec<double> x) {
  constexpr double kSqrtOfHalf = 0.70710678118654752440;
  constexpr double kDensityAtZero = 0.39894228040143267794;
  Vec<double> result;
  for (int i = 0; i < kLanes<double>; i++) {
    const double density = kDensityAtZero * __builtin_exp(-0.5 * x[i] * x[i]);
    result[i] = 0.5 * __builtin_erfc(-x[i] * kSqrtOfHalf) + x[i] * density;
  }
  return result;
}
