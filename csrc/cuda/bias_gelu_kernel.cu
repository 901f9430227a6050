// Exact GELU of a sum with a bias on CUDA, forward and backward.
//
// x is a matrix [rows, channels]. A thread has the N channels of one unit (tiling.h) in several
// rows: it reads the bias once, and kInFlight rows before it computes with them, so that memory has
// always something to do. N is 16 bytes of numbers, or 1.
//
// That no two threads write one address: item i of the work is the pair of tile i % tiles and row
// range i / tiles; items go to blocks i, i + gridDim.x, ..., each to one. Within it a thread has
// its unit of the rows begin + place, begin + place + places, ...: seats differ in the unit or in
// the place. What is written nobody reads before the kernel's end. There is no barrier but those of
// column_sums.h, which all threads of a block reach, as the loop around them is the block's.
// The largest index is that of the last number of x; a row counter that nothing is read with goes
// up to kInFlight * kThreads rows further. All of them are int64.
// The gradient of the bias is summed as column_sums.h says: a thread adds up its rows in order.
#include "../bias_gelu.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "column_sums.h"
#include "for_dtype.h"
#include "numbers.h"

namespace iwin_d2 {
namespace {

#include "../gelu_polynomials.h"

// Rows that a thread has read before it computes with them.
constexpr int kInFlight = 2;
// Rows of a thread, so that reading the bias does not count.
constexpr int kRowsForward = 8;
constexpr int kRowsBackward = 16;
// Blocks that are enough to keep any device busy: more of them only make more to sum.
constexpr int64_t kMostBlocks = 2048;

__device__ __forceinline__ float normal_tail(float a) {
  return exp2f(log2_of_normal_tail(a));
}

// gelu(inf) is inf and gelu(-inf) a NaN, as x (1 + erf(x / sqrt(2))) / 2 has it.
__device__ __forceinline__ float gelu(float x) {
  const float tail = normal_tail(fabsf(x));
  return x * (x < 0 ? tail : 1 - tail);
}

// The derivative of gelu at x; a NaN at both infinities, as PyTorch's.
__device__ __forceinline__ float gelu_grad(float x) {
  const float a = fminf(fabsf(x), kNormalTailEnds);
  const float tail = gelu_grad_over_normal_tail(a) * normal_tail(a);
  return (x < 0 ? tail : 1 - tail) + 0 * x;
}

// The rows of a matrix, cut into ranges.
struct Rows {
  int64_t rows;
  int64_t of_range;  // the last one may have fewer

  int64_t ranges() const { return divide_up(rows, of_range); }

  __device__ __forceinline__ int64_t begin(int64_t range) const { return range * of_range; }

  __device__ __forceinline__ int64_t end(int64_t range) const {
    const int64_t next = begin(range + 1);
    return next < rows ? next : rows;
  }
};

template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 4) bias_gelu(
    const T* __restrict__ x,
    const T* __restrict__ bias,
    T* __restrict__ out,
    Rows rows,
    Tiling tiling,
    int64_t items) {
  const int64_t channels = tiling.units * N;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    int64_t range = item;
    const Seat seat = Seat::of_this_thread(tiling, tiling.by_tiles.divide(range));
    if (!seat.taken) {
      continue;
    }
    const int64_t end = rows.end(range);
    int64_t row = rows.begin(range) + seat.place;
    float b[N];
    load_floats(bias + seat.unit * N, b);
    for (; row < end; row += kInFlight * tiling.places) {
      const int64_t at = row * channels + seat.unit * N;
      const int64_t step = tiling.places * channels;
      Numbers<T, N> numbers[kInFlight];
#pragma unroll
      for (int i = 0; i < kInFlight; i++) {
        if (row + i * tiling.places < end) {
          numbers[i] = load_numbers<N>(x + at + i * step);
        }
      }
#pragma unroll
      for (int i = 0; i < kInFlight; i++) {
        if (row + i * tiling.places < end) {
          float values[N];
          to_floats(numbers[i], values);
#pragma unroll
          for (int c = 0; c < N; c++) {
            values[c] = gelu(values[c] + b[c]);
          }
          store_floats(out + at + i * step, values);
        }
      }
    }
  }
}

// `slices` is the scratch memory of column_sums.h: a row range is a slice.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 3) bias_gelu_backward(
    const T* __restrict__ grad,
    const T* __restrict__ x,
    const T* __restrict__ bias,
    T* __restrict__ grad_x,
    float* __restrict__ slices,
    Rows rows,
    Tiling tiling,
    int64_t items) {
  const int64_t channels = tiling.units * N;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    int64_t range = item;
    const int64_t tile = tiling.by_tiles.divide(range);
    const Seat seat = Seat::of_this_thread(tiling, tile);
    const int64_t end = seat.taken ? rows.end(range) : 0;
    int64_t row = rows.begin(range) + seat.place;
    float sums[N] = {};
    float b[N] = {};
    if (row < end) {
      load_floats(bias + seat.unit * N, b);
    }
    for (; row < end; row += kInFlight * tiling.places) {
      const int64_t at = row * channels + seat.unit * N;
      const int64_t step = tiling.places * channels;
      Numbers<T, N> numbers[kInFlight];
      Numbers<T, N> grads[kInFlight];
#pragma unroll
      for (int i = 0; i < kInFlight; i++) {
        if (row + i * tiling.places < end) {
          numbers[i] = load_numbers<N>(x + at + i * step);
          grads[i] = load_numbers<N>(grad + at + i * step);
        }
      }
#pragma unroll
      for (int i = 0; i < kInFlight; i++) {
        if (row + i * tiling.places < end) {
          float values[N];
          float products[N];
          to_floats(numbers[i], values);
          to_floats(grads[i], products);
#pragma unroll
          for (int c = 0; c < N; c++) {
            products[c] *= gelu_grad(values[c] + b[c]);
            sums[c] += products[c];
          }
          store_floats(grad_x + at + i * step, products);
        }
      }
    }
    write_slice(sums, tiling, tile, range, slices);
  }
}

template <typename T>
constexpr int kAtOnce = sizeof(Chunk) / sizeof(T);

at::Tensor bias_gelu_cuda(const at::Tensor& x_in, const at::Tensor& bias_in) {
  check_bias_gelu(x_in, bias_in);
  const c10::cuda::CUDAGuard device(x_in.device());
  const at::Tensor x = x_in.contiguous();
  const at::Tensor bias = aligned_parameter(bias_in);
  at::Tensor out = at::empty(x.sizes(), x.options());
  for_dtype("x", x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    if (out.numel() == 0) {
      return;
    }
    const int64_t channels = x.size(-1);
    const int64_t rows = x.numel() / channels;
    const T* from = x.const_data_ptr<T>();
    const T* from_bias = bias.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    for_numbers_at_once<T, kAtOnce<T>>(channels, {from, to}, [&](auto n) {
      const Tiling tiling = Tiling::make(channels / n(), rows);
      const Rows parts{rows, int64_t{kRowsForward} * tiling.places};
      const int64_t items = parts.ranges() * tiling.tiles;
      launch(
          bias_gelu<T, n()>,
          blocks_for(items),
          tiling.threads(),
          0,
          from,
          from_bias,
          to,
          parts,
          tiling,
          items);
    });
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor> bias_gelu_backward_cuda(
    const at::Tensor& grad_in, const at::Tensor& x_in, const at::Tensor& bias_in) {
  check_bias_gelu_backward(grad_in, x_in, bias_in);
  const c10::cuda::CUDAGuard device(x_in.device());
  const at::Tensor grad = grad_in.contiguous();
  const at::Tensor x = x_in.contiguous();
  const at::Tensor bias = aligned_parameter(bias_in);
  at::Tensor grad_x = at::empty(x.sizes(), x.options());
  at::Tensor grad_bias = at::empty(bias.sizes(), bias.options());
  for_dtype("x", x.scalar_type(), [&](auto element) {
    using T = decltype(element);
    if (x.numel() == 0) {
      grad_bias.zero_();
      return;
    }
    const int64_t channels = x.size(-1);
    const int64_t rows = x.numel() / channels;
    const T* from_grad = grad.const_data_ptr<T>();
    const T* from = x.const_data_ptr<T>();
    const T* from_bias = bias.const_data_ptr<T>();
    T* to = grad_x.mutable_data_ptr<T>();
    T* to_bias = grad_bias.mutable_data_ptr<T>();
    for_numbers_at_once<T, kAtOnce<T>>(channels, {from_grad, from, to}, [&](auto n) {
      const Tiling tiling = Tiling::make(channels / n(), rows);
      const Rows parts{
          rows,
          part_of_slice(rows, int64_t{kRowsBackward} * tiling.places, tiling.tiles, kMostBlocks)};
      const int64_t items = parts.ranges() * tiling.tiles;
      at::Tensor slices = at::empty({parts.ranges(), channels}, x.options().dtype(at::kFloat));
      float* scratch = slices.mutable_data_ptr<float>();
      launch(
          bias_gelu_backward<T, n()>,
          blocks_for(items),
          tiling.threads(),
          shared_for_slice<n()>(tiling),
          from_grad,
          from,
          from_bias,
          to,
          scratch,
          parts,
          tiling,
          items);
      launch_sum_slices(
          scratch, parts.ranges(), SumsOfUnits<T>{tiling.units, n(), n(), to_bias, nullptr});
    });
  });
  return {grad_x, grad_bias};
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, IWIN_DEVICE_KEY, m) {
  m.impl("bias_gelu", &iwin_d2::bias_gelu_cuda);
  m.impl("bias_gelu_backward", &iwin_d2::bias_gelu_backward_cuda);
}
