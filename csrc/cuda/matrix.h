// Small matrix products of a warp, from shared memory and registers, summed in float32.
//
// One product takes kDepth numbers of each row of `Left` (16 rows) and of each column of `Right`
// (8 columns) into a `Tile` of 16 x 8 sums. How they are spread over the lanes (PTX ISA, "Matrix
// Fragments for mma.m16n8k16" and "m16n8k8"; g = lane / 4, t = lane % 4):
//
//   Tile   sums[0], [1]: row g, columns 2t and 2t + 1;  sums[2], [3]: row g + 8, the same columns
//   16 bits, kDepth 16: two neighbouring numbers in a register, depth growing with the register
//   Left   [0] row g, depth 2t;  [1] row g + 8;  [2] row g, depth 2t + 8;  [3] row g + 8, likewise
//   Right  [0] column g, depth 2t;  [1] depth 2t + 8
//   32 bits, kDepth 8: as 16 bits with one number for two, depth t and t + 4. A sum does not mind
//          in which order the depth is counted, if both sides agree: here t stands for 2t, and
//          t + 4 for 2t + 1. So a Tile is a Left as it is, for either width.
//
// float32 goes in as the sum of two numbers of 11 bits, and three of the four products are made:
// what is left out is 2^-22 of the whole.
#pragma once

#include "instructions.h"

namespace iwin_d2 {

// Numbers that a row of a matrix in shared memory has beyond its columns, so that the rows that a
// warp reads at once lie in different banks; rows stay aligned to 16 bytes.
constexpr int kGap = 8;

struct Tile {
  float sums[4];

  // Of the lane's sums: which row of the tile, and which column.
  static __device__ __forceinline__ int row(int i) {
    return static_cast<int>(threadIdx.x) % kWarp / 4 + i / 2 * 8;
  }
  static __device__ __forceinline__ int column(int i) {
    return static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
  }
};

template <typename In>
struct Matrix {
  static constexpr int kDepth = 16;

  struct Left {
    uint32_t parts[4];
  };
  struct Right {
    uint32_t parts[2];
  };

  // Rows row .. row + 15, depth along the columns from `depth`.
  static __device__ __forceinline__ Left left(const In* m, int stride, int row, int depth) {
    const int lane = threadIdx.x % kWarp;
    Left a;
    load_matrices<false>(
        a.parts, m + (row + lane / 8 % 2 * 8 + lane % 8) * stride + depth + lane / 16 * 8);
    return a;
  }

  // Columns n .. n + 15 of the transposed matrix: depth along its columns.
  static __device__ __forceinline__ void right_transposed(
      Right (&b)[2], const In* m, int stride, int n, int depth) {
    const int lane = threadIdx.x % kWarp;
    split<false>(b, m + (n + lane / 16 * 8 + lane % 8) * stride + depth + lane / 8 % 2 * 8);
  }

  // Columns n .. n + 15 of the matrix as it is: depth along its rows.
  static __device__ __forceinline__ void right(
      Right (&b)[2], const In* m, int stride, int depth, int n) {
    const int lane = threadIdx.x % kWarp;
    split<true>(b, m + (depth + lane / 8 % 2 * 8 + lane % 8) * stride + n + lane / 16 * 8);
  }

  // Tiles side by side, kDepth columns in all.
  static __device__ __forceinline__ Left left(const Tile* tiles) {
    return {
        {pack<In>(tiles[0].sums[0], tiles[0].sums[1]),
         pack<In>(tiles[0].sums[2], tiles[0].sums[3]),
         pack<In>(tiles[1].sums[0], tiles[1].sums[1]),
         pack<In>(tiles[1].sums[2], tiles[1].sums[3])}};
  }

  static __device__ __forceinline__ void multiply(Tile& d, const Left& a, const Right& b) {
    multiply_16<In>(d.sums, a.parts, b.parts);
  }

 private:
  template <bool kTransposed>
  static __device__ __forceinline__ void split(Right (&b)[2], const In* row) {
    uint32_t parts[4];
    load_matrices<kTransposed>(parts, row);
    b[0] = {{parts[0], parts[1]}};
    b[1] = {{parts[2], parts[3]}};
  }
};

template <>
struct Matrix<float> {
  static constexpr int kDepth = 8;

  // Each number as a large part and what that leaves.
  template <int kNumbers>
  struct Halves {
    float large[kNumbers];
    float small[kNumbers];

    __device__ __forceinline__ void set(int i, float x) {
      large[i] = round_to_tf32(x);
      small[i] = round_to_tf32(x - large[i]);
    }
  };
  using Left = Halves<4>;
  using Right = Halves<2>;

  static __device__ __forceinline__ Left left(const float* m, int stride, int row, int depth) {
    const float* at = m + (row + Tile::row(0)) * stride + depth + Tile::column(0);
    Left a;
    a.set(0, at[0]);
    a.set(1, at[8 * stride]);
    a.set(2, at[1]);
    a.set(3, at[8 * stride + 1]);
    return a;
  }

  static __device__ __forceinline__ void right_transposed(
      Right (&b)[2], const float* m, int stride, int n, int depth) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const float* at = m + (n + i * 8 + Tile::row(0)) * stride + depth + Tile::column(0);
      b[i].set(0, at[0]);
      b[i].set(1, at[1]);
    }
  }

  static __device__ __forceinline__ void right(
      Right (&b)[2], const float* m, int stride, int depth, int n) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const float* at = m + (depth + Tile::column(0)) * stride + n + i * 8 + Tile::row(0);
      b[i].set(0, at[0]);
      b[i].set(1, at[stride]);
    }
  }

  static __device__ __forceinline__ Left left(const Tile* tiles) {
    Left a;
    a.set(0, tiles->sums[0]);
    a.set(1, tiles->sums[2]);
    a.set(2, tiles->sums[1]);
    a.set(3, tiles->sums[3]);
    return a;
  }

  static __device__ __forceinline__ void multiply(Tile& d, const Left& a, const Right& b) {
    multiply_tf32(d.sums, a.small, b.large);
    multiply_tf32(d.sums, a.large, b.small);
    multiply_tf32(d.sums, a.large, b.large);
  }
};

// tiles (16 x kColumns) += rows row .. row + 15 of `left` by the rows of `right`, as far as
// kColumns of these, along kDepth columns of both.
template <typename In, int kColumns, int kDepth>
__device__ __forceinline__ void multiply_rows(
    Tile (&tiles)[kColumns / 8], const In* left, int row, const In* right) {
  using M = Matrix<In>;
  constexpr int kStride = kDepth + kGap;
#pragma unroll
  for (int depth = 0; depth < kDepth; depth += M::kDepth) {
    const auto a = M::left(left, kStride, row, depth);
#pragma unroll
    for (int n = 0; n < kColumns; n += 16) {
      typename M::Right b[2];
      M::right_transposed(b, right, kStride, n, depth);
      M::multiply(tiles[n / 8], a, b[0]);
      M::multiply(tiles[n / 8 + 1], a, b[1]);
    }
  }
}

// tiles (16 x kColumns) += left (16 x kDepth, in registers) by kDepth rows of `right`.
template <typename In, int kColumns, int kDepth>
__device__ __forceinline__ void multiply_tiles(
    Tile (&tiles)[kColumns / 8], const Tile (&left)[kDepth / 8], const In* right) {
  using M = Matrix<In>;
  constexpr int kStride = kColumns + kGap;
#pragma unroll
  for (int depth = 0; depth < kDepth; depth += M::kDepth) {
    const auto a = M::left(&left[depth / 8]);
#pragma unroll
    for (int n = 0; n < kColumns; n += 16) {
      typename M::Right b[2];
      M::right(b, right, kStride, depth, n);
      M::multiply(tiles[n / 8], a, b[0]);
      M::multiply(tiles[n / 8 + 1], a, b[1]);
    }
  }
}

}  // namespace iwin_d2
