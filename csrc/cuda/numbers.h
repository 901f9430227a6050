// N neighbouring numbers of a tensor, which a thread reads and writes at once and computes with in
// float32. What is read or written lies at a multiple of their size in bytes, which
// `for_numbers_at_once` sees to; with N = 1 every tensor will do.
#pragma once

#include <initializer_list>

#include "device.h"

namespace iwin_d2 {

template <typename T, int N>
struct alignas(N * sizeof(T)) Numbers {
  static_assert(N * sizeof(T) <= 16, "a thread reads at most 16 bytes at once");
  T values[N];
};

template <int N, typename T>
__device__ __forceinline__ Numbers<T, N> load_numbers(const T* from) {
  return *reinterpret_cast<const Numbers<T, N>*>(from);
}

template <typename T, int N>
__device__ __forceinline__ void to_floats(const Numbers<T, N>& numbers, float (&to)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) {
    to[i] = static_cast<float>(numbers.values[i]);
  }
}

template <typename T, int N>
__device__ __forceinline__ void load_floats(const T* from, float (&to)[N]) {
  to_floats(load_numbers<N>(from), to);
}

// Rounds to the nearest number of type T.
template <typename T, int N>
__device__ __forceinline__ void store_floats(T* to, const float (&from)[N]) {
  Numbers<T, N> numbers;
#pragma unroll
  for (int i = 0; i < N; i++) {
    numbers.values[i] = static_cast<T>(from[i]);
  }
  *reinterpret_cast<Numbers<T, N>*>(to) = numbers;
}

// Calls run(constant) with N where rows of so many channels at these addresses can be read N
// numbers at a time, else with 1. A null pointer stands for a tensor that is not there.
template <typename T, int N, typename Run>
void for_numbers_at_once(
    int64_t channels, std::initializer_list<const T*> pointers, const Run& run) {
  const bool aligned = std::all_of(pointers.begin(), pointers.end(), [](const T* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % sizeof(Numbers<T, N>) == 0;
  });
  if (channels % N == 0 && aligned) {
    run(std::integral_constant<int, N>{});
  } else {
    run(std::integral_constant<int, 1>{});
  }
}

}  // namespace iwin_d2
