// What the operators in float32 share: what they take, and work cut into pieces for the threads.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>

namespace iwin_d2 {

// Raises for what the products do not take: whole vectors of the widest instruction set.
inline void check_float32(const at::Tensor& x, const char* what, int64_t first, int64_t second) {
  TORCH_CHECK_VALUE(
      x.scalar_type() == at::kFloat,
      "expected x of dtype float32 on the CPU, got ",
      x.scalar_type());
  TORCH_CHECK_VALUE(
      first % 16 == 0 && second % 16 == 0,
      "expected ",
      what,
      " that are multiples of 16, got ",
      first,
      " and ",
      second);
}

// A weight that is to be packed: see isa/packed_gemm.h.
struct PackTask {
  int64_t outputs;
  int64_t depth;
  const float* from;
  int64_t stride;
  float* to;
};

// Calls run(begin, end) for pieces of at most `most` of a range, as many for each thread.
template <typename Run>
void for_pieces(int64_t count, int64_t most, const Run& run) {
  const int64_t threads = at::get_num_threads();
  const int64_t least = std::max<int64_t>(1, (count + most - 1) / most);
  const int64_t parts = std::min(count, (least + threads - 1) / threads * threads);
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; part++) {
      run(count * part / parts, count * (part + 1) / parts);
    }
  });
}

}  // namespace iwin_d2
