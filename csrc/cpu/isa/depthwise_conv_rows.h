// A range of rows of the depthwise convolution, forward and backward. Included by
// depthwise_conv_kernel.cpp inside for_each_isa.h.

#include "vec.h"

#include "convert.h"
#include "element.h"
#include "depthwise_conv.h"

// out = other + bias + the convolution of x. `bias` and `other` may be null.
template <typename In>
void convolve_rows(
    const Size& size,
    const In* x,
    const Compute<In>* weights,
    const Compute<In>* bias,
    const In* other,
    In* out,
    const In* zeros,
    int64_t begin,
    int64_t end) {
  for (int64_t row = begin; row < end; row++) {
    const int64_t first = row * size.row();
    depthwise_row(
        size.is_first(row) ? zeros : x + first - size.row(),
        x + first,
        size.is_last(row) ? zeros : x + first + size.row(),
        weights,
        bias,
        other == nullptr ? nullptr : other + first,
        out + first,
        size.width,
        size.channels);
  }
}

// Adds to `sums`, [10, channels].
template <typename In>
void sum_weight_grads(
    const Size& size,
    const In* grad,
    const In* x,
    Compute<In>* sums,
    const In* zeros,
    int64_t begin,
    int64_t end) {
  for (int64_t row = begin; row < end; row++) {
    const int64_t first = row * size.row();
    depthwise_row_grad(
        size.is_first(row) ? zeros : x + first - size.row(),
        x + first,
        size.is_last(row) ? zeros : x + first + size.row(),
        grad + first,
        sums,
        size.width,
        size.channels);
  }
}
