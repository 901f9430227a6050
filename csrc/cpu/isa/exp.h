// 2^x on vectors, for the softmax. Included by kernel files inside for_each_isa.h, after vec.h.

constexpr double kLog2OfE = 1.4426950408889634;

// 2^x for x <= 0, to two units in the last place; 0 from -126.5 down, a NaN stays one.
inline Vec<float> exp2_nonpositive(Vec<float> x) {
  using Ints = typename VecOf<float>::ints;
  const Vec<float> clamped = larger<float>(broadcast(-127.0f), x);  // 2^-127 comes out as 0
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the lowest bits.
  const Vec<float> shifted = clamped + 12582912.0f;
  const Vec<float> r = clamped - (shifted - 12582912.0f);  // in [-0.5, 0.5]
  // 2^r on that interval: the polynomial of degree 5 with p(0) = 1 whose largest relative error,
  // 9e-8, is smallest (weighted least squares, the weights raised where the error peaked).
  Vec<float> p = broadcast(1.326472731e-3f);
  p = p * r + 9.671512991e-3f;
  p = p * r + 5.550733581e-2f;
  p = p * r + 2.402224243e-1f;
  p = p * r + 6.931470037e-1f;
  p = p * r + 1.0f;
  Ints exponent;
  __builtin_memcpy(&exponent, &shifted, sizeof(exponent));
  exponent = (exponent + 127) << 23;
  Vec<float> power;
  __builtin_memcpy(&power, &exponent, sizeof(power));
  return p * power;
}

inline Vec<double> exp2_nonpositive(Vec<double> x) {
  Vec<double> result;
  for (int i = 0; i < kLanes<double>; i++) {
    result[i] = __builtin_exp2(x[i]);
  }
  return result;
}
