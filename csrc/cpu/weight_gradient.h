// The gradients of a linear layer's weight and bias, as isa/linear.h computes them.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>

namespace iwin_d2 {

// out[outputs x channels] = (or +=) grad^T x over tokens, rows that lie together.
struct WeightProblem {
  int64_t tokens;
  int64_t outputs;
  int64_t channels;
  int64_t block;  // tokens at a time
  bool add;
  const float* grad;
  const float* x;
  float* out;
};

struct Rectangle {
  int64_t first_output;
  int64_t last_output;
  int64_t first_channel;
  int64_t last_channel;
};

// Tokens at a time, and the sides of a piece of the weight's gradient.
constexpr int64_t kGradientTokens = 192;
constexpr int64_t kGradientOutputs = 96;
constexpr int64_t kGradientChannels = 384;
// Pieces of rows whose sums are kept apart: the result does not depend on the number of threads.
constexpr int64_t kRowSums = 64;

// Calls run(rectangle) for pieces of the weight's gradient, each a multiple of 16 on both sides.
template <typename Run>
void for_rectangles(int64_t outputs, int64_t channels, const Run& run) {
  const int64_t rows = (outputs + kGradientOutputs - 1) / kGradientOutputs;
  const int64_t columns = (channels + kGradientChannels - 1) / kGradientChannels;
  at::parallel_for(0, rows * columns, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      run(Rectangle{
          outputs / 16 * (i / columns) / rows * 16,
          outputs / 16 * (i / columns + 1) / rows * 16,
          channels / 16 * (i % columns) / columns * 16,
          channels / 16 * (i % columns + 1) / columns * 16});
    }
  });
}

// The sums of grad's rows, by sum(begin, end, sums) for pieces of them.
template <typename Sum>
at::Tensor sums_of_rows(
    const WeightProblem& problem, const at::TensorOptions& options, const Sum& sum) {
  const int64_t chunks = std::min(problem.tokens, kRowSums);
  const at::Tensor partial = at::zeros({chunks, problem.outputs}, options);
  float* sums = partial.mutable_data_ptr<float>();
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; chunk++) {
      sum(problem.tokens * chunk / chunks,
          problem.tokens * (chunk + 1) / chunks,
          sums + chunk * problem.outputs);
    }
  });
  return partial.sum(0);
}

}  // namespace iwin_d2
