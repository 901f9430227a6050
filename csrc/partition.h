#pragma once

#include <ATen/core/Tensor.h>

#include "interleaved_window.h"

namespace iwin_d2 {

// The grid of a map, Tensor[B, H, W, C]. Raises what the operator says about arguments that do not
// fit: rank, sides, window.
WindowGrid check_partition(const at::Tensor& x, at::IntArrayRef window_size);

// The grid of the map of `size` (H, W) that these windows make, Tensor[B * Gh * Gw, Mh * Mw, C].
WindowGrid check_merge(
    const at::Tensor& windows,
    at::IntArrayRef window_size,
    at::IntArrayRef size);

}  // namespace iwin_d2
