// Partition and merge on the CPU: copies of rows of C elements, for any dtype and any strides.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "../partition.h"

namespace iwin_d2 {
namespace {

// Elements that are worth a thread.
constexpr int64_t kGrain = 32768;

// A row of channels in memory: `size` elements of `item` bytes, `stride` bytes from each other.
struct Row {
  int64_t size;
  int64_t item;
  int64_t stride;
};

// Writes the elements of `from` one after the other.
void copy_row(char* to, const char* from, const Row& row) {
  if (row.stride == row.item || row.size == 1) {
    std::memcpy(to, from, row.size * row.item);
    return;
  }
  const auto copy = [&](auto item) {
    for (int64_t i = 0; i < row.size; i++) {
      std::memcpy(to + i * item, from + i * row.stride, item);
    }
  };
  switch (row.item) {  // a constant number of bytes becomes one instruction
    case 2:
      copy(std::integral_constant<int64_t, 2>{});
      break;
    case 4:
      copy(std::integral_constant<int64_t, 4>{});
      break;
    case 8:
      copy(std::integral_constant<int64_t, 8>{});
      break;
    default:
      copy(row.item);
  }
}

// Strides in bytes.
c10::SmallVector<int64_t, 4> byte_strides(const at::Tensor& x) {
  c10::SmallVector<int64_t, 4> strides(x.strides().begin(), x.strides().end());
  for (int64_t& stride : strides) {
    stride *= x.element_size();
  }
  return strides;
}

// Calls visit(window, token, place) for all tokens of all windows. Windows share no token of the
// map, so that threads may write into the map as well.
template <typename Visit>
void for_each_window(const WindowGrid& grid, int64_t channels, const Visit& visit) {
  const int64_t work = std::max<int64_t>(1, grid.tokens_per_window() * channels);
  const int64_t grain = std::max<int64_t>(1, kGrain / work);
  at::parallel_for(0, grid.windows(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t window = begin; window < end; window++) {
      for_each_token(grid, window, [&](int64_t token, const TokenPlace& place) {
        visit(window, token, place);
      });
    }
  });
}

at::Tensor partition(const at::Tensor& x, at::IntArrayRef window_size) {
  const WindowGrid grid = check_partition(x, window_size);
  const int64_t channels = x.size(3);
  at::Tensor out = at::empty({grid.windows(), grid.tokens_per_window(), channels}, x.options());
  if (out.numel() == 0) {
    return out;
  }
  const auto strides = byte_strides(x);
  const Row row{channels, static_cast<int64_t>(x.element_size()), strides[3]};
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(out.mutable_data_ptr());
  for_each_window(grid, channels, [&](int64_t window, int64_t token, const TokenPlace& place) {
    char* target = to + (window * grid.tokens_per_window() + token) * row.size * row.item;
    if (place.inside) {
      const int64_t offset =
          place.image * strides[0] + place.row * strides[1] + place.column * strides[2];
      copy_row(target, from + offset, row);
    } else {
      std::memset(target, 0, row.size * row.item);
    }
  });
  return out;
}

at::Tensor merge(
    const at::Tensor& windows,
    at::IntArrayRef window_size,
    at::IntArrayRef size) {
  const WindowGrid grid = check_merge(windows, window_size, size);
  const int64_t channels = windows.size(2);
  at::Tensor out = at::empty({grid.batch, grid.height, grid.width, channels}, windows.options());
  if (out.numel() == 0) {
    return out;
  }
  const auto strides = byte_strides(windows);
  const Row row{channels, static_cast<int64_t>(windows.element_size()), strides[2]};
  const char* from = static_cast<const char*>(windows.const_data_ptr());
  char* to = static_cast<char*>(out.mutable_data_ptr());
  for_each_window(grid, channels, [&](int64_t window, int64_t token, const TokenPlace& place) {
    if (place.inside) {
      const int64_t place_in_map =
          (place.image * grid.height + place.row) * grid.width + place.column;
      char* target = to + place_in_map * row.size * row.item;
      copy_row(target, from + window * strides[0] + token * strides[1], row);
    }
  });
  return out;
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, CPU, m) {
  m.impl("partition", &iwin_d2::partition);
  m.impl("merge", &iwin_d2::merge);
}
