// The machine's instructions that C++ has no words for: asynchronous copies, matrix loads and
// matrix products, as the PTX ISA describes them. All but the copies are made by a whole warp together.
#pragma once

#include <cstring>
#include <type_traits>

#include "device.h"

namespace iwin_d2 {

#if defined(IWIN_D2_EMULATED)

inline void copy_chunk_async(void* to, const void* from) {
  emulator::copy_async(to, from);
}

inline void wait_for_copies() {
  emulator::wait_for_copies();
}

inline float exp2_fast(float x) {
  return exp2f(x);
}

template <bool kTransposed>
void load_matrices(uint32_t (&parts)[4], const void* row) {
  emulator::load_matrix_x4(parts, row, kTransposed);
}

template <typename In>
uint32_t pack(float first, float second) {
  const In both[2] = {static_cast<In>(first), static_cast<In>(second)};
  uint32_t bits;
  std::memcpy(&bits, both, sizeof(bits));
  return bits;
}

inline float round_to_tf32(float x) {
  return emulator::round_to_tf32(x);
}

template <typename In>
void multiply_16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::mma(d, a, b, In{});
}

inline void multiply_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  emulator::mma_tf32(d, a, b);
}

#else

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Starts to copy 16 bytes from global to shared memory, both aligned to 16 bytes.
__device__ __forceinline__ void copy_chunk_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}

// Returns when this thread's copies are done; others see them after a barrier.
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// 2 to the power of x, with a relative error of 2^-22; 0 below 2^-126.
__device__ __forceinline__ float exp2_fast(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// Four 8 x 8 matrices of 16-bit numbers. Lane l gives the address of row l % 8 of matrix l / 8, in
// shared memory, and gets, of each matrix, row l / 4, columns 2 * (l % 4) and the next; or, where
// transposed, column l / 4, rows 2 * (l % 4) and the next.
template <bool kTransposed>
__device__ __forceinline__ void load_matrices(uint32_t (&parts)[4], const void* row) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

// Two numbers rounded to In, the first in the lower half.
template <typename In>
__device__ __forceinline__ uint32_t pack(float first, float second) {
  uint32_t both;
  if constexpr (std::is_same_v<In, c10::BFloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  }
  return both;
}

// To 11 bits: the nearest number of the format that the matrix products of float32 take.
__device__ __forceinline__ float round_to_tf32(float x) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
  return __uint_as_float(rounded);
}

// d += a b: 16 x 8 numbers, a 16 x 16, b 16 x 8 numbers of type In.
template <typename In>
__device__ __forceinline__ void multiply_16(
    float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<In, c10::BFloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

// d += a b: 16 x 8 numbers, a 16 x 8, b 8 x 8 numbers that were rounded to tf32.
__device__ __forceinline__ void multiply_tf32(
    float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(__float_as_uint(a[0])),
        "r"(__float_as_uint(a[1])),
        "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b[0])),
        "r"(__float_as_uint(b[1])));
}

#endif

}  // namespace iwin_d2
