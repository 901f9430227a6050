// The dtypes that the CPU kernels compute.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

namespace iwin_d2 {

// Calls run(Element{}) with the element type of a dtype.
template <typename Run>
void for_dtype(const char* name, at::ScalarType dtype, const Run& run) {
  switch (dtype) {
    case at::kFloat:
      return run(float{});
    case at::kDouble:
      return run(double{});
    case at::kBFloat16:
      return run(at::BFloat16{});
    default:
      TORCH_CHECK_VALUE(
          false,
          "expected ",
          name,
          " of dtype float32, bfloat16 or float64 on the CPU, got ",
          dtype);
  }
}

}  // namespace iwin_d2
