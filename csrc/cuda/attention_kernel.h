// What the forward and the backward operator on CUDA prepare alike: the problem, and which of the
// kernels' variants serves it.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <type_traits>

#include "../attention.h"
#include "../checks.h"
#include "attention_tile.h"
#include "numbers.h"

namespace iwin_d2 {

constexpr int kMaxHeadDim = 128;

// Calls run(constant) with the smallest of the kernels' head dimensions that holds `head_dim`.
template <typename Run>
void for_head_dim(int64_t head_dim, const Run& run) {
  TORCH_CHECK_VALUE(
      head_dim % 8 == 0 && head_dim <= kMaxHeadDim,
      "expected head dimensions that are multiples of 8 up to ",
      kMaxHeadDim,
      " on CUDA, got ",
      head_dim);
  if (head_dim <= 16) {
    return run(std::integral_constant<int, 16>{});
  }
  if (head_dim <= 32) {
    return run(std::integral_constant<int, 32>{});
  }
  if (head_dim <= 64) {
    return run(std::integral_constant<int, 64>{});
  }
  return run(std::integral_constant<int, 128>{});
}

// Whether every token of a map begins at a multiple of 16 bytes: then every head of it does, since
// heads have a multiple of 8 channels.
template <typename In>
bool in_chunks(const Map<In>& map) {
  constexpr int64_t kChunk = sizeof(Chunk) / sizeof(In);
  return is_aligned(map.data) && map.image % kChunk == 0 && map.frame % kChunk == 0 &&
      map.row % kChunk == 0 && map.column % kChunk == 0;
}

// `padding` is an aligned parameter, or undefined where there is none.
template <typename In>
Problem<In> problem_of(
    const WindowGrid& grid,
    const at::Tensor& qkv,
    int64_t num_heads,
    const at::Tensor& padding,
    double scale) {
  TORCH_CHECK_VALUE(
      grid.tokens_per_window() < kLimit,
      "expected windows of fewer than ",
      kLimit,
      " tokens in all frames, got ",
      grid.tokens_per_window());
  Problem<In> problem;
  problem.grid = grid;
  problem.num_heads = num_heads;
  problem.channels = qkv.size(-1) / 3;
  problem.head_dim = static_cast<int>(problem.channels / num_heads);
  problem.scale = static_cast<float>(scale);
  problem.qkv = map_of<const In>(qkv);
  problem.padding =
      padding.defined() ? static_cast<const In*>(padding.const_data_ptr()) : nullptr;
  problem.in_chunks = in_chunks(problem.qkv);
  return problem;
}

// The most tokens in the map that a window has: the first window has them.
inline int64_t most_tokens(const WindowGrid& grid) {
  return tokens_in(grid, box_at(grid, 0, 0, 0));
}

// The most keys of a window, the padding's being one.
inline int64_t most_keys(const WindowGrid& grid) {
  return std::min(grid.tokens_per_window(), most_tokens(grid) + 1);
}

}  // namespace iwin_d2
