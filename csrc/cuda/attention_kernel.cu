// Attention inside interleaved windows on CUDA: from tensors to the kernel of attention_forward.h.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "attention_forward.h"
#include "attention_kernel.h"
#include "for_dtype.h"

namespace iwin_d2 {
namespace {

at::Tensor attention_cuda(
    const at::Tensor& qkv_in,
    int64_t num_heads,
    at::IntArrayRef window_size,
    const std::optional<at::Tensor>& pad_qkv,
    double scale) {
  const WindowGrid grid = check_attention(qkv_in, num_heads, window_size, pad_qkv);
  const c10::cuda::CUDAGuard device(qkv_in.device());
  const at::Tensor qkv = with_channels_together(qkv_in);
  const auto padding = aligned_parameter(pad_qkv);
  auto shape = qkv.sizes().vec();
  shape.back() /= 3;
  at::Tensor out = at::empty(shape, qkv.options());
  if (out.numel() == 0) {
    return out;
  }
  for_dtype("qkv", qkv.scalar_type(), [&](auto element) {
    using In = decltype(element);
    const auto problem = problem_of<In>(grid, qkv, num_heads, padding, scale);
    for_head_dim(problem.head_dim, [&](auto head_dim) {
      using S = Sizes<In, head_dim()>;
      const Units units(grid, num_heads, divide_up(most_tokens(grid), S::kTile));
      launch(
          attend<In, head_dim()>,
          blocks_for(units.count),
          S::kThreads,
          shared_for_attend<In, head_dim()>(),
          problem,
          map_of<In>(out),
          units);
    });
  });
  return out;
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, IWIN_DEVICE_KEY, m) {
  m.impl("attention", &iwin_d2::attention_cuda);
}
