// The taps of a 3x3 depthwise convolution, as isa/depthwise_conv.h reads them.
#pragma once

#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace iwin_d2 {

constexpr int64_t kTaps = 9;

// What an element is multiplied and summed in.
template <typename In>
using Sum = at::opmath_type<In>;

// [C, 1, 3, 3] -> [9, C] in the type that is computed in. Flipped, they are those of the
// convolution that carries a gradient back.
template <typename In>
std::vector<Sum<In>> packed_taps(const at::Tensor& weight, bool flipped) {
  const at::Tensor contiguous = weight.contiguous();
  const In* from = contiguous.const_data_ptr<In>();
  const int64_t channels = weight.size(0);
  std::vector<Sum<In>> packed(kTaps * channels);
  for (int64_t c = 0; c < channels; c++) {
    for (int64_t tap = 0; tap < kTaps; tap++) {
      packed[(flipped ? kTaps - 1 - tap : tap) * channels + c] = from[c * kTaps + tap];
    }
  }
  return packed;
}

}  // namespace iwin_d2
