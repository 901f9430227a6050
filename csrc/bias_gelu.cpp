// Exact (erf) GELU of a sum with a bias: schema and checks.
#include "bias_gelu.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include "checks.h"

namespace iwin_d2 {
void check_bias_gelu(const at::Tensor& x, const at::Tensor& bias) {
  TORCH_CHECK_VALUE(
      x.dim() >= 1 && bias.dim() == 1 && bias.size(0) == x.size(-1),
      "expected x of shape [..., C] and bias of shape [C], got shapes ",
      shape_text(x.sizes()),
      " and ",
      shape_text(bias.sizes()));
  check_kind(bias, "bias", x);
}

void check_bias_gelu_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& bias) {
  check_bias_gelu(x, bias);
  TORCH_CHECK_VALUE(
      grad.sizes() == x.sizes(),
      "expected grad of the shape of x, ",
      shape_text(x.sizes()),
      ", got shape ",
      shape_text(grad.sizes()));
  check_kind(grad, "grad", x);
}

}  // namespace iwin_d2

TORCH_LIBRARY_FRAGMENT(iwin_d2, m) {
  // x: [..., C], bias: [C] -> gelu(x + bias): [..., C], contiguous.
  m.def("bias_gelu(Tensor x, Tensor bias) -> Tensor");
  // -> the gradients of x and bias.
  m.def("bias_gelu_backward(Tensor grad, Tensor x, Tensor bias) -> (Tensor, Tensor)");
}
