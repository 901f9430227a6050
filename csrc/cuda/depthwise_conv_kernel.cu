// 3x3 depthwise convolution of a channels-last map with a sum on CUDA, forward and backward.
//
// A thread has N channels of one column of a map, and goes down kRun rows of it. It keeps the 3 x 3
// tokens around its place in registers: each row costs it three reads, of which the threads beside
// it in the block make two as well, so that memory is asked for a token once and the cache for the
// rest. Rows are read kAhead steps before they are computed with, so that memory has always
// something to do. A block has a tile (tiling.h) whose places are neighbouring columns.
//
// That no two threads write one address: item i of the work is a part of the map, (image, run of
// rows, columns, tile of units), each of them got from i by divisions; items go to blocks i,
// i + gridDim.x, ..., each to one. Within it a thread writes to its unit of its column's tokens of
// the run: seats differ in the unit or in the column. What is written nobody reads before the
// kernel's end. `convolve` has no barrier; `sum_taps` has those of column_sums.h, which all threads
// of a block reach, as the loop around them is the block's.
// A thread reads tokens of its own image alone: a Column reads rows `first` to `end`, and nothing
// where the map has no such column. The largest index is that of the map's last number; indices are
// int64, but for steps within a run.
// A result has one order: the other map, bias, then the nine taps row by row. The gradients of the
// taps and of the bias are summed as column_sums.h says: a thread adds up its tokens from the top
// down, part after part of its slice.
#include "../depthwise_conv.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "column_sums.h"
#include "for_dtype.h"
#include "numbers.h"

namespace iwin_d2 {
namespace {

constexpr int kTaps = 9;
// Rows of a thread: what it reads beyond them, two rows and its weights, should not count.
constexpr int kRun = 8;
// Numbers that a thread has at once: with more of them, no registers are left for those on their
// way.
constexpr int kAtOnce = 4;
// Rows that are read ahead: as many bytes for each type.
template <typename T>
constexpr int kAhead = 4 / sizeof(T);
// Blocks that are enough to keep any device busy: more of them only make more to sum.
constexpr int64_t kMostBlocks = 1024;

// A contiguous map [images, height, width, channels], cut into parts.
struct Map {
  int64_t height;
  int64_t width;
  Tiling tiling;
  Divider by_runs;   // of rows in an image
  Divider by_spans;  // of columns in a row
  int64_t parts;     // of a tile

  template <int N>
  static Map of(const at::Tensor& x) {
    const Tiling tiling = Tiling::make(x.size(3) / N, x.size(2));
    const int64_t runs = divide_up(x.size(1), kRun);
    const int64_t spans = divide_up(x.size(2), tiling.places);
    return {
        x.size(1), x.size(2), tiling, Divider(runs), Divider(spans), x.size(0) * runs * spans};
  }
};

// Where a thread begins in a part of the map.
template <int N>
struct Place {
  int64_t column;
  int64_t row;
  int rows;        // of the image from there on, as far as the run and its next row go
  int64_t offset;  // of its first number
  int64_t stride;  // of a row
  bool taken;      // else there is no such column or unit

  __device__ __forceinline__ Place(const Map& map, int64_t part, const Seat& seat) {
    const int64_t channels = map.tiling.units * N;
    int64_t image = part;
    column = map.by_spans.divide(image) * map.tiling.places + seat.place;
    row = map.by_runs.divide(image) * kRun;
    rows = static_cast<int>(map.height - row < kRun + 1 ? map.height - row : kRun + 1);
    stride = map.width * channels;
    offset = ((image * map.height + row) * map.width + column) * channels + seat.unit * N;
    taken = seat.taken && column < map.width;
  }
};

// The numbers of one column of a map, row after row; zeros where it has none.
template <typename T, int N>
class Column {
 public:
  // Row 0 begins at `map + offset`; rows from `first` to `end`, without that, if it is `there`.
  __device__ __forceinline__ Column(
      const T* map, int64_t offset, int64_t stride, int first, int end, bool there)
      : map_(map),
        offset_(offset),
        stride_(stride),
        first_(there ? first : 0),
        end_(there ? end : 0) {}

  // Those of row `begin` come next.
  __device__ __forceinline__ void start(int begin) {
    row_ = begin;
#pragma unroll
    for (int i = 0; i < kAhead<T>; i++) {
      ahead_[i] = read(row_ + i);
    }
  }

  __device__ __forceinline__ void next(float (&to)[N]) {
    to_floats(ahead_[0], to);
#pragma unroll
    for (int i = 0; i + 1 < kAhead<T>; i++) {
      ahead_[i] = ahead_[i + 1];
    }
    ahead_[kAhead<T> - 1] = read(row_ + kAhead<T>);
    row_++;
  }

 private:
  __device__ __forceinline__ Numbers<T, N> read(int row) const {
    const bool there = row >= first_ && row < end_;
    return there ? load_numbers<N>(map_ + (offset_ + row * stride_)) : Numbers<T, N>{};
  }

  const T* map_;
  int64_t offset_;
  int64_t stride_;
  int first_;
  int end_;
  int row_;
  Numbers<T, N> ahead_[kAhead<T>];
};

// The 3 x 3 tokens around a place that goes down a map.
template <typename T, int N>
class Window {
 public:
  float values[3][3][N];

  // Of the row above the place, to begin with.
  __device__ __forceinline__ Window(const T* x, const Map& map, const Place<N>& place)
      : left_(column(x, map, place, -1)),
        middle_(column(x, map, place, 0)),
        right_(column(x, map, place, 1)) {
    left_.start(-1);
    middle_.start(-1);
    right_.start(-1);
    step();
    step();
  }

  // To the next row: its last three tokens come in.
  __device__ __forceinline__ void step() {
#pragma unroll
    for (int j = 0; j < 3; j++) {
#pragma unroll
      for (int c = 0; c < N; c++) {
        values[0][j][c] = values[1][j][c];
        values[1][j][c] = values[2][j][c];
      }
    }
    left_.next(values[2][0]);
    middle_.next(values[2][1]);
    right_.next(values[2][2]);
  }

 private:
  static __device__ __forceinline__ Column<T, N> column(
      const T* x, const Map& map, const Place<N>& place, int step) {
    const bool there = place.column + step >= 0 && place.column + step < map.width;
    const int first = place.row > 0 ? -1 : 0;
    const int64_t offset = place.offset + step * map.tiling.units * N;
    return {x, offset, place.stride, first, place.rows, there};
  }

  Column<T, N> left_;
  Column<T, N> middle_;
  Column<T, N> right_;
};

// The taps of N channels, kTaps in a row for each of them.
template <typename T, int N>
__device__ __forceinline__ void load_taps(const T* from, bool flipped, float (&taps)[kTaps][N]) {
  float values[kTaps * N];
#pragma unroll
  for (int i = 0; i < kTaps; i++) {
    float some[N];
    load_floats(from + i * N, some);
#pragma unroll
    for (int c = 0; c < N; c++) {
      values[i * N + c] = some[c];
    }
  }
#pragma unroll
  for (int tap = 0; tap < kTaps; tap++) {
#pragma unroll
    for (int c = 0; c < N; c++) {
      taps[tap][c] = flipped ? values[c * kTaps + kTaps - 1 - tap] : values[c * kTaps + tap];
    }
  }
}

// out = the convolution of x + bias + other; both may be null. With flipped taps it is the
// convolution that carries a gradient back.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 2) convolve(
    const T* __restrict__ x,
    const T* __restrict__ weight,
    bool flipped,
    const T* __restrict__ bias,
    const T* __restrict__ other,
    T* __restrict__ out,
    Map map,
    int64_t items) {
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    int64_t part = item;
    const Seat seat = Seat::of_this_thread(map.tiling, map.tiling.by_tiles.divide(part));
    const Place<N> place(map, part, seat);
    if (!place.taken) {
      continue;
    }
    float taps[kTaps][N];
    float b[N] = {};
    load_taps(weight + seat.unit * N * kTaps, flipped, taps);
    if (bias != nullptr) {
      load_floats(bias + seat.unit * N, b);
    }
    Window<T, N> window(x, map, place);
    Column<T, N> others(other, place.offset, place.stride, 0, place.rows, other != nullptr);
    others.start(0);
#pragma unroll
    for (int i = 0; i < kRun; i++) {
      if (i >= place.rows) {
        break;
      }
      window.step();
      float sums[N];
      others.next(sums);
#pragma unroll
      for (int c = 0; c < N; c++) {
        sums[c] += b[c];
      }
#pragma unroll
      for (int tap = 0; tap < kTaps; tap++) {
#pragma unroll
        for (int c = 0; c < N; c++) {
          sums[c] += window.values[tap / 3][tap % 3][c] * taps[tap][c];
        }
      }
      store_floats(out + place.offset + i * place.stride, sums);
    }
  }
}

// The gradients of the taps and of the bias, kTaps * N and N sums for a unit, slice by slice.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 2) sum_taps(
    const T* __restrict__ grad,
    const T* __restrict__ x,
    float* __restrict__ slices,
    Map map,
    int64_t parts_of_slice,
    int64_t items) {
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    int64_t slice = item;
    const int64_t tile = map.tiling.by_tiles.divide(slice);
    const Seat seat = Seat::of_this_thread(map.tiling, tile);
    float sums[(kTaps + 1) * N] = {};
    for (int64_t i = 0; i < parts_of_slice; i++) {
      const int64_t part = slice * parts_of_slice + i;
      const Place<N> place(map, part, seat);
      if (part >= map.parts || !place.taken) {
        continue;
      }
      Window<T, N> window(x, map, place);
      Column<T, N> grads(grad, place.offset, place.stride, 0, place.rows, true);
      grads.start(0);
#pragma unroll
      for (int row = 0; row < kRun; row++) {
        if (row >= place.rows) {
          break;
        }
        window.step();
        float g[N];
        grads.next(g);
#pragma unroll
        for (int c = 0; c < N; c++) {
#pragma unroll
          for (int tap = 0; tap < kTaps; tap++) {
            sums[c * kTaps + tap] += g[c] * window.values[tap / 3][tap % 3][c];
          }
          sums[kTaps * N + c] += g[c];
        }
      }
    }
    write_slice(sums, map.tiling, tile, slice, slices);
  }
}

template <typename T, int N>
void launch_convolve(
    const T* x,
    const T* weight,
    bool flipped,
    const T* bias,
    const T* other,
    T* out,
    const Map& map) {
  const int64_t items = map.parts * map.tiling.tiles;
  launch(
      convolve<T, N>,
      blocks_for(items),
      map.tiling.threads(),
      0,
      x,
      weight,
      flipped,
      bias,
      other,
      out,
      map,
      items);
}

template <typename T, int N>
void launch_sum_taps(
    const T* grad,
    const T* x,
    const Map& map,
    const at::Tensor& weight,
    T* grad_weight,
    T* grad_bias) {
  const int64_t parts_of_slice = part_of_slice(map.parts, 1, map.tiling.tiles, kMostBlocks);
  const int64_t number = divide_up(map.parts, parts_of_slice);
  const int64_t items = number * map.tiling.tiles;
  at::Tensor slices =
      at::empty({number, kTaps + 1, weight.size(0)}, weight.options().dtype(at::kFloat));
  float* scratch = slices.mutable_data_ptr<float>();
  launch(
      sum_taps<T, N>,
      blocks_for(items),
      map.tiling.threads(),
      shared_for_slice<(kTaps + 1) * N>(map.tiling),
      grad,
      x,
      scratch,
      map,
      parts_of_slice,
      items);
  launch_sum_slices(
      scratch,
      number,
      SumsOfUnits<T>{map.tiling.units, (kTaps + 1) * N, kTaps * N, grad_weight, grad_bias});
}

at::Tensor depthwise_conv_add_cuda(
    const at::Tensor& x_in,
    const at::Tensor& weight_in,
    const std::optional<at::Tensor>& bias_in,
    const at::Tensor& other_in) {
  check_depthwise_conv_add(x_in, weight_in, bias_in, other_in);
  const c10::cuda::CUDAGuard device(x_in.device());
  const at::Tensor x = x_in.contiguous();
  const at::Tensor weight = aligned_parameter(weight_in);
  const at::Tensor bias = aligned_parameter(bias_in);
  const at::Tensor other = other_in.contiguous();
  at::Tensor out = at::empty(x.sizes(), x.options());
  for_dtype("x", x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    if (out.numel() == 0) {
      return;
    }
    const T* from = x.const_data_ptr<T>();
    const T* taps = weight.const_data_ptr<T>();
    const T* from_bias = bias.defined() ? bias.const_data_ptr<T>() : nullptr;
    const T* from_other = other.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    for_numbers_at_once<T, kAtOnce>(x.size(3), {from, from_other, to}, [&](auto n) {
      launch_convolve<T, n()>(from, taps, false, from_bias, from_other, to, Map::of<n()>(x));
    });
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> depthwise_conv_backward_cuda(
    const at::Tensor& grad_in, const at::Tensor& x_in, const at::Tensor& weight_in) {
  check_depthwise_conv_backward(grad_in, x_in, weight_in);
  const c10::cuda::CUDAGuard device(x_in.device());
  const at::Tensor grad = grad_in.contiguous();
  const at::Tensor x = x_in.contiguous();
  const at::Tensor weight = aligned_parameter(weight_in);
  at::Tensor grad_x = at::empty(x.sizes(), x.options());
  at::Tensor grad_weight = at::empty(weight.sizes(), weight.options());
  at::Tensor grad_bias = at::empty({weight.size(0)}, weight.options());
  for_dtype("x", x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    if (x.numel() == 0) {
      grad_weight.zero_();
      grad_bias.zero_();
      return;
    }
    const T* from_grad = grad.const_data_ptr<T>();
    const T* from = x.const_data_ptr<T>();
    const T* taps = weight.const_data_ptr<T>();
    T* to = grad_x.mutable_data_ptr<T>();
    T* to_weight = grad_weight.mutable_data_ptr<T>();
    T* to_bias = grad_bias.mutable_data_ptr<T>();
    for_numbers_at_once<T, kAtOnce>(x.size(3), {from_grad, from, to}, [&](auto n) {
      const Map map = Map::of<n()>(x);
      const T* none = nullptr;
      launch_convolve<T, n()>(from_grad, taps, true, none, none, to, map);
      launch_sum_taps<T, n()>(from_grad, from, map, weight, to_weight, to_bias);
    });
  });
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, IWIN_DEVICE_KEY, m) {
  m.impl("depthwise_conv_add", &iwin_d2::depthwise_conv_add_cuda);
  m.impl("depthwise_conv_backward", &iwin_d2::depthwise_conv_backward_cuda);
}
