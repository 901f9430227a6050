// N neighbouring numbers of a tensor, which a thread reads and writes at once and computes with in
// float32. What is read or written lies at a multiple of their size in bytes, which
// `for_numbers_at_once` sees to; with N = 1 every tensor will do.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstring>
#include <initializer_list>
#include <optional>

#include "instructions.h"

namespace iwin_d2 {

// As they lie in memory, in words: of smaller parts the compiler would move each by itself.
template <typename T, int N>
struct alignas(N * sizeof(T)) Numbers {
  static_assert(N * sizeof(T) == 8 || N * sizeof(T) == 16);
  uint32_t words[N * sizeof(T) / 4];
};

template <typename T>
struct Numbers<T, 1> {
  T value;
};

template <int N, typename T>
__device__ __forceinline__ Numbers<T, N> load_numbers(const T* from) {
  return *reinterpret_cast<const Numbers<T, N>*>(from);
}

template <typename T, int N>
__device__ __forceinline__ void to_floats(const Numbers<T, N>& numbers, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = static_cast<float>(numbers.value);
  } else if constexpr (std::is_same_v<T, float>) {
    memcpy(to, numbers.words, sizeof(to));
  } else {
#pragma unroll
    for (int i = 0; i < N; i++) {
      const uint32_t word = numbers.words[i / 2];
      if constexpr (std::is_same_v<T, c10::BFloat16>) {  // the upper half of a float
        const uint32_t bits = i % 2 == 0 ? word << 16 : word & 0xffff0000u;
        memcpy(&to[i], &bits, sizeof(bits));
      } else {
        to[i] = T(static_cast<uint16_t>(word >> i % 2 * 16), T::from_bits());
      }
    }
  }
}

template <typename T, int N>
__device__ __forceinline__ void load_floats(const T* from, float (&to)[N]) {
  to_floats(load_numbers<N>(from), to);
}

// Rounds to the nearest number of type T. It is written as one integer: of a struct the compiler
// would make several.
template <typename T, int N>
__device__ __forceinline__ void store_floats(T* to, const float (&from)[N]) {
  if constexpr (N == 1) {
    *to = static_cast<T>(from[0]);
  } else {
    uint32_t words[N * sizeof(T) / 4];
    if constexpr (sizeof(T) == 4) {
      memcpy(words, from, sizeof(words));
    } else {
#pragma unroll
      for (int i = 0; i < N / 2; i++) {
        words[i] = pack<T>(from[2 * i], from[2 * i + 1]);
      }
    }
    if constexpr (sizeof(words) == 16) {
      using Word = unsigned __int128;
      *reinterpret_cast<Word*>(to) = static_cast<Word>(words[3]) << 96 |
          static_cast<Word>(words[2]) << 64 | static_cast<uint64_t>(words[1]) << 32 | words[0];
    } else {
      static_assert(sizeof(words) == 8);
      *reinterpret_cast<uint64_t*>(to) = static_cast<uint64_t>(words[1]) << 32 | words[0];
    }
  }
}

// A layer's parameter as the kernels read it: contiguous, and at a multiple of 16 bytes, where one
// that shares its memory with others need not be. It is small, and copied where it is not so; the
// maps, which are large, are read one number at a time instead.
inline at::Tensor aligned_parameter(const at::Tensor& parameter) {
  const at::Tensor contiguous = parameter.contiguous();
  return is_aligned(contiguous.const_data_ptr()) ? contiguous : contiguous.clone();
}

// An undefined tensor where there is none.
inline at::Tensor aligned_parameter(const std::optional<at::Tensor>& parameter) {
  return parameter.has_value() ? aligned_parameter(*parameter) : at::Tensor();
}

// Calls run(constant) with N where the rows of so many channels of all these maps can be read N
// numbers at a time, else with 1. A null pointer stands for a map that is not there.
template <typename T, int N, typename Run>
void for_numbers_at_once(
    int64_t channels, std::initializer_list<const T*> maps, const Run& run) {
  const bool aligned = std::all_of(maps.begin(), maps.end(), [](const T* map) {
    return is_aligned(map, sizeof(Numbers<T, N>));
  });
  if (channels % N == 0 && aligned) {
    run(std::integral_constant<int, N>{});
  } else {
    run(std::integral_constant<int, 1>{});
  }
}

}  // namespace iwin_d2
