// Exact GELU of a sum with a bias on the CPU, forward and backward.

#include "../bias_gelu.h"

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

#include "for_dtype.h"
#include "isa.h"

namespace iwin_d2 {
namespace {

#define IWIN_ISA_FILE "isa/bias_gelu_rows.h"
#include "for_each_isa.h"

// Elements that are worth a thread.
constexpr int64_t kGrain = 16384;
// The gradient of the bias is a sum over all rows. Each chunk of rows sums its own, and chunks do
// not depend on the number of threads: neither does the result.
constexpr int64_t kChunks = 64;

template <typename In, typename T = at::opmath_type<In>>
std::vector<T> computed(const at::Tensor& bias) {
  const at::Tensor contiguous = bias.contiguous();
  const In* from = contiguous.const_data_ptr<In>();
  return std::vector<T>(from, from + bias.numel());
}

at::Tensor bias_gelu_cpu(const at::Tensor& x_in, const at::Tensor& bias_in) {
  check_bias_gelu(x_in, bias_in);
  const at::Tensor x = x_in.contiguous();
  at::Tensor out = at::empty(x.sizes(), x.options());
  for_dtype("x", x.scalar_type(), [&](auto element) {
    using In = decltype(element);
    if (out.numel() == 0) {
      return;
    }
    const int64_t channels = x.size(-1);
    const auto bias = computed<In>(bias_in);
    const In* from = x.const_data_ptr<In>();
    In* to = out.mutable_data_ptr<In>();
    const int64_t grain = std::max<int64_t>(1, kGrain / channels);
    at::parallel_for(0, x.numel() / channels, grain, [&](int64_t begin, int64_t end) {
      IWIN_CALL_FOR_ISA(bias_gelu_rows, from, bias.data(), to, channels, begin, end);
    });
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor> bias_gelu_backward_cpu(
    const at::Tensor& grad_in, const at::Tensor& x_in, const at::Tensor& bias_in) {
  check_bias_gelu_backward(grad_in, x_in, bias_in);
  const at::Tensor grad = grad_in.contiguous();
  const at::Tensor x = x_in.contiguous();
  at::Tensor grad_x = at::empty(x.sizes(), x.options());
  at::Tensor grad_bias = at::zeros(bias_in.sizes(), bias_in.options());
  for_dtype("x", x.scalar_type(), [&](auto element) {
    using In = decltype(element);
    using T = at::opmath_type<In>;
    if (x.numel() == 0) {
      return;
    }
    const int64_t channels = x.size(-1);
    const int64_t rows = x.numel() / channels;
    const int64_t chunks = std::min(rows, kChunks);
    const auto bias = computed<In>(bias_in);
    const In* from_grad = grad.const_data_ptr<In>();
    const In* from = x.const_data_ptr<In>();
    In* to = grad_x.mutable_data_ptr<In>();
    std::vector<T> sums(chunks * channels);
    const int64_t grain = std::max<int64_t>(1, kGrain * chunks / x.numel());
    at::parallel_for(0, chunks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; chunk++) {
        IWIN_CALL_FOR_ISA(
            bias_gelu_grad_rows,
            from_grad,
            from,
            bias.data(),
            to,
            sums.data() + chunk * channels,
            channels,
            rows * chunk / chunks,
            rows * (chunk + 1) / chunks);
      }
    });
    In* to_bias = grad_bias.mutable_data_ptr<In>();
    for (int64_t c = 0; c < channels; c++) {
      T sum = 0;
      for (int64_t chunk = 0; chunk < chunks; chunk++) {
        sum += sums[chunk * channels + c];
      }
      to_bias[c] = sum;
    }
  });
  return {grad_x, grad_bias};
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, CPU, m) {
  m.impl("bias_gelu", &iwin_d2::bias_gelu_cpu);
  m.impl("bias_gelu_backward", &iwin_d2::bias_gelu_backward_cpu);
}
