// 3x3 depthwise convolution of a channels-last map, added to another map: schema and checks.
#include "depthwise_conv.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include "checks.h"

namespace iwin_d2 {
namespace {

void check_map_and_weight(const at::Tensor& x, const at::Tensor& weight) {
  TORCH_CHECK_VALUE(
      x.dim() == 4, "expected a map of shape [N, H, W, C], got shape ", shape_text(x.sizes()));
  check_sides(x.sizes(), 1, 4);
  const int64_t expected[] = {x.size(3), 1, 3, 3};
  TORCH_CHECK_VALUE(
      weight.sizes() == at::IntArrayRef(expected),
      "expected weight of shape ",
      shape_text(expected),
      ", 3x3 taps for each channel of x, got shape ",
      shape_text(weight.sizes()));
}

void check_shape(const at::Tensor& map, const char* name, const at::Tensor& x) {
  TORCH_CHECK_VALUE(
      map.sizes() == x.sizes(),
      "expected ",
      name,
      " of the shape of x, ",
      shape_text(x.sizes()),
      ", got shape ",
      shape_text(map.sizes()));
}

}  // namespace

void check_depthwise_conv_add(
    const at::Tensor& x,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    const at::Tensor& other) {
  check_map_and_weight(x, weight);
  check_kind(weight, "weight", x);
  if (bias.has_value()) {
    TORCH_CHECK_VALUE(
        bias->dim() == 1 && bias->size(0) == x.size(3),
        "expected bias of shape (",
        x.size(3),
        ",), one value for each channel of x, got shape ",
        shape_text(bias->sizes()));
    check_kind(*bias, "bias", x);
  }
  check_shape(other, "other", x);
  check_kind(other, "other", x);
}

void check_depthwise_conv_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight) {
  check_map_and_weight(x, weight);
  check_kind(weight, "weight", x);
  check_shape(grad, "grad", x);
  check_kind(grad, "grad", x);
}

}  // namespace iwin_d2

TORCH_LIBRARY_FRAGMENT(iwin_d2, m) {
  // x, other: [N, H, W, C], weight: [C, 1, 3, 3], bias: [C]
  // -> other + bias + the convolution of x with zero padding 1: [N, H, W, C], contiguous.
  m.def("depthwise_conv_add(Tensor x, Tensor weight, Tensor? bias, Tensor other) -> Tensor");
  // -> the gradients of x, weight and bias; that of `other` is `grad` itself.
  m.def("depthwise_conv_backward(Tensor grad, Tensor x, Tensor weight) -> (Tensor, Tensor, Tensor)");
}
