// A range of rows of gelu(x + bias), forward and backward. Included by bias_gelu_kernel.cpp inside
// for_each_isa.h.

#include "vec.h"

#include "convert.h"
#include "element.h"
#include "exp.h"
#include "gelu.h"

// One element, computed as a vector of it.
template <typename T>
inline T gelu(T x) {
  return gelu(broadcast(x))[0];
}

template <typename T>
inline T gelu_grad(T x) {
  return gelu_grad(broadcast(x))[0];
}

// As many elements as V holds.
template <typename V, typename In>
inline void bias_gelu_at(const In* x, const Compute<In>* bias, In* out) {
  write(out, static_cast<V>(gelu(read<V>(x) + read<V>(bias))));
}

template <typename In>
void bias_gelu_rows(
    const In* x, const Compute<In>* bias, In* out, int64_t channels, int64_t begin, int64_t end) {
  using T = Compute<In>;
  for (int64_t row = begin; row < end; row++) {
    const int64_t first = row * channels;
    int64_t c = 0;
    for (; c + kLanes<T> <= channels; c += kLanes<T>) {
      bias_gelu_at<Vec<T>>(x + first + c, bias + c, out + first + c);
    }
    for (; c < channels; c++) {
      bias_gelu_at<T>(x + first + c, bias + c, out + first + c);
    }
  }
}

template <typename V, typename In>
inline void bias_gelu_grad_at(
    const In* grad, const In* x, const Compute<In>* bias, In* grad_x, Compute<In>* sum) {
  const V slope = gelu_grad(read<V>(x) + read<V>(bias));
  const V value = read<V>(grad) * slope;
  write(grad_x, value);
  write(sum, static_cast<V>(read<V>(sum) + value));
}

// Adds the gradient of the bias to `sums`, [channels].
template <typename In>
void bias_gelu_grad_rows(
    const In* grad,
    const In* x,
    const Compute<In>* bias,
    In* grad_x,
    Compute<In>* sums,
    int64_t channels,
    int64_t begin,
    int64_t end) {
  using T = Compute<In>;
  for (int64_t row = begin; row < end; row++) {
    const int64_t first = row * channels;
    int64_t c = 0;
    for (; c + kLanes<T> <= channels; c += kLanes<T>) {
      bias_gelu_grad_at<Vec<T>>(
          grad + first + c, x + first + c, bias + c, grad_x + first + c, sums + c);
    }
    for (; c < channels; c++) {
      bias_gelu_grad_at<T>(
          grad + first + c, x + first + c, bias + c, grad_x + first + c, sums + c);
    }
  }
}
