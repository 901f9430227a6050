// 3x3 depthwise convolution of a channels-last map with a sum on the CPU, forward and backward.

#include "../depthwise_conv.h"

#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "depthwise_taps.h"
#include "for_dtype.h"
#include "isa.h"

namespace iwin_d2 {
namespace {

// Of a contiguous map [N, H, W, C]; its rows count through all images.
struct Size {
  int64_t rows;
  int64_t height;
  int64_t width;
  int64_t channels;

  explicit Size(const at::Tensor& x)
      : rows(x.size(0) * x.size(1)), height(x.size(1)), width(x.size(2)), channels(x.size(3)) {}

  int64_t row() const { return width * channels; }
  bool is_first(int64_t row) const { return row % height == 0; }
  bool is_last(int64_t row) const { return row % height == height - 1; }
};

#define IWIN_ISA_FILE "isa/depthwise_conv_rows.h"
#include "for_each_isa.h"

// Elements that are worth a thread.
constexpr int64_t kGrain = 32768;
// The gradients of weights and bias are sums over all rows. Each chunk of rows sums its own, and
// chunks do not depend on the number of threads: neither does the result.
constexpr int64_t kChunks = 64;

// Empty where there is none.
template <typename In>
std::vector<Sum<In>> packed_bias(const std::optional<at::Tensor>& bias) {
  if (!bias.has_value()) {
    return {};
  }
  const at::Tensor contiguous = bias->contiguous();
  const In* from = contiguous.const_data_ptr<In>();
  return std::vector<Sum<In>>(from, from + bias->numel());
}

// `bias` may be empty, `other` null.
template <typename In>
void convolve(
    const Size& size,
    const In* x,
    const std::vector<Sum<In>>& weights,
    const std::vector<Sum<In>>& bias,
    const In* other,
    In* out) {
  const std::vector<In> zeros(size.row());
  const int64_t grain = std::max<int64_t>(1, kGrain / size.row());
  at::parallel_for(0, size.rows, grain, [&](int64_t begin, int64_t end) {
    IWIN_CALL_FOR_ISA(
        convolve_rows,
        size,
        x,
        weights.data(),
        bias.empty() ? nullptr : bias.data(),
        other,
        out,
        zeros.data(),
        begin,
        end);
  });
}

// Writes the gradient of x, a convolution with the flipped `weights`, and returns those of the nine
// taps and of the bias, [10, C]. Both chunk by chunk, so that a chunk's rows are still in the cache.
template <typename In>
std::vector<Sum<In>> convolve_backward(
    const Size& size,
    const In* grad,
    const In* x,
    const std::vector<Sum<In>>& weights,
    In* grad_x) {
  const std::vector<In> zeros(size.row());
  const int64_t count = (kTaps + 1) * size.channels;
  const int64_t chunks = std::min(size.rows, kChunks);
  std::vector<Sum<In>> partial(chunks * count);
  const int64_t grain = std::max<int64_t>(1, kGrain * chunks / (size.rows * size.row()));
  at::parallel_for(0, chunks, grain, [&](int64_t begin_chunk, int64_t end_chunk) {
    for (int64_t chunk = begin_chunk; chunk < end_chunk; chunk++) {
      const int64_t begin = size.rows * chunk / chunks;
      const int64_t end = size.rows * (chunk + 1) / chunks;
      const Sum<In>* no_bias = nullptr;
      const In* no_other = nullptr;
      IWIN_CALL_FOR_ISA(
          convolve_rows,
          size,
          grad,
          weights.data(),
          no_bias,
          no_other,
          grad_x,
          zeros.data(),
          begin,
          end);
      IWIN_CALL_FOR_ISA(
          sum_weight_grads,
          size,
          grad,
          x,
          partial.data() + chunk * count,
          zeros.data(),
          begin,
          end);
    }
  });
  for (int64_t chunk = 1; chunk < chunks; chunk++) {
    for (int64_t i = 0; i < count; i++) {
      partial[i] += partial[chunk * count + i];
    }
  }
  return partial;
}

at::Tensor depthwise_conv_add_cpu(
    const at::Tensor& x_in,
    const at::Tensor& weight,
    const std::optional<at::Tensor>& bias,
    const at::Tensor& other_in) {
  check_depthwise_conv_add(x_in, weight, bias, other_in);
  const at::Tensor x = x_in.contiguous();
  const at::Tensor other = other_in.contiguous();
  at::Tensor out = at::empty(x.sizes(), x.options());
  for_dtype("x", x.scalar_type(), [&](auto element) {
    using In = decltype(element);
    if (out.numel() == 0) {
      return;
    }
    convolve<In>(
        Size(x),
        x.const_data_ptr<In>(),
        packed_taps<In>(weight, false),
        packed_bias<In>(bias),
        other.const_data_ptr<In>(),
        out.mutable_data_ptr<In>());
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> depthwise_conv_backward_cpu(
    const at::Tensor& grad_in, const at::Tensor& x_in, const at::Tensor& weight) {
  check_depthwise_conv_backward(grad_in, x_in, weight);
  const at::Tensor grad = grad_in.contiguous();
  const at::Tensor x = x_in.contiguous();
  at::Tensor grad_x = at::empty(x.sizes(), x.options());
  at::Tensor grad_weight = at::zeros(weight.sizes(), weight.options());
  at::Tensor grad_bias = at::zeros({weight.size(0)}, weight.options());
  for_dtype("x", x.scalar_type(), [&](auto element) {
    using In = decltype(element);
    if (x.numel() == 0) {
      return;
    }
    const Size size(x);
    const auto sums = convolve_backward<In>(
        size,
        grad.const_data_ptr<In>(),
        x.const_data_ptr<In>(),
        packed_taps<In>(weight, true),
        grad_x.mutable_data_ptr<In>());
    In* to = grad_weight.mutable_data_ptr<In>();
    In* to_bias = grad_bias.mutable_data_ptr<In>();
    for (int64_t c = 0; c < size.channels; c++) {
      for (int64_t tap = 0; tap < kTaps; tap++) {
        to[c * kTaps + tap] = sums[tap * size.channels + c];
      }
      to_bias[c] = sums[kTaps * size.channels + c];
    }
  });
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, CPU, m) {
  m.impl("depthwise_conv_add", &iwin_d2::depthwise_conv_add_cpu);
  m.impl("depthwise_conv_backward", &iwin_d2::depthwise_conv_backward_cpu);
}
