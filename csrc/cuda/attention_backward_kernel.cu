// The gradients of attention inside interleaved windows on CUDA: from tensors to the kernels of
// attention_backward.h.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "attention_backward.h"
#include "attention_kernel.h"
#include "for_dtype.h"

namespace iwin_d2 {
namespace {

// One kernel where all of a window fits in a tile, else one after the other.
template <typename In, int kHeadDim>
void compute_gradients(BackwardProblem<In> problem, const at::Tensor& qkv) {
  using S = Sizes<In, kHeadDim>;
  constexpr size_t kShared = shared_for_backward<In, kHeadDim>();
  static_assert(kShared <= kMostShared);
  const WindowGrid& grid = problem.attention.grid;
  const int64_t tiles = divide_up(most_keys(grid), S::kTile);
  const Units units(grid, problem.attention.num_heads, tiles);
  const unsigned blocks = blocks_for(units.count);
  if (tiles == 1) {
    launch(attend_backward<In, kHeadDim>, blocks, S::kThreads, kShared, problem, units);
    return;
  }
  const at::Tensor facts =
      at::empty({units.count, kFacts, S::kTile}, qkv.options().dtype(at::kFloat));
  problem.facts = facts.mutable_data_ptr<float>();
  launch(attend_backward_queries<In, kHeadDim>, blocks, S::kThreads, kShared, problem, units);
  launch(attend_backward_keys<In, kHeadDim>, blocks, S::kThreads, kShared, problem, units);
}

std::tuple<at::Tensor, at::Tensor> attention_backward_cuda(
    const at::Tensor& grad_in,
    const at::Tensor& qkv_in,
    int64_t num_heads,
    at::IntArrayRef window_size,
    const std::optional<at::Tensor>& pad_qkv,
    double scale) {
  const WindowGrid grid =
      check_attention_backward(grad_in, qkv_in, num_heads, window_size, pad_qkv);
  const c10::cuda::CUDAGuard device(qkv_in.device());
  const at::Tensor qkv = with_channels_together(qkv_in);
  const at::Tensor grad = with_channels_together(grad_in);
  const auto padding = aligned_parameter(pad_qkv);
  at::Tensor grad_qkv = at::empty(qkv.sizes(), qkv.options());
  at::Tensor grad_pad = at::zeros({qkv.size(-1)}, qkv.options());
  if (qkv.numel() == 0) {
    return {grad_qkv, grad_pad};
  }
  const int64_t channels = qkv.size(-1) / 3;
  // Every window's own, summed in the end: windows without padding leave their zeros.
  at::Tensor partial;
  if (padding.defined() && grid.has_padding()) {
    partial = at::zeros({grid.windows(), 2 * channels}, qkv.options().dtype(at::kFloat));
  }
  for_dtype("qkv", qkv.scalar_type(), [&](auto element) {
    using In = decltype(element);
    BackwardProblem<In> problem;
    problem.attention = problem_of<In>(grid, qkv, num_heads, padding, scale);
    problem.grad = map_of<const In>(grad);
    problem.grad_in_chunks = in_chunks(problem.grad);
    problem.grad_qkv = map_of<In>(grad_qkv);
    problem.grad_padding = partial.defined() ? partial.mutable_data_ptr<float>() : nullptr;
    problem.facts = nullptr;
    for_head_dim(problem.attention.head_dim, [&](auto head_dim) {
      compute_gradients<In, head_dim()>(problem, qkv);
    });
  });
  if (partial.defined()) {
    grad_pad.slice(0, channels).copy_(partial.sum(0));
  }
  return {grad_qkv, grad_pad};
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, IWIN_DEVICE_KEY, m) {
  m.impl("attention_backward", &iwin_d2::attention_backward_cuda);
}
