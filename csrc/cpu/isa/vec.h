// Vectors of the instruction set being compiled, in the compiler's own vector types (GCC, Clang).
// Included by kernel files inside for_each_isa.h: no include guard, no standard headers.

template <typename T>
struct VecOf;

template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(IWIN_VECTOR_BYTES)));
  typedef float unaligned __attribute__((vector_size(IWIN_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t ints __attribute__((vector_size(IWIN_VECTOR_BYTES)));
};

template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(IWIN_VECTOR_BYTES)));
  typedef double unaligned __attribute__((vector_size(IWIN_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t ints __attribute__((vector_size(IWIN_VECTOR_BYTES)));
};

template <typename T>
using Vec = typename VecOf<T>::type;

template <typename T>
constexpr int kLanes = IWIN_VECTOR_BYTES / sizeof(T);

template <typename T>
inline Vec<T> load(const T* from) {
  return *reinterpret_cast<const typename VecOf<T>::unaligned*>(from);
}

template <typename T>
inline void store(T* to, Vec<T> value) {
  *reinterpret_cast<typename VecOf<T>::unaligned*>(to) = value;
}

template <typename T>
inline Vec<T> broadcast(T value) {
  return Vec<T>{} + value;
}

// The larger of each lane; where one is a NaN, `b`. (GCC makes of the general form a comparison and
// a blend, of twice the latency; the intrinsic for 512 bits makes it warn of its own header.)
template <typename T>
inline Vec<T> larger(Vec<T> a, Vec<T> b) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  constexpr bool kFloat = sizeof(T) == 4;
#if IWIN_VECTOR_BYTES == 64
  constexpr int kRoundAsSet = 4;
  if constexpr (kFloat) {
    return __builtin_ia32_maxps512_mask(a, b, Vec<T>{}, -1, kRoundAsSet);
  } else {
    return __builtin_ia32_maxpd512_mask(a, b, Vec<T>{}, -1, kRoundAsSet);
  }
#elif IWIN_VECTOR_BYTES == 32
  if constexpr (kFloat) {
    return __builtin_ia32_maxps256(a, b);
  } else {
    return __builtin_ia32_maxpd256(a, b);
  }
#else
  if constexpr (kFloat) {
    return __builtin_ia32_maxps(a, b);
  } else {
    return __builtin_ia32_maxpd(a, b);
  }
#endif
#else
  return a > b ? a : b;
#endif
}

// Lane i of the result: lane i / 2 of `a` or `b` in turn, of their first or second halves.
template <typename T, bool kSecondHalf, int... kLane>
inline Vec<T> interleave_halves(Vec<T> a, Vec<T> b, std::integer_sequence<int, kLane...>) {
  constexpr int kWidth = kLanes<T>;
  constexpr int kFirst = kSecondHalf ? kWidth / 2 : 0;
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (kFirst + kLane / 2 + kLane % 2 * kWidth)...);
#else
  return __builtin_shuffle(
      a, b, typename VecOf<T>::ints{(kFirst + kLane / 2 + kLane % 2 * kWidth)...});
#endif
}

// Transposes a square of vectors in registers: each round interleaves the upper half of the rows
// with the lower; after log2(lanes) rounds rows have become columns.
template <typename T, int kRounds = kLanes<T>>
inline void transpose_square(Vec<T> (&rows)[kLanes<T>]) {
  if constexpr (kRounds > 1) {
    constexpr int kHalf = kLanes<T> / 2;
    using Lanes = std::make_integer_sequence<int, kLanes<T>>;
    Vec<T> next[kLanes<T>];
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; i++) {
      next[2 * i] = interleave_halves<T, false>(rows[i], rows[i + kHalf], Lanes{});
      next[2 * i + 1] = interleave_halves<T, true>(rows[i], rows[i + kHalf], Lanes{});
    }
    transpose_square<T, kRounds / 2>(next);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; i++) {
      rows[i] = next[i];
    }
  }
}

// Lane i of the result: lane i ^ kMask.
template <typename T, int kMask, int... kLane>
inline Vec<T> swap_lanes(Vec<T> v, std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(v, v, (kLane ^ kMask)...);
#else
  return __builtin_shuffle(v, typename VecOf<T>::ints{(kLane ^ kMask)...});
#endif
}

template <typename T, int kMask = kLanes<T> / 2>
inline Vec<T> sum_in_all_lanes(Vec<T> v) {
  if constexpr (kMask > 0) {
    v += swap_lanes<T, kMask>(v, std::make_integer_sequence<int, kLanes<T>>{});
    return sum_in_all_lanes<T, kMask / 2>(v);
  }
  return v;
}

template <typename T, int kMask = kLanes<T> / 2>
inline Vec<T> maximum_in_all_lanes(Vec<T> v) {
  if constexpr (kMask > 0) {
    v = larger<T>(v, swap_lanes<T, kMask>(v, std::make_integer_sequence<int, kLanes<T>>{}));
    return maximum_in_all_lanes<T, kMask / 2>(v);
  }
  return v;
}

// The sum of the lanes, always in the same order.
template <typename T>
inline T sum_of_lanes(Vec<T> v) {
  return sum_in_all_lanes<T>(v)[0];
}

// 0, 1, 2, ...
template <typename T, int... kLane>
inline typename VecOf<T>::ints lane_numbers(std::integer_sequence<int, kLane...>) {
  return typename VecOf<T>::ints{kLane...};
}

// A vector whose first `count` lanes are from `v` and whose others are `other`.
template <typename T>
inline Vec<T> keep_first(Vec<T> v, int count, T other) {
  const auto lanes = lane_numbers<T>(std::make_integer_sequence<int, kLanes<T>>{});
  return lanes < (typename VecOf<T>::ints{} + count) ? v : broadcast(other);
}
