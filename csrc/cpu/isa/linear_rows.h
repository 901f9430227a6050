// The rows of a linear layer's products, forward and backward. Included by linear_kernel.cpp inside
// for_each_isa.h.

#include "vec.h"

#include "gemm.h"
#include "packed_gemm.h"

#include "linear.h"

// Rows [begin, end) of out[.. x outputs] = start + a[.. x depth] * a weight packed in blocks of
// `block` of its depth; start is zeros where it is null.
inline void multiply_rows(const RowsProblem& problem, int64_t begin, int64_t end) {
  float* out = problem.out + begin * problem.outputs;
  for (int64_t n = 0; n < end - begin; n++) {
    for (int64_t c = 0; c < problem.outputs; c += kLanes<float>) {
      store(
          out + n * problem.outputs + c,
          problem.start == nullptr ? Vec<float>{} : load(problem.start + c));
    }
  }
  for (int64_t first = 0; first < problem.depth; first += problem.block) {
    const int64_t left = problem.depth - first;
    gemm_packed<float, true>(
        end - begin,
        problem.outputs,
        left < problem.block ? left : problem.block,
        problem.a + begin * problem.depth + first,
        problem.depth,
        problem.packed + first * problem.outputs,
        out,
        problem.outputs);
  }
}
