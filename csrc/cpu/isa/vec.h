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

// The larger of each lane; a NaN in `b` stays one.
template <typename T>
inline Vec<T> larger(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

// Sums in a fixed order, so that results do not change from run to run.
template <typename T>
inline T sum_of_lanes(Vec<T> v) {
  T sum = v[0];
  for (int i = 1; i < kLanes<T>; i++) {
    sum += v[i];
  }
  return sum;
}
