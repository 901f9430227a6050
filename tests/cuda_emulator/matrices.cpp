// What the lanes of a warp multiply and load together, on whole matrices.
#include <algorithm>

#include "emulator.h"

namespace iwin_d2 {
namespace emulator {
namespace {

// Fragments, as the PTX ISA draws them: lane 4 g + t holds two neighbours of row g from column 2 t.

template <typename T>
float number_of(uint32_t bits);

template <>
float number_of<c10::BFloat16>(uint32_t bits) {
  return c10::BFloat16(static_cast<uint16_t>(bits), c10::BFloat16::from_bits());
}

template <>
float number_of<c10::Half>(uint32_t bits) {
  return c10::Half(static_cast<uint16_t>(bits), c10::Half::from_bits());
}

// A row of b or d; the compiler adds and multiplies such vectors.
using Row = float __attribute__((vector_size(8 * sizeof(float))));

template <int Depth>
void multiply(Row (&d)[16], const float (&a)[16][Depth], const Row (&b)[Depth]) {
  for (int i = 0; i < 16; i++) {
    Row sum = d[i];
    for (int k = 0; k < Depth; k++) {
      sum += a[i][k] * b[k];
    }
    d[i] = sum;
  }
}

// The result's fragments: rows g and g + 8, columns 2 t and 2 t + 1. visit(row, column, place).
template <typename Visit>
void for_each_result(int lane, const Visit& visit) {
  for (int i = 0; i < 4; i++) {
    visit(lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2, i);
  }
}

struct Product16 {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

template <typename T>
void multiply_16(void* const (&lanes)[kLanes]) {
  Row d[16], b[16];
  float a[16][16];
  for (int lane = 0; lane < kLanes; lane++) {
    const auto& its = *static_cast<const Product16*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; half++) {
      for (int i = 0; i < 4; i++) {
        a[g + i % 2 * 8][2 * t + i / 2 * 8 + half] = number_of<T>(its.a[i] >> 16 * half);
      }
      for (int i = 0; i < 2; i++) {
        b[2 * t + i * 8 + half][g] = number_of<T>(its.b[i] >> 16 * half);
      }
    }
    for_each_result(lane, [&](int row, int column, int i) { d[row][column] = its.d[i]; });
  }
  multiply(d, a, b);
  for (int lane = 0; lane < kLanes; lane++) {
    const auto& its = *static_cast<const Product16*>(lanes[lane]);
    for_each_result(lane, [&](int row, int column, int i) { its.d[i] = d[row][column]; });
  }
}

struct ProductTf32 {
  float* d;
  const float* a;
  const float* b;
};

void multiply_tf32(void* const (&lanes)[kLanes]) {
  Row d[16], b[8];
  float a[16][8];
  for (int lane = 0; lane < kLanes; lane++) {
    const auto& its = *static_cast<const ProductTf32*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
      a[g + i % 2 * 8][t + i / 2 * 4] = its.a[i];
    }
    for (int i = 0; i < 2; i++) {
      b[t + i * 4][g] = its.b[i];
    }
    for_each_result(lane, [&](int row, int column, int i) { d[row][column] = its.d[i]; });
  }
  multiply(d, a, b);
  for (int lane = 0; lane < kLanes; lane++) {
    const auto& its = *static_cast<const ProductTf32*>(lanes[lane]);
    for_each_result(lane, [&](int row, int column, int i) { its.d[i] = d[row][column]; });
  }
}

void check_is_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  if (std::isfinite(x) && (bits & 0x1fffu) != 0) {
    fail("a number was not rounded to TF32 before it was multiplied");
  }
}

struct Load {
  uint32_t* r;
  const void* row;
};

template <bool Transposed>
void load_matrices(void* const (&lanes)[kLanes]) {
  for (int matrix = 0; matrix < 4; matrix++) {
    uint16_t rows[8][8];
    for (int i = 0; i < 8; i++) {
      std::memcpy(rows[i], static_cast<const Load*>(lanes[8 * matrix + i])->row, sizeof(rows[i]));
    }
    for (int lane = 0; lane < kLanes; lane++) {
      const int g = lane / 4, t = lane % 4;
      const uint32_t low = Transposed ? rows[2 * t][g] : rows[g][2 * t];
      const uint32_t high = Transposed ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
      static_cast<const Load*>(lanes[lane])->r[matrix] = low | high << 16;
    }
  }
}

}  // namespace

void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], c10::BFloat16) {
  Product16 argument{d, a, b};
  together("mma of bfloat16", multiply_16<c10::BFloat16>, &argument);
}

void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], c10::Half) {
  Product16 argument{d, a, b};
  together("mma of float16", multiply_16<c10::Half>, &argument);
}

void mma_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  std::for_each(a, a + 4, check_is_tf32);
  std::for_each(b, b + 2, check_is_tf32);
  ProductTf32 argument{d, a, b};
  together("mma of TF32", multiply_tf32, &argument);
}

void load_matrix_x4(uint32_t (&r)[4], const void* row, bool transposed) {
  check_aligned(row, 16);
  check_is_shared(row, 16);
  note_access(row, 16, false, __builtin_return_address(0));
  Load argument{r, row};
  together(
      transposed ? "ldmatrix.trans" : "ldmatrix",
      transposed ? load_matrices<true> : load_matrices<false>,
      &argument);
}

}  // namespace emulator
}  // namespace iwin_d2
