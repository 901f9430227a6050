#pragma once

#include <ATen/core/Tensor.h>

namespace iwin_d2 {

// Raises what the operators say about arguments that do not fit: shapes, device, dtype.
void check_bias_gelu(const at::Tensor& x, const at::Tensor& bias);

void check_bias_gelu_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& bias);

}  // namespace iwin_d2
