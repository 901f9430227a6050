#pragma once

#include <ATen/core/Tensor.h>

namespace iwin_d2 {

// x: [..., C]. Raises when the parameters do not fit.
void check_mlp(
    const at::Tensor& x,
    const at::Tensor& fc1_weight,
    const at::Tensor& fc1_bias,
    const at::Tensor& fc2_weight);

}  // namespace iwin_d2
