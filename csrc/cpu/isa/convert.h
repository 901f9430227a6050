// Between the element type of a tensor and the type that is computed in: float for bfloat16.
// Included by kernel files inside for_each_isa.h.

using c10::BFloat16;

template <typename In>
struct ComputeOf {
  using type = In;
};

template <>
struct ComputeOf<BFloat16> {
  using type = float;
};

template <typename In>
using Compute = typename ComputeOf<In>::type;

inline float to_compute(float x) {
  return x;
}

inline double to_compute(double x) {
  return x;
}

inline float to_compute(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.x) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

inline void from_compute(float value, float* to) {
  *to = value;
}

inline void from_compute(double value, double* to) {
  *to = value;
}

// To the nearest, ties to even; a NaN stays one.
inline void from_compute(float value, BFloat16* to) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to->x = static_cast<uint16_t>(value == value ? rounded : 0x7fc0);
}

// to[i] = factor * from[i]
template <typename In>
inline void scale_row(
    const In* __restrict from, Compute<In> factor, Compute<In>* __restrict to, int64_t count) {
  using T = Compute<In>;
  int64_t i = 0;
  if constexpr (std::is_same_v<In, T>) {
    for (; i + kLanes<T> <= count; i += kLanes<T>) {
      store(to + i, factor * load(from + i));
    }
  }
  for (; i < count; i++) {
    to[i] = factor * to_compute(from[i]);
  }
}

// The same to a tensor's element type.
template <typename In>
inline void scale_row_out(
    const Compute<In>* __restrict from, Compute<In> factor, In* __restrict to, int64_t count) {
  using T = Compute<In>;
  int64_t i = 0;
  if constexpr (std::is_same_v<In, T>) {
    for (; i + kLanes<T> <= count; i += kLanes<T>) {
      store(to + i, factor * load(from + i));
    }
  }
  for (; i < count; i++) {
    from_compute(factor * from[i], to + i);
  }
}
