// Attention inside interleaved windows on the CPU, forward and backward.
//
// The unit of work is one head of one window: its tokens are gathered straight from the projected
// map into the cache and the result is scattered straight back.
#include "../attention.h"

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

#include "../attention_map.h"
#include "../interleaved_window.h"
#include "attention_problem.h"
#include "for_dtype.h"
#include "isa.h"
#include "scratch.h"

namespace iwin_d2 {
namespace {

#define IWIN_ISA_FILE "isa/attention_units.h"
#include "for_each_isa.h"

constexpr int64_t kGrain = 8;
constexpr int64_t kChunks = 512;

at::Tensor padding_row(const at::Tensor& qkv, const std::optional<at::Tensor>& pad_qkv) {
  return pad_qkv.has_value() ? pad_qkv->contiguous() : at::zeros({qkv.size(-1)}, qkv.options());
}

at::Tensor attention_cpu(
    const at::Tensor& qkv_in,
    int64_t num_heads,
    at::IntArrayRef window_size,
    const std::optional<at::Tensor>& pad_qkv,
    double scale) {
  const WindowGrid grid = check_attention(qkv_in, num_heads, window_size, pad_qkv);
  const at::Tensor qkv = with_channels_together(qkv_in);
  auto shape = qkv.sizes().vec();
  shape.back() /= 3;
  at::Tensor out = at::empty(shape, qkv.options());
  if (out.numel() == 0) {
    return out;
  }
  const at::Tensor padding = padding_row(qkv, pad_qkv);
  const int64_t channels = shape.back();
  for_dtype("qkv", qkv.scalar_type(), [&](auto element) {
    using In = decltype(element);
    const Problem<In> problem{
        grid,
        num_heads,
        channels,
        scale,
        map_of<const In>(qkv),
        static_cast<const In*>(padding.const_data_ptr())};
    const auto to = map_of<In>(out);
    at::parallel_for(0, problem.units(), kGrain, [&](int64_t begin, int64_t end) {
      IWIN_CALL_FOR_ISA(attend_units, problem, to, begin, end);
    });
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor> attention_backward_cpu(
    const at::Tensor& grad_in,
    const at::Tensor& qkv_in,
    int64_t num_heads,
    at::IntArrayRef window_size,
    const std::optional<at::Tensor>& pad_qkv,
    double scale) {
  const WindowGrid grid =
      check_attention_backward(grad_in, qkv_in, num_heads, window_size, pad_qkv);
  const at::Tensor qkv = with_channels_together(qkv_in);
  const at::Tensor grad = with_channels_together(grad_in);
  at::Tensor grad_qkv = at::empty(qkv.sizes(), qkv.options());
  if (qkv.numel() == 0) {
    return {grad_qkv, at::zeros({qkv.size(-1)}, qkv.options())};
  }
  at::Tensor grad_pad;
  const at::Tensor padding = padding_row(qkv, pad_qkv);
  const int64_t channels = qkv.size(-1) / 3;
  for_dtype("qkv", qkv.scalar_type(), [&](auto element) {
    using In = decltype(element);
    using T = at::opmath_type<In>;
    const Problem<In> problem{
        grid,
        num_heads,
        channels,
        scale,
        map_of<const In>(qkv),
        static_cast<const In*>(padding.const_data_ptr())};
    const auto from = map_of<const In>(grad);
    const auto to = map_of<In>(grad_qkv);
    // The padding's gradient is a sum over windows. Each chunk of units sums its own, and chunks do
    // not depend on the number of threads: neither does the result.
    const int64_t chunks = std::min(problem.units(), kChunks);
    at::Tensor partial =
        at::zeros({chunks, qkv.size(-1)}, qkv.options().dtype(c10::CppTypeToScalarType<T>::value));
    T* sums = partial.mutable_data_ptr<T>();
    at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; chunk++) {
        IWIN_CALL_FOR_ISA(
            attend_units_backward,
            problem,
            from,
            to,
            sums + chunk * qkv.size(-1),
            problem.units() * chunk / chunks,
            problem.units() * (chunk + 1) / chunks);
      }
    });
    grad_pad = partial.sum(0).to(qkv.scalar_type());
  });
  return {grad_qkv, grad_pad};
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, CPU, m) {
  m.impl("attention", &iwin_d2::attention_cpu);
  m.impl("attention_backward", &iwin_d2::attention_backward_cpu);
}
