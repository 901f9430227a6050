// A whole Iwin block for inference, in one pass over the map: schema and checks.
#include "block.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include "checks.h"

namespace iwin_d2 {

WindowGrid check_block(
    const at::Tensor& x,
    const BlockParameters& parameters,
    int64_t num_heads,
    at::IntArrayRef window_size) {
  check_window(window_size);
  TORCH_CHECK_VALUE(
      x.dim() == 4 || x.dim() == 5,
      "expected a map of shape [B, H, W, C] or [B, T, H, W, C], got shape ",
      shape_text(x.sizes()));
  check_sides(x.sizes(), 1, x.dim() - 1);
  const int64_t channels = x.size(-1);
  TORCH_CHECK_VALUE(
      num_heads >= 1 && channels % num_heads == 0,
      "expected a number of channels divisible by num_heads, got ",
      channels,
      " channels and ",
      num_heads,
      " heads");
  TORCH_CHECK_VALUE(
      parameters.fc1_weight.dim() == 2,
      "expected fc1_weight of two dimensions, got shape ",
      shape_text(parameters.fc1_weight.sizes()));
  const int64_t hidden = parameters.fc1_weight.size(0);
  check_parameter("norm1_weight", parameters.norm1_weight, {channels}, x);
  check_parameter("norm1_bias", parameters.norm1_bias, {channels}, x);
  check_parameter("qkv_weight", parameters.qkv_weight, {3 * channels, channels}, x);
  check_parameter("qkv_bias", parameters.qkv_bias, {3 * channels}, x);
  check_parameter("proj_weight", parameters.proj_weight, {channels, channels}, x);
  check_parameter("proj_bias", parameters.proj_bias, {channels}, x);
  if (parameters.depthwise_weight.has_value()) {
    check_parameter("depthwise_weight", *parameters.depthwise_weight, {channels, 1, 3, 3}, x);
  }
  if (parameters.depthwise_bias.has_value()) {
    check_parameter("depthwise_bias", *parameters.depthwise_bias, {channels}, x);
  }
  check_parameter("norm2_weight", parameters.norm2_weight, {channels}, x);
  check_parameter("norm2_bias", parameters.norm2_bias, {channels}, x);
  check_parameter("fc1_weight", parameters.fc1_weight, {hidden, channels}, x);
  check_parameter("fc1_bias", parameters.fc1_bias, {hidden}, x);
  check_parameter("fc2_weight", parameters.fc2_weight, {channels, hidden}, x);
  check_parameter("fc2_bias", parameters.fc2_bias, {channels}, x);
  return grid_of(x, window_size);
}

}  // namespace iwin_d2

TORCH_LIBRARY_FRAGMENT(iwin_d2, m) {
  // x: [B, H, W, C] or [B, T, H, W, C] -> the same shape, contiguous. Channels and hidden channels
  // are multiples of 16. No gradients.
  m.def(
      "iwin_block(Tensor x, Tensor norm1_weight, Tensor norm1_bias, Tensor qkv_weight, "
      "Tensor qkv_bias, Tensor proj_weight, Tensor proj_bias, Tensor? depthwise_weight, "
      "Tensor? depthwise_bias, Tensor norm2_weight, Tensor norm2_bias, Tensor fc1_weight, "
      "Tensor fc1_bias, Tensor fc2_weight, Tensor fc2_bias, int num_heads, int[2] window_size, "
      "float eps) -> Tensor");
}
