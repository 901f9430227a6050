// The MLP of a block on the CPU, forward and backward, in float32.
//
// The hidden map, four times as wide as the others and needed twice for the gradients, is never kept:
// forward computes it block by block in the cache, backward again for a group of tokens at a time.
#include "../mlp.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "../checks.h"
#include "isa.h"
#include "mlp_weights.h"
#include "pieces.h"
#include "scratch.h"
#include "weight_gradient.h"

namespace iwin_d2 {
namespace {

struct MlpProblem {
  MlpWeights weights;
  const float* x;
  const float* fc2_bias;
  float* out;
};

struct MlpGradient {
  MlpWeights weights;  // fc2 is not needed
  const float* fc1_transposed;
  const float* fc2_transposed;
  const float* x;
  const float* grad;
  float* grad_x;
  float* hidden;  // [tokens, D]: after GELU
  float* slopes;  // [tokens, D]: the gradient before GELU
};

#define IWIN_ISA_FILE "isa/mlp_rows.h"
#include "for_each_isa.h"

constexpr int64_t kRows = 192;
// Bytes of the hidden channels and their gradient that backward keeps for a group of tokens.
constexpr int64_t kGroupBytes = int64_t{16} << 20;

// Weights packed in blocks of hidden channels.
struct Packing {
  std::vector<PackTask> plain;
  std::vector<PackTask> transposed;

  void run() const {
    const int64_t first = static_cast<int64_t>(plain.size());
    const int64_t count = first + static_cast<int64_t>(transposed.size());
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        if (i < first) {
          IWIN_CALL_FOR_ISA(pack, plain[i]);
        } else {
          IWIN_CALL_FOR_ISA(pack_transposed, transposed[i - first]);
        }
      }
    });
  }
};

at::Tensor mlp_cpu(
    const at::Tensor& x_in,
    const at::Tensor& fc1_weight_in,
    const at::Tensor& fc1_bias_in,
    const at::Tensor& fc2_weight_in,
    const at::Tensor& fc2_bias_in) {
  check_mlp(x_in, fc1_weight_in, fc1_bias_in, fc2_weight_in);
  check_parameter("fc2_bias", fc2_bias_in, {fc1_weight_in.size(1)}, x_in);
  const int64_t hidden = fc1_weight_in.size(0);
  const int64_t channels = fc1_weight_in.size(1);
  check_float32(x_in, "channels and hidden channels", channels, hidden);
  const at::Tensor x = x_in.contiguous();
  at::Tensor out = at::empty(x.sizes(), x.options());
  if (out.numel() == 0) {
    return out;
  }
  const at::Tensor fc1_weight = fc1_weight_in.contiguous();
  const at::Tensor fc1_bias = fc1_bias_in.contiguous();
  const at::Tensor fc2_weight = fc2_weight_in.contiguous();
  const at::Tensor fc2_bias = fc2_bias_in.contiguous();
  const Scratch<float> memory(2 * hidden * channels);
  float* fc1 = memory.data();
  float* fc2 = fc1 + hidden * channels;
  Packing packing;
  for_hidden_blocks(hidden, [&](int64_t first, int64_t width) {
    const int64_t at = first * channels;
    const float* from1 = fc1_weight.const_data_ptr<float>() + at;
    const float* from2 = fc2_weight.const_data_ptr<float>() + first;
    packing.plain.push_back({width, channels, from1, channels, fc1 + at});
    packing.plain.push_back({channels, width, from2, hidden, fc2 + at});
  });
  packing.run();
  const MlpProblem problem{
      {channels, hidden, kHiddenBlock, fc1, fc1_bias.const_data_ptr<float>(), fc2},
      x.const_data_ptr<float>(),
      fc2_bias.const_data_ptr<float>(),
      out.mutable_data_ptr<float>()};
  for_pieces(x.numel() / channels, kRows, [&](int64_t begin, int64_t end) {
    IWIN_CALL_FOR_ISA(mlp_rows, problem, begin, end);
  });
  return out;
}

void add_weight_gradient(const WeightProblem& problem, const at::Tensor& bias) {
  for_rectangles(problem.outputs, problem.channels, [&](const Rectangle& part) {
    IWIN_CALL_FOR_ISA(weight_gradient, problem, part);
  });
  bias.add_(sums_of_rows(problem, bias.options(), [&](int64_t begin, int64_t end, float* sums) {
    IWIN_CALL_FOR_ISA(sum_rows, problem, begin, end, sums);
  }));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> mlp_backward_cpu(
    const at::Tensor& grad_in,
    const at::Tensor& x_in,
    const at::Tensor& fc1_weight_in,
    const at::Tensor& fc1_bias_in,
    const at::Tensor& fc2_weight_in) {
  check_mlp(x_in, fc1_weight_in, fc1_bias_in, fc2_weight_in);
  check_parameter("grad", grad_in, x_in.sizes(), x_in);
  const int64_t hidden = fc1_weight_in.size(0);
  const int64_t channels = fc1_weight_in.size(1);
  check_float32(x_in, "channels and hidden channels", channels, hidden);
  const at::Tensor x = x_in.contiguous();
  const at::Tensor grad = grad_in.contiguous();
  const at::Tensor fc1_weight = fc1_weight_in.contiguous();
  const at::Tensor fc1_bias = fc1_bias_in.contiguous();
  const at::Tensor fc2_weight = fc2_weight_in.contiguous();
  at::Tensor grad_x = at::empty(x.sizes(), x.options());
  at::Tensor grad_fc1 = at::zeros(fc1_weight.sizes(), x.options());
  at::Tensor grad_fc1_bias = at::zeros({hidden}, x.options());
  at::Tensor grad_fc2 = at::zeros(fc2_weight.sizes(), x.options());
  at::Tensor grad_fc2_bias = at::zeros({channels}, x.options());
  const int64_t tokens = x.numel() / channels;

  const Scratch<float> memory(3 * hidden * channels);
  float* fc1 = memory.data();
  float* fc1_transposed = fc1 + hidden * channels;
  float* fc2_transposed = fc1_transposed + hidden * channels;
  Packing packing;
  for_hidden_blocks(hidden, [&](int64_t first, int64_t width) {
    const int64_t at = first * channels;
    const float* from1 = fc1_weight.const_data_ptr<float>() + at;
    const float* from2 = fc2_weight.const_data_ptr<float>() + first;
    packing.plain.push_back({width, channels, from1, channels, fc1 + at});
    packing.transposed.push_back({channels, width, from1, channels, fc1_transposed + at});
    packing.transposed.push_back({width, channels, from2, hidden, fc2_transposed + at});
  });
  packing.run();

  const int64_t fitting = kGroupBytes / (2 * hidden * static_cast<int64_t>(sizeof(float)));
  const int64_t group = std::min(tokens, std::max<int64_t>(1, fitting / kRows) * kRows);
  const Scratch<float> kept(2 * group * hidden);
  for (int64_t first = 0; first < tokens; first += group) {
    const int64_t count = std::min(group, tokens - first);
    const float* x_rows = x.const_data_ptr<float>() + first * channels;
    const float* grad_rows = grad.const_data_ptr<float>() + first * channels;
    const MlpGradient problem{
        {channels, hidden, kHiddenBlock, fc1, fc1_bias.const_data_ptr<float>(), nullptr},
        fc1_transposed,
        fc2_transposed,
        x_rows,
        grad_rows,
        grad_x.mutable_data_ptr<float>() + first * channels,
        kept.data(),
        kept.data() + group * hidden};
    for_pieces(count, kRows, [&](int64_t begin, int64_t end) {
      IWIN_CALL_FOR_ISA(mlp_rows_backward, problem, begin, end);
    });
    add_weight_gradient(
        {count,
         hidden,
         channels,
         kGradientTokens,
         true,
         problem.slopes,
         x_rows,
         grad_fc1.mutable_data_ptr<float>()},
        grad_fc1_bias);
    add_weight_gradient(
        {count,
         channels,
         hidden,
         kGradientTokens,
         true,
         grad_rows,
         problem.hidden,
         grad_fc2.mutable_data_ptr<float>()},
        grad_fc2_bias);
  }
  return {grad_x, grad_fc1, grad_fc1_bias, grad_fc2, grad_fc2_bias};
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, CPU, m) {
  m.impl("mlp", &iwin_d2::mlp_cpu);
  m.impl("mlp_backward", &iwin_d2::mlp_backward_cpu);
}
