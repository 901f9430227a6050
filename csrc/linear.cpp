// A linear layer over the last dimension, forward and backward: schema and checks.
#include "linear.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include "checks.h"

namespace iwin_d2 {
namespace {

void check_matrix(const at::Tensor& weight) {
  TORCH_CHECK_VALUE(
      weight.dim() == 2,
      "expected weight of shape [N, K], got shape ",
      shape_text(weight.sizes()));
}

void check_last(const char* name, const at::Tensor& x, int64_t channels) {
  TORCH_CHECK_VALUE(
      x.dim() >= 1 && x.size(-1) == channels,
      "expected ",
      name,
      " of ",
      channels,
      " channels, as weight has, got shape ",
      shape_text(x.sizes()));
}

}  // namespace

void check_linear(
    const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  check_matrix(weight);
  check_last("x", x, weight.size(1));
  check_parameter("weight", weight, weight.sizes(), x);
  if (bias.has_value()) {
    check_parameter("bias", *bias, {weight.size(0)}, x);
  }
}

void check_linear_backward_input(const at::Tensor& grad, const at::Tensor& weight) {
  check_matrix(weight);
  check_last("grad", grad, weight.size(0));
  check_parameter("weight", weight, weight.sizes(), grad);
}

void check_linear_backward_weight(const at::Tensor& grad, const at::Tensor& x) {
  TORCH_CHECK_VALUE(
      grad.dim() >= 1 && x.dim() == grad.dim() &&
          grad.sizes().slice(0, grad.dim() - 1) == x.sizes().slice(0, x.dim() - 1),
      "expected grad and x that differ in their channels alone, got shapes ",
      shape_text(grad.sizes()),
      " and ",
      shape_text(x.sizes()));
  check_parameter("x", x, x.sizes(), grad);
}

}  // namespace iwin_d2

TORCH_LIBRARY_FRAGMENT(iwin_d2, m) {
  // [..., K] -> [..., N]; weight: [N, K]. Channels are multiples of 16.
  m.def("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  m.def("linear_backward_input(Tensor grad, Tensor weight) -> Tensor");
  // -> the gradients of weight and bias.
  m.def("linear_backward_weight(Tensor grad, Tensor x) -> (Tensor, Tensor)");
}
