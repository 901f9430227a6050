// A linear layer on the CPU, forward and backward, in float32.
//
// PyTorch's own goes to MKL, which leaves half of what an AMD processor with AVX-512 can do unused.
// These products are tiled as the attention's are.
#include "../linear.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "isa.h"
#include "pieces.h"
#include "scratch.h"
#include "weight_gradient.h"

namespace iwin_d2 {
namespace {

struct RowsProblem {
  int64_t outputs;
  int64_t depth;
  int64_t block;
  const float* a;
  const float* packed;
  const float* start;
  float* out;
};

#define IWIN_ISA_FILE "isa/linear_rows.h"
#include "for_each_isa.h"

// Rows that go through a product together, and how much of its depth: a panel of the weight that
// wide stays in the second-level cache.
constexpr int64_t kRows = 192;
constexpr int64_t kDepth = 512;

at::Tensor with_channels(const at::Tensor& x, int64_t channels) {
  auto shape = x.sizes().vec();
  shape.back() = channels;
  return at::empty(shape, x.options());
}

// out = start + a * weight^T, or a * weight where it is transposed: weight is [outputs, depth], or
// [depth, outputs].
void multiply(
    const at::Tensor& a,
    const at::Tensor& weight,
    bool transposed,
    const float* start,
    const at::Tensor& out) {
  const int64_t outputs = out.size(-1);
  const int64_t depth = a.size(-1);
  const int64_t tokens = out.numel() / outputs;
  const Scratch<float> packed(outputs * depth);
  const float* from = weight.const_data_ptr<float>();
  const int64_t blocks = (depth + kDepth - 1) / kDepth;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) {
      const int64_t first = block * kDepth;
      const int64_t width = std::min(kDepth, depth - first);
      float* to = packed.data() + first * outputs;
      if (transposed) {
        const PackTask task{outputs, width, from + first * outputs, outputs, to};
        IWIN_CALL_FOR_ISA(pack_transposed, task);
      } else {
        const PackTask task{outputs, width, from + first, depth, to};
        IWIN_CALL_FOR_ISA(pack, task);
      }
    }
  });
  const RowsProblem problem{
      outputs,
      depth,
      kDepth,
      a.const_data_ptr<float>(),
      packed.data(),
      start,
      out.mutable_data_ptr<float>()};
  for_pieces(tokens, kRows, [&](int64_t begin, int64_t end) {
    IWIN_CALL_FOR_ISA(multiply_rows, problem, begin, end);
  });
}

at::Tensor linear_cpu(
    const at::Tensor& x_in,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias_in) {
  check_linear(x_in, weight, bias_in);
  check_float32(x_in, "channels", weight.size(0), weight.size(1));
  const at::Tensor x = x_in.contiguous();
  at::Tensor out = with_channels(x, weight.size(0));
  if (out.numel() == 0) {
    return out;
  }
  const at::Tensor bias = bias_in.has_value() ? bias_in->contiguous() : at::Tensor();
  multiply(
      x,
      weight.contiguous(),
      false,
      bias.defined() ? bias.const_data_ptr<float>() : nullptr,
      out);
  return out;
}

at::Tensor linear_backward_input_cpu(const at::Tensor& grad_in, const at::Tensor& weight) {
  check_linear_backward_input(grad_in, weight);
  check_float32(grad_in, "channels", weight.size(0), weight.size(1));
  const at::Tensor grad = grad_in.contiguous();
  at::Tensor out = with_channels(grad, weight.size(1));
  if (out.numel() == 0) {
    return out;
  }
  multiply(grad, weight.contiguous(), true, nullptr, out);
  return out;
}

std::tuple<at::Tensor, at::Tensor> linear_backward_weight_cpu(
    const at::Tensor& grad_in, const at::Tensor& x_in) {
  check_linear_backward_weight(grad_in, x_in);
  check_float32(grad_in, "channels", grad_in.size(-1), x_in.size(-1));
  const at::Tensor grad = grad_in.contiguous();
  const at::Tensor x = x_in.contiguous();
  const int64_t outputs = grad.size(-1);
  const int64_t channels = x.size(-1);
  if (grad.numel() == 0 || x.numel() == 0) {
    return {at::zeros({outputs, channels}, x.options()), at::zeros({outputs}, x.options())};
  }
  at::Tensor out = at::empty({outputs, channels}, x.options());
  const WeightProblem problem{
      grad.numel() / outputs,
      outputs,
      channels,
      kGradientTokens,
      false,
      grad.const_data_ptr<float>(),
      x.const_data_ptr<float>(),
      out.mutable_data_ptr<float>()};
  for_rectangles(outputs, channels, [&](const Rectangle& part) {
    IWIN_CALL_FOR_ISA(weight_gradient, problem, part);
  });
  const auto sum = [&](int64_t begin, int64_t end, float* sums) {
    IWIN_CALL_FOR_ISA(sum_rows, problem, begin, end, sums);
  };
  return {out, sums_of_rows(problem, x.options(), sum)};
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, CPU, m) {
  m.impl("linear", &iwin_d2::linear_cpu);
  m.impl("linear_backward_input", &iwin_d2::linear_backward_input_cpu);
  m.impl("linear_backward_weight", &iwin_d2::linear_backward_weight_cpu);
}
