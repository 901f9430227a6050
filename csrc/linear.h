#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace iwin_d2 {

// x: [..., K], weight: [N, K], bias: [N]. These raise when shapes, dtypes or devices do not fit.
void check_linear(
    const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// grad: [..., N], weight: [N, K].
void check_linear_backward_input(const at::Tensor& grad, const at::Tensor& weight);

// grad: [..., N], x: [..., K].
void check_linear_backward_weight(const at::Tensor& grad, const at::Tensor& x);

}  // namespace iwin_d2
