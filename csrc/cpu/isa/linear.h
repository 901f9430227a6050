// What the gradients of a linear layer are made of, and the packing of weights. Included by kernel
// files inside for_each_isa.h, after packed_gemm.h.

inline void pack(const PackTask& task) {
  pack_weight(task.outputs, task.depth, task.from, task.stride, task.to);
}

inline void pack_transposed(const PackTask& task) {
  pack_rows(task.outputs, task.depth, task.from, task.stride, task.to);
}

// to[c][n] = from[n][c] for rows of `stride` elements, to rows of `rows` elements.
inline void transpose_block(
    int64_t rows, int64_t columns, const float* from, int64_t stride, float* to) {
  constexpr int kWidth = kLanes<float>;
  int64_t n = 0;
  for (; n + kWidth <= rows; n += kWidth) {
    for (int64_t c = 0; c < columns; c += kWidth) {
      Vec<float> square[kWidth];
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; i++) {
        square[i] = load(from + (n + i) * stride + c);
      }
      transpose_square<float>(square);
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; i++) {
        store(to + (c + i) * rows + n, square[i]);
      }
    }
  }
  for (; n < rows; n++) {
    for (int64_t c = 0; c < columns; c++) {
      to[c * rows + n] = from[n * stride + c];
    }
  }
}

// A rectangle of grad_weight[outputs x channels] = grad^T x: each unit takes all tokens, in order,
// so that the sums do not depend on how the rectangles are spread over threads.
inline void weight_gradient(const WeightProblem& problem, const Rectangle& part) {
  const int64_t height = part.last_output - part.first_output;
  const int64_t width = part.last_channel - part.first_channel;
  const Scratch<float> grad(height * problem.block);
  const Scratch<float> x(width * problem.block);
  float* to = problem.out + part.first_output * problem.channels + part.first_channel;
  for (int64_t n = 0; n < height && !problem.add; n++) {
    for (int64_t c = 0; c < width; c++) {
      to[n * problem.channels + c] = 0;
    }
  }
  for (int64_t first = 0; first < problem.tokens; first += problem.block) {
    const int64_t left = problem.tokens - first;
    const int64_t count = left < problem.block ? left : problem.block;
    transpose_block(
        count,
        height,
        problem.grad + first * problem.outputs + part.first_output,
        problem.outputs,
        grad.data());
    pack_rows(
        width,
        count,
        problem.x + first * problem.channels + part.first_channel,
        problem.channels,
        x.data());
    gemm_packed<float, true>(
        height, width, count, grad.data(), count, x.data(), to, problem.channels);
  }
}

// sums[c] += the rows [begin, end) of grad.
inline void sum_rows(const WeightProblem& problem, int64_t begin, int64_t end, float* sums) {
  for (int64_t n = begin; n < end; n++) {
    for (int64_t c = 0; c < problem.outputs; c += kLanes<float>) {
      store(sums + c, load(sums + c) + load(problem.grad + n * problem.outputs + c));
    }
  }
}
