// The dtypes that the CUDA kernels compute, each of them with sums in float32.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

namespace iwin_d2 {

// Calls run(Element{}) with the element type of a dtype.
template <typename Run>
void for_dtype(const char* name, at::ScalarType dtype, const Run& run) {
  switch (dtype) {
    case at::kFloat:
      return run(float{});
    case at::kHalf:
      return run(c10::Half{});
    case at::kBFloat16:
      return run(c10::BFloat16{});
    default:
      TORCH_CHECK_VALUE(
          false,
          "expected ",
          name,
          " of dtype float32, bfloat16 or float16 on CUDA, got ",
          dtype);
  }
}

}  // namespace iwin_d2
