// Layer normalisation and a 3x3 convolution of stride 2 on the CPU: the map is read and the result
// written once, both channels-last, without a padded or transposed copy of either.
#include "../downsample.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "isa.h"
#include "pieces.h"
#include "scratch.h"

namespace iwin_d2 {
namespace {

// Pointers to contiguous memory; the weight packed tap by tap, [9, C, D] in panels of D.
struct DownsampleProblem {
  int64_t height;
  int64_t width;
  int64_t channels;
  int64_t outputs;
  float eps;
  const float* x;
  const float* norm_weight;
  const float* norm_bias;
  const float* weight;
  const float* bias;
  float* out;
};

#define IWIN_ISA_FILE "isa/downsample.h"
#include "for_each_isa.h"

at::Tensor downsample_cpu(
    const at::Tensor& x_in,
    const at::Tensor& norm_weight_in,
    const at::Tensor& norm_bias_in,
    const at::Tensor& weight_in,
    const at::Tensor& bias_in,
    double eps) {
  check_downsample(x_in, norm_weight_in, norm_bias_in, weight_in, bias_in);
  const at::Tensor x = x_in.contiguous();
  const int64_t channels = x.size(3);
  const int64_t outputs = weight_in.size(0);
  check_float32(x, "channels of x and of the result", channels, outputs);
  const int64_t out_height = (x.size(1) + 1) / 2;
  at::Tensor out = at::empty({x.size(0), out_height, (x.size(2) + 1) / 2, outputs}, x.options());
  if (out.numel() == 0) {
    return out;
  }
  const at::Tensor norm_weight = norm_weight_in.contiguous();
  const at::Tensor norm_bias = norm_bias_in.contiguous();
  const at::Tensor bias = bias_in.contiguous();
  const at::Tensor by_tap = weight_in.permute({2, 3, 0, 1}).contiguous();
  const Scratch<float> packed(by_tap.numel());
  at::parallel_for(0, 9, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tap = begin; tap < end; tap++) {
      const int64_t first = tap * outputs * channels;
      const PackTask task{
          outputs,
          channels,
          by_tap.const_data_ptr<float>() + first,
          channels,
          packed.data() + first};
      IWIN_CALL_FOR_ISA(pack, task);
    }
  });
  const DownsampleProblem problem{
      x.size(1),
      x.size(2),
      channels,
      outputs,
      static_cast<float>(eps),
      x.const_data_ptr<float>(),
      norm_weight.const_data_ptr<float>(),
      norm_bias.const_data_ptr<float>(),
      packed.data(),
      bias.const_data_ptr<float>(),
      out.mutable_data_ptr<float>()};
  for_pieces(x.size(0) * out_height, 16, [&](int64_t begin, int64_t end) {
    IWIN_CALL_FOR_ISA(downsample_rows, problem, begin, end);
  });
  return out;
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, CPU, m) {
  m.impl("downsample", &iwin_d2::downsample_cpu);
}
