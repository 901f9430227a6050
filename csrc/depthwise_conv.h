#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace iwin_d2 {

// Raises what the operators say about arguments that do not fit: shapes, device, dtype.
void check_depthwise_conv_add(
    const at::Tensor& x,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    const at::Tensor& other);

void check_depthwise_conv_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight);

}  // namespace iwin_d2
