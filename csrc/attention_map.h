// A map of tokens in memory, as the attention's kernels read and write it on every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "interleaved_window.h"

namespace iwin_d2 {

// A map whose channels lie together, with the strides of its other dimensions.
template <typename In>
struct Map {
  In* data;
  int64_t image;
  int64_t frame;
  int64_t row;
  int64_t column;

  // Of a token's first channel.
  IWIN_HOST_DEVICE int64_t offset(const TokenPlace& place) const {
    return place.image * image + place.frame * frame + place.row * row + place.column * column;
  }

  IWIN_HOST_DEVICE In* at(const TokenPlace& place) const { return data + offset(place); }
};

// Tensor[B, H, W, C] or Tensor[B, T, H, W, C] whose channels lie together.
template <typename In>
Map<In> map_of(const at::Tensor& x) {
  const bool clip = x.dim() == 5;
  return {
      static_cast<In*>(x.data_ptr()),
      x.stride(0),
      clip ? x.stride(1) : 0,
      x.stride(-3),
      x.stride(-2)};
}

inline at::Tensor with_channels_together(const at::Tensor& x) {
  return x.stride(-1) == 1 || x.size(-1) == 1 ? x : x.contiguous();
}

}  // namespace iwin_d2
