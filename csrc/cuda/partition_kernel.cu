// Partition and merge on CUDA: copies of bytes, for any dtype and any strides of the input.
//
// Both go over the map line by line, with the padding's rows and columns where windows are written.
// A line is its tokens one after the other, each so many units: 16 bytes where the pointers, the
// strides and a token's size allow, else 8, 4 or 2, or an element. A block has kPart units of one
// line: neighbouring threads have neighbouring units, which lie together in the map, and in the
// windows as far as a token goes.
//
// That no two threads write one address: item i of the work is part i % parts of line i / parts;
// items go to blocks i, i + gridDim.x, ..., each to one. Within it a thread has the units
// first + thread, first + thread + kThreads, ... of the line. So each unit of the map or of its
// padding belongs to one thread, which writes it to the windows (window_of gives different tokens
// different places) or, if it is not padding, to the map. It reads the input alone, which nobody
// writes to, and there is no barrier.
// The largest index is that of the last unit of the map or the windows; the number of a unit that
// is not read goes up to kPart further. All of them are int64.
#include "../partition.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "tiling.h"

namespace iwin_d2 {
namespace {

// Units that a thread reads before it writes them.
constexpr int kInFlight = 4;
constexpr int kPart = kInFlight * kThreads;

// In units: where the map and the windows have theirs, and how far the copy goes.
struct Copy {
  WindowGrid grid;
  int64_t units;    // of a token
  int64_t rows;     // lines of an image
  int64_t columns;  // tokens of a line
  int64_t image, row, column, unit_in_map;  // strides of the map
  int64_t window, token, unit_in_window;    // strides of the windows
  Divider by_units;
  Divider by_parts;

  int64_t parts() const { return divide_up(columns * units, kPart); }
  int64_t items() const { return grid.batch * rows * parts(); }
};

template <typename Unit>
__device__ __forceinline__ Unit load_unit(const Unit* from) {
  if constexpr (std::is_same_v<Unit, Chunk>) {
    return load_chunk(from);
  } else {
    return *from;
  }
}

template <typename Unit>
__device__ __forceinline__ void store_unit(Unit* to, Unit unit) {
  if constexpr (std::is_same_v<Unit, Chunk>) {
    store_chunk(to, unit);
  } else {
    *to = unit;
  }
}

template <typename Unit, bool kToWindows>
__global__ void __launch_bounds__(kThreads)
    copy_lines(const Unit* __restrict__ from, Unit* __restrict__ to, Copy copy, int64_t items) {
  const int64_t line_units = copy.columns * copy.units;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    int64_t line = item;
    const int64_t first = copy.by_parts.divide(line) * kPart + threadIdx.x;
    TokenPlace place = {line / copy.rows, 0, line % copy.rows, 0, false};
    Unit units[kInFlight];
    int64_t targets[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; i++) {
      const int64_t n = first + i * kThreads;
      if (n < line_units) {
        place.column = n;
        const int64_t unit = copy.by_units.divide(place.column);
        const WindowPlace in_windows = window_of(copy.grid, place);
        const int64_t at_map = place.image * copy.image + place.row * copy.row +
            place.column * copy.column + unit * copy.unit_in_map;
        const int64_t at_window = in_windows.window * copy.window +
            in_windows.token * copy.token + unit * copy.unit_in_window;
        const bool inside = place.row < copy.grid.height && place.column < copy.grid.width;
        units[i] = inside ? load_unit(from + (kToWindows ? at_map : at_window)) : Unit{};
        targets[i] = kToWindows ? at_window : at_map;
      }
    }
#pragma unroll
    for (int i = 0; i < kInFlight; i++) {
      if (first + i * kThreads < line_units) {
        store_unit(to + targets[i], units[i]);
      }
    }
  }
}

// Calls run(Unit{}) with the type of a unit of so many bytes.
template <typename Run>
void for_unit(int64_t bytes, const Run& run) {
  switch (bytes) {
    case 16:
      return run(Chunk{});
    case 8:
      return run(uint64_t{});
    case 4:
      return run(uint32_t{});
    case 2:
      return run(uint16_t{});
    default:
      return run(uint8_t{});
  }
}

// The strides of a tensor in bytes; where there is but one of something, its stride does not count.
c10::SmallVector<int64_t, 4> byte_strides(const at::Tensor& x) {
  c10::SmallVector<int64_t, 4> strides;
  for (int64_t i = 0; i < x.dim(); i++) {
    strides.push_back(x.size(i) == 1 ? 0 : x.stride(i) * x.element_size());
  }
  return strides;
}

// The bytes of a unit: where channels lie together, the largest power of two up to 16 of which
// everything is a multiple; else those of an element.
int64_t unit_bytes(const at::Tensor& x, const at::Tensor& out) {
  const int64_t channels = x.size(-1);
  if (channels > 1 && x.stride(-1) != 1) {
    return x.element_size();
  }
  uint64_t bits = sizeof(Chunk) | reinterpret_cast<uintptr_t>(x.const_data_ptr()) |
      reinterpret_cast<uintptr_t>(out.const_data_ptr()) | channels * x.element_size();
  const auto strides = byte_strides(x);
  for (int64_t i = 0; i + 1 < x.dim(); i++) {
    bits |= static_cast<uint64_t>(strides[i]);
  }
  return static_cast<int64_t>(bits & (~bits + 1));
}

// Copies a map into its windows, or back. Neither is empty.
template <bool kToWindows>
void copy_tokens(const WindowGrid& grid, const at::Tensor& from, const at::Tensor& to) {
  const int64_t bytes = unit_bytes(from, to);
  const auto map = byte_strides(kToWindows ? from : to);
  const auto windows = byte_strides(kToWindows ? to : from);
  // In units, which are elements where they do not lie together.
  const int64_t apart = from.size(-1) == 1 ? 1 : from.stride(-1);
  Copy copy = {
      grid,
      from.size(-1) * from.element_size() / bytes,
      kToWindows ? grid.groups_h * grid.window_h : grid.height,
      kToWindows ? grid.groups_w * grid.window_w : grid.width,
      map[0] / bytes,
      map[1] / bytes,
      map[2] / bytes,
      kToWindows ? apart : 1,
      windows[0] / bytes,
      windows[1] / bytes,
      kToWindows ? 1 : apart,
      {},
      {}};
  copy.by_units = Divider(copy.units);
  copy.by_parts = Divider(copy.parts());
  for_unit(bytes, [&](auto unit) {
    using Unit = decltype(unit);
    launch(
        copy_lines<Unit, kToWindows>,
        blocks_for(copy.items()),
        kThreads,
        0,
        static_cast<const Unit*>(from.const_data_ptr()),
        static_cast<Unit*>(to.mutable_data_ptr()),
        copy,
        copy.items());
  });
}

at::Tensor partition_cuda(const at::Tensor& x, at::IntArrayRef window_size) {
  const WindowGrid grid = check_partition(x, window_size);
  const c10::cuda::CUDAGuard device(x.device());
  at::Tensor out = at::empty({grid.windows(), grid.tokens_per_window(), x.size(3)}, x.options());
  if (out.numel() > 0) {
    copy_tokens<true>(grid, x, out);
  }
  return out;
}

at::Tensor merge_cuda(
    const at::Tensor& windows, at::IntArrayRef window_size, at::IntArrayRef size) {
  const WindowGrid grid = check_merge(windows, window_size, size);
  const c10::cuda::CUDAGuard device(windows.device());
  at::Tensor out =
      at::empty({grid.batch, grid.height, grid.width, windows.size(2)}, windows.options());
  if (out.numel() > 0) {
    copy_tokens<false>(grid, windows, out);
  }
  return out;
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, IWIN_DEVICE_KEY, m) {
  m.impl("partition", &iwin_d2::partition_cuda);
  m.impl("merge", &iwin_d2::merge_cuda);
}
