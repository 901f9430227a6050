// The MLP of a block, two linear layers with an exact GELU between them: schema and checks.
#include "mlp.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include "checks.h"

namespace iwin_d2 {

void check_mlp(
    const at::Tensor& x,
    const at::Tensor& fc1_weight,
    const at::Tensor& fc1_bias,
    const at::Tensor& fc2_weight) {
  TORCH_CHECK_VALUE(
      fc1_weight.dim() == 2,
      "expected fc1_weight of shape [D, C], got shape ",
      shape_text(fc1_weight.sizes()));
  const int64_t hidden = fc1_weight.size(0);
  const int64_t channels = fc1_weight.size(1);
  TORCH_CHECK_VALUE(
      x.dim() >= 1 && x.size(-1) == channels,
      "expected x of ",
      channels,
      " channels, as fc1_weight has, got shape ",
      shape_text(x.sizes()));
  check_parameter("fc1_weight", fc1_weight, {hidden, channels}, x);
  check_parameter("fc1_bias", fc1_bias, {hidden}, x);
  check_parameter("fc2_weight", fc2_weight, {channels, hidden}, x);
}

}  // namespace iwin_d2

TORCH_LIBRARY_FRAGMENT(iwin_d2, m) {
  // x: [..., C] -> [..., C]; fc1_weight: [D, C], fc2_weight: [C, D]. C and D are multiples of 16.
  m.def(
      "mlp(Tensor x, Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight, Tensor fc2_bias) "
      "-> Tensor");
  // -> the gradients of x, fc1_weight, fc1_bias, fc2_weight, fc2_bias.
  m.def(
      "mlp_backward(Tensor grad, Tensor x, Tensor fc1_weight, Tensor fc1_bias, Tensor fc2_weight) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}
