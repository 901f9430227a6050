// Ranges of rows of an MLP, forward and backward. Included by mlp_kernel.cpp inside for_each_isa.h.

#include "vec.h"

#include "exp.h"
#include "gelu.h"
#include "gemm.h"
#include "packed_gemm.h"

#include "linear.h"
#include "mlp.h"

// out = mlp(x) for the rows [begin, end).
inline void mlp_rows(const MlpProblem& problem, int64_t begin, int64_t end) {
  const MlpWeights& mlp = problem.weights;
  const int64_t channels = mlp.channels;
  const int64_t count = end - begin;
  float* out = problem.out + begin * channels;
  const Scratch<float> hidden(count * mlp.block);
  for (int64_t n = 0; n < count; n++) {
    for (int64_t c = 0; c < channels; c += kLanes<float>) {
      store(out + n * channels + c, load(problem.fc2_bias + c));
    }
  }
  add_mlp(mlp, count, problem.x + begin * channels, hidden.data(), out);
}

// For the rows [begin, end): the hidden channels again, their gradient before GELU, both kept for
// the gradients of the weights, and the gradient of x.
inline void mlp_rows_backward(const MlpGradient& problem, int64_t begin, int64_t end) {
  const MlpWeights& mlp = problem.weights;
  const int64_t channels = mlp.channels;
  const int64_t count = end - begin;
  const float* x = problem.x + begin * channels;
  const float* grad = problem.grad + begin * channels;
  float* grad_x = problem.grad_x + begin * channels;
  for (int64_t i = 0; i < count * channels; i++) {
    grad_x[i] = 0;
  }
  for (int64_t first = 0; first < mlp.hidden; first += mlp.block) {
    const int64_t left = mlp.hidden - first;
    const int64_t width = left < mlp.block ? left : mlp.block;
    float* hidden = problem.hidden + begin * mlp.hidden + first;
    float* slopes = problem.slopes + begin * mlp.hidden + first;
    gemm_packed<float, false>(
        count, width, channels, x, channels, mlp.fc1 + first * channels, hidden, mlp.hidden);
    gemm_packed<float, false>(
        count,
        width,
        channels,
        grad,
        channels,
        problem.fc2_transposed + first * channels,
        slopes,
        mlp.hidden);
    for (int64_t n = 0; n < count; n++) {
      for (int64_t c = 0; c < width; c += kLanes<float>) {
        const int64_t at = n * mlp.hidden + c;
        const Vec<float> before = load(hidden + at) + load(mlp.fc1_bias + first + c);
        store(hidden + at, gelu(before));
        store(slopes + at, load(slopes + at) * gelu_grad(before));
      }
    }
    gemm_packed<float, true>(
        count,
        channels,
        width,
        slopes,
        mlp.hidden,
        problem.fc1_transposed + first * channels,
        grad_x,
        channels);
  }
}
