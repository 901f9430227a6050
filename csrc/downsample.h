#pragma once

#include <ATen/core/Tensor.h>

namespace iwin_d2 {

// Raises when the parameters do not fit the map [N, H, W, C].
void check_downsample(
    const at::Tensor& x,
    const at::Tensor& norm_weight,
    const at::Tensor& norm_bias,
    const at::Tensor& weight,
    const at::Tensor& bias);

}  // namespace iwin_d2
