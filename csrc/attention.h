#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "interleaved_window.h"

namespace iwin_d2 {

// The grid of a projected map, Tensor[B, H, W, 3 * C] or Tensor[B, T, H, W, 3 * C]. Raises what the
// operator says about arguments that do not fit: rank, channels, window, pad_qkv, device, dtype.
WindowGrid check_attention(
    const at::Tensor& qkv,
    int64_t num_heads,
    at::IntArrayRef window_size,
    const std::optional<at::Tensor>& pad_qkv);

// The same for the backward operator: `grad` has the shape of the forward operator's result.
WindowGrid check_attention_backward(
    const at::Tensor& grad,
    const at::Tensor& qkv,
    int64_t num_heads,
    at::IntArrayRef window_size,
    const std::optional<at::Tensor>& pad_qkv);

}  // namespace iwin_d2
