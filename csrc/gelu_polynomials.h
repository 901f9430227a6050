// What the exact (erf) GELU and its derivative are made of in float32, for numbers (CUDA) and for
// vectors of them (the CPU). No include guard: included inside a namespace, on the CPU inside that
// of each instruction set.
//
// With the distribution function F of the standard normal, gelu(x) = x F(x). F falls off like an
// exponential, so in float32 it comes from F(-a) = 2^(-q(a)), a = |x|, where q is close to a
// parabola: values of small F keep their relative accuracy, and nothing has to be divided. The
// derivative is F(x) + x f(x) with the density f; for x = -a that is F(-a) m(a) with
// m(a) = 1 - a f(a) / F(-a), almost a parabola as well, and F(x) = 1 - F(-x) gives the other half.
//
// Polynomials: weighted least squares on 3,000 points of [0, 6] against 40 digits, the weights
// raised where the error peaked (Lawson) until it was flat, then rounded to float32. The weights
// bound the error of F itself: at most 2.3e-8, and 0.3 % of F(-a) up to a = 6, beyond which F(-a)
// is under 1e-9 and q goes on growing to infinity; of the derivative: at most 1.8e-7. With the
// rounding of the evaluation gelu is within 1.2e-7 * max(1, |x|) for every float32, its derivative
// within 2.4e-7 (tests/ops/test_bias_gelu.py allows twice as much).

#if defined(__CUDACC__)
#define IWIN_POLYNOMIAL __device__ __forceinline__
#else
#define IWIN_POLYNOMIAL inline
#endif

// -q(a): F(-a) is 2 to its power, for a >= 0; 0 from a = 10.8 on.
template <typename V>
IWIN_POLYNOMIAL V log2_of_normal_tail(V a) {
  V q = V{} - 1.50155301526e-06f;
  q = q * a + 2.44748953264e-05f;
  q = q * a - 1.21140961710e-04f;
  q = q * a - 2.78915220406e-04f;
  q = q * a + 7.22826598212e-03f;
  q = q * a - 5.25959953666e-02f;
  q = q * a - 4.59179580212e-01f;
  q = q * a - 1.15110826492e+00f;
  q = q * a - 9.99999940395e-01f;
  return q;
}

// m(a) for 0 <= a <= kNormalTailEnds.
template <typename V>
IWIN_POLYNOMIAL V gelu_grad_over_normal_tail(V a) {
  V m = V{} - 6.15732894701e-06f;
  m = m * a + 8.95214398042e-05f;
  m = m * a - 3.51696769940e-04f;
  m = m * a - 1.35609856807e-03f;
  m = m * a + 2.05616280437e-02f;
  m = m * a - 1.09725996852e-01f;
  m = m * a - 6.36445939541e-01f;
  m = m * a - 7.97900080681e-01f;
  m = m * a + 1.00000023842e+00f;
  return m;
}

// From there on F(-a) is 0 in float32, and m need not be known: it only must not overflow.
constexpr float kNormalTailEnds = 16.0f;

#undef IWIN_POLYNOMIAL
