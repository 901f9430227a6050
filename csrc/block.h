#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "interleaved_window.h"

namespace iwin_d2 {

// The parameters of an IwinBlock (iwin_d2/modeling/blocks.py).
struct BlockParameters {
  at::Tensor norm1_weight, norm1_bias;
  at::Tensor qkv_weight, qkv_bias;
  at::Tensor proj_weight, proj_bias;
  std::optional<at::Tensor> depthwise_weight, depthwise_bias;
  at::Tensor norm2_weight, norm2_bias;
  at::Tensor fc1_weight, fc1_bias;
  at::Tensor fc2_weight, fc2_bias;
};

// The grid of a map Tensor[B, H, W, C] or Tensor[B, T, H, W, C]. Raises when a parameter does not
// fit the map.
WindowGrid check_block(
    const at::Tensor& x,
    const BlockParameters& parameters,
    int64_t num_heads,
    at::IntArrayRef window_size);

}  // namespace iwin_d2
