#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace iwin_d2 {

inline void check_window(at::IntArrayRef window_size) {
  TORCH_CHECK_VALUE(
      window_size.size() == 2 && window_size[0] > 0 && window_size[1] > 0,
      "expected window_size to be a positive integer or a pair of them, got ",
      window_size);
}

}  // namespace iwin_d2
