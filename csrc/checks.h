// Checks that several operators share, and how they write a shape: the sentences are those of
// iwin_d2/ops/checks.py.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <sstream>
#include <string>

#include "interleaved_window.h"

namespace iwin_d2 {

// (2, 3, 4), as Python writes a tuple.
inline std::string shape_text(at::IntArrayRef shape) {
  std::ostringstream text;
  text << '(';
  for (size_t i = 0; i < shape.size(); i++) {
    text << (i == 0 ? "" : ", ") << shape[i];
  }
  text << (shape.size() == 1 ? ",)" : ")");
  return text.str();
}

// So that no product of two sides overflows.
constexpr int64_t kLimit = int64_t{1} << 31;

inline void check_window(at::IntArrayRef window_size) {
  TORCH_CHECK_VALUE(
      window_size.size() == 2 && window_size[0] > 0 && window_size[1] > 0,
      "expected window_size to be a positive integer or a pair of them, got ",
      window_size);
  TORCH_CHECK_VALUE(
      window_size[0] <= (kLimit - 1) / window_size[1],
      "expected a window of fewer than ",
      kLimit,
      " tokens, got window_size ",
      window_size);
}

// The sides of a map (its frames, too) are the sizes from `first` up to `last`.
inline void check_sides(at::IntArrayRef shape, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) {
    TORCH_CHECK_VALUE(
        shape[i] > 0, "expected a map without empty sides, got shape ", shape_text(shape));
  }
}

// The grid of a map Tensor[B, H, W, C] or Tensor[B, T, H, W, C] that was checked.
inline WindowGrid grid_of(const at::Tensor& map, at::IntArrayRef window_size) {
  return WindowGrid::make(
      map.size(0),
      map.dim() == 5 ? map.size(1) : 1,
      map.size(-3),
      map.size(-2),
      window_size[0],
      window_size[1]);
}

// A tensor that is computed with together with `x`.
inline void check_kind(const at::Tensor& tensor, const char* name, const at::Tensor& x) {
  TORCH_CHECK_VALUE(
      tensor.device() == x.device() && tensor.scalar_type() == x.scalar_type(),
      "expected x and ",
      name,
      " on one device and of one dtype, got ",
      x.device(),
      " ",
      x.scalar_type(),
      " and ",
      tensor.device(),
      " ",
      tensor.scalar_type());
}

// A parameter of a layer that `x` goes through.
inline void check_parameter(
    const char* name, const at::Tensor& parameter, at::IntArrayRef shape, const at::Tensor& x) {
  TORCH_CHECK_VALUE(
      parameter.sizes() == shape,
      "expected ",
      name,
      " of shape ",
      shape_text(shape),
      ", got shape ",
      shape_text(parameter.sizes()));
  check_kind(parameter, name, x);
}

}  // namespace iwin_d2
