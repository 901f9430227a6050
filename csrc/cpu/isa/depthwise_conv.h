// 3x3 depthwise convolution of a channels-last map, one row at a time. Included by kernel files
// inside for_each_isa.h, after vec.h, convert.h and element.h.
//
//   depthwise_row       a row of the result, from three rows of the map that lie anywhere
//   depthwise_row_grad  what a row adds to the gradients of the weights and of the bias
//
// A row is [width, channels], its channels together. Weights are packed as [9, channels], tap
// 3 * dy + dx, in the type that is computed in. Rows outside the map are rows of zeros, given by
// the caller; columns outside it are left out here.

// The channels from `first` on: as many as V holds. A column of the three rows is loaded once and
// goes into the outputs of its left neighbour, its own and its right one, which stay in registers
// until they are whole.
template <typename V, bool kAdd, typename Row, typename Out>
inline void depthwise_channels(
    int64_t first,
    const Row* above,
    const Row* here,
    const Row* below,
    const Compute<Row>* weights,
    const Compute<Row>* bias,
    const Out* add,
    Out* out,
    int64_t width,
    int64_t channels) {
  V weight[9];
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; tap++) {
    weight[tap] = read<V>(weights + tap * channels + first);
  }
  const V start = bias == nullptr ? V{} : read<V>(bias + first);
  V left = V{};
  V middle = start;
  const int64_t end = width * channels + first;
  for (int64_t i = first; i < end; i += channels) {
    const V a = read<V>(above + i);
    const V b = read<V>(here + i);
    const V c = read<V>(below + i);
    if (i != first) {
      left += weight[2] * a;
      left += weight[5] * b;
      left += weight[8] * c;
      if constexpr (kAdd) {
        left += read<V>(add + i - channels);
      }
      write(out + i - channels, left);
    }
    left = middle + weight[1] * a;
    left += weight[4] * b;
    left += weight[7] * c;
    middle = start + weight[0] * a;
    middle += weight[3] * b;
    middle += weight[6] * c;
  }
  if constexpr (kAdd) {
    left += read<V>(add + end - channels);
  }
  write(out + end - channels, left);
}

template <bool kAdd, typename Row, typename... Rest>
inline void depthwise_all_channels(int64_t channels, const Row* above, Rest... rest) {
  using T = Compute<Row>;
  int64_t first = 0;
  for (; first + kLanes<T> <= channels; first += kLanes<T>) {
    depthwise_channels<Vec<T>, kAdd>(first, above, rest..., channels);
  }
  for (; first < channels; first++) {
    depthwise_channels<T, kAdd>(first, above, rest..., channels);
  }
}

// out = add + bias + the convolution, for one row of at least one column. `bias` and `add` may be
// null; `out` may be `add`, but none of the three rows.
template <typename Row, typename Out>
inline void depthwise_row(
    const Row* above,
    const Row* here,
    const Row* below,
    const Compute<Row>* weights,
    const Compute<Row>* bias,
    const Out* add,
    Out* out,
    int64_t width,
    int64_t channels) {
  if (add == nullptr) {
    depthwise_all_channels<false>(
        channels, above, here, below, weights, bias, add, out, width);
  } else {
    depthwise_all_channels<true>(channels, above, here, below, weights, bias, add, out, width);
  }
}

template <typename V, typename In>
inline void depthwise_channels_grad(
    int64_t first,
    const In* above,
    const In* here,
    const In* below,
    const In* grad,
    Compute<In>* sums,
    int64_t width,
    int64_t channels) {
  V sum[10] = {};
  V left = V{};
  V middle = read<V>(grad + first);
  const int64_t end = width * channels + first;
  for (int64_t i = first; i < end; i += channels) {
    const V right = i + channels < end ? read<V>(grad + i + channels) : V{};
    const V a = read<V>(above + i);
    const V b = read<V>(here + i);
    const V c = read<V>(below + i);
    sum[0] += right * a;
    sum[1] += middle * a;
    sum[2] += left * a;
    sum[3] += right * b;
    sum[4] += middle * b;
    sum[5] += left * b;
    sum[6] += right * c;
    sum[7] += middle * c;
    sum[8] += left * c;
    sum[9] += middle;
    left = middle;
    middle = right;
  }
  // Of one row at a time: a sum over a whole map, term by term, would lose digits.
#pragma GCC unroll 10
  for (int tap = 0; tap < 10; tap++) {
    Compute<In>* to = sums + tap * channels + first;
    write(to, read<V>(to) + sum[tap]);
  }
}

// Adds to `sums`, [10, channels]: the gradients of the nine taps and of the bias, from the three
// rows of the map and the row `grad` of the result's gradient.
template <typename In>
inline void depthwise_row_grad(
    const In* above,
    const In* here,
    const In* below,
    const In* grad,
    Compute<In>* sums,
    int64_t width,
    int64_t channels) {
  using T = Compute<In>;
  int64_t first = 0;
  for (; first + kLanes<T> <= channels; first += kLanes<T>) {
    depthwise_channels_grad<Vec<T>>(first, above, here, below, grad, sums, width, channels);
  }
  for (; first < channels; first++) {
    depthwise_channels_grad<T>(first, above, here, below, grad, sums, width, channels);
  }
}
