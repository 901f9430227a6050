// Attention inside each interleaved window of a projected map: schema and checks.
#include "attention.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include "checks.h"

namespace iwin_d2 {

WindowGrid check_attention(
    const at::Tensor& qkv,
    int64_t num_heads,
    at::IntArrayRef window_size,
    const std::optional<at::Tensor>& pad_qkv) {
  check_window(window_size);
  TORCH_CHECK_VALUE(
      qkv.dim() == 4 || qkv.dim() == 5,
      "expected a projected map of shape [B, H, W, 3 * C] or [B, T, H, W, 3 * C], got shape ",
      shape_text(qkv.sizes()));
  check_sides(qkv.sizes(), 1, qkv.dim() - 1);
  TORCH_CHECK_VALUE(
      qkv.is_floating_point(),
      "expected qkv of a floating-point dtype, got ",
      qkv.scalar_type());
  const int64_t channels = qkv.size(-1);
  TORCH_CHECK_VALUE(
      num_heads >= 1 && channels % 3 == 0 && channels / 3 % num_heads == 0,
      "expected a number of channels divisible by 3 * num_heads, got ",
      channels,
      " channels and ",
      num_heads,
      " heads");
  if (pad_qkv.has_value()) {
    TORCH_CHECK_VALUE(
        pad_qkv->dim() == 1 && pad_qkv->size(0) == channels,
        "expected pad_qkv of shape (",
        channels,
        ",), one value per channel of qkv, got shape ",
        shape_text(pad_qkv->sizes()));
    TORCH_CHECK_VALUE(
        pad_qkv->device() == qkv.device(),
        "expected qkv and pad_qkv on one device, got ",
        qkv.device(),
        " and ",
        pad_qkv->device());
    TORCH_CHECK_VALUE(
        pad_qkv->scalar_type() == qkv.scalar_type(),
        "expected qkv and pad_qkv of one dtype, got ",
        qkv.scalar_type(),
        " and ",
        pad_qkv->scalar_type());
  }
  return grid_of(qkv, window_size);
}

WindowGrid check_attention_backward(
    const at::Tensor& grad,
    const at::Tensor& qkv,
    int64_t num_heads,
    at::IntArrayRef window_size,
    const std::optional<at::Tensor>& pad_qkv) {
  const WindowGrid grid = check_attention(qkv, num_heads, window_size, pad_qkv);
  auto expected = qkv.sizes().vec();
  expected.back() /= 3;
  TORCH_CHECK_VALUE(
      grad.sizes() == at::IntArrayRef(expected),
      "expected a gradient of shape ",
      shape_text(expected),
      ", got shape ",
      shape_text(grad.sizes()));
  TORCH_CHECK_VALUE(
      grad.device() == qkv.device() && grad.scalar_type() == qkv.scalar_type(),
      "expected a gradient on ",
      qkv.device(),
      " of dtype ",
      qkv.scalar_type(),
      ", got ",
      grad.device(),
      " and ",
      grad.scalar_type());
  return grid;
}

}  // namespace iwin_d2

TORCH_LIBRARY_FRAGMENT(iwin_d2, m) {
  // qkv: [B, H, W, 3 * C] or [B, T, H, W, 3 * C] -> [.., C], contiguous.
  m.def(
      "attention(Tensor qkv, int num_heads, int[2] window_size, Tensor? pad_qkv, float scale) "
      "-> Tensor");
  // -> the gradients of qkv and of pad_qkv (zeros without padding).
  m.def(
      "attention_backward(Tensor grad, Tensor qkv, int num_heads, int[2] window_size, "
      "Tensor? pad_qkv, float scale) -> (Tensor, Tensor)");
}
