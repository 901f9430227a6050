// Layer normalisation and a 3x3 convolution of stride 2 between two stages, for inference: schema
// and checks.
#include "downsample.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include "checks.h"

namespace iwin_d2 {

void check_downsample(
    const at::Tensor& x,
    const at::Tensor& norm_weight,
    const at::Tensor& norm_bias,
    const at::Tensor& weight,
    const at::Tensor& bias) {
  TORCH_CHECK_VALUE(
      x.dim() == 4, "expected a map of shape [N, H, W, C], got shape ", shape_text(x.sizes()));
  check_sides(x.sizes(), 1, 3);
  const int64_t channels = x.size(3);
  TORCH_CHECK_VALUE(
      weight.dim() == 4,
      "expected weight of shape [D, C, 3, 3], got shape ",
      shape_text(weight.sizes()));
  check_parameter("norm_weight", norm_weight, {channels}, x);
  check_parameter("norm_bias", norm_bias, {channels}, x);
  check_parameter("weight", weight, {weight.size(0), channels, 3, 3}, x);
  check_parameter("bias", bias, {weight.size(0)}, x);
}

}  // namespace iwin_d2

TORCH_LIBRARY_FRAGMENT(iwin_d2, m) {
  // x: [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), D], contiguous; weight: [D, C, 3, 3]. Channels
  // are multiples of 16. No gradients.
  m.def(
      "downsample(Tensor x, Tensor norm_weight, Tensor norm_bias, Tensor weight, Tensor bias, "
      "float eps) -> Tensor");
}
