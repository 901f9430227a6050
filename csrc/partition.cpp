// Interleaved windows of a map and back, each the other's inverse and derivative: schemas, checks.
#include "partition.h"

#include <c10/util/Exception.h>
#include <torch/library.h>

#include "checks.h"

namespace iwin_d2 {

WindowGrid check_partition(const at::Tensor& x, at::IntArrayRef window_size) {
  check_window(window_size);
  TORCH_CHECK_VALUE(
      x.dim() == 4, "expected a map of shape [B, H, W, C], got shape ", shape_text(x.sizes()));
  check_sides(x.sizes(), 1, 3);
  return WindowGrid::make(x.size(0), 1, x.size(1), x.size(2), window_size[0], window_size[1]);
}

WindowGrid check_merge(
    const at::Tensor& windows,
    at::IntArrayRef window_size,
    at::IntArrayRef size) {
  check_window(window_size);
  TORCH_CHECK_VALUE(
      size.size() == 2 && size[0] > 0 && size[1] > 0 && size[0] < kLimit && size[1] < kLimit,
      "expected size to be (H, W), a pair of positive integers below ",
      kLimit,
      ", got ",
      size);
  const int64_t tokens = window_size[0] * window_size[1];
  TORCH_CHECK_VALUE(
      windows.dim() == 3 && windows.size(1) == tokens,
      "expected windows of shape [B * Gh * Gw, ",
      tokens,
      ", C] for window size ",
      shape_text(window_size),
      ", got shape ",
      shape_text(windows.sizes()));
  auto grid = WindowGrid::make(1, 1, size[0], size[1], window_size[0], window_size[1]);
  TORCH_CHECK_VALUE(
      windows.size(0) % grid.windows() == 0,
      windows.size(0),
      " windows do not make whole maps of size ",
      shape_text(size),
      ": each has ",
      grid.windows(),
      " windows of size ",
      shape_text(window_size));
  grid.batch = windows.size(0) / grid.windows();
  return grid;
}

}  // namespace iwin_d2

TORCH_LIBRARY_FRAGMENT(iwin_d2, m) {
  // x: [B, H, W, C] -> [B * Gh * Gw, Mh * Mw, C], contiguous; tokens of the padding are zeros.
  m.def("partition(Tensor x, int[2] window_size) -> Tensor");
  // windows: [B * Gh * Gw, Mh * Mw, C] -> [B, H, W, C] for `size` (H, W), contiguous.
  m.def("merge(Tensor windows, int[2] window_size, SymInt[2] size) -> Tensor");
}
