// Index arithmetic of interleaved windows (arXiv 2507.18405, section 3), shared by every backend.
//
// A map of height x width tokens, padded to the next multiples of the window, splits into
// groups_h x groups_w windows. Window (a, b) holds the tokens at rows a, a + groups_h, ... and
// columns b, b + groups_w, ..., of every frame: window tokens in the order (frame, row, column).
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define IWIN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define IWIN_HOST_DEVICE inline
#endif

namespace iwin_d2 {

struct WindowGrid {
  int64_t batch;
  int64_t frames;
  int64_t height;
  int64_t width;
  int64_t window_h;
  int64_t window_w;
  int64_t groups_h;
  int64_t groups_w;
  // Of the map's rows, a window has so many, and the first `longer_h` windows one more; columns too.
  int64_t rows;
  int64_t columns;
  int64_t longer_h;
  int64_t longer_w;

  // All sides and frames are at least 1; the batch may be 0.
  static WindowGrid make(
      int64_t batch,
      int64_t frames,
      int64_t height,
      int64_t width,
      int64_t window_h,
      int64_t window_w) {
    const int64_t groups_h = (height + window_h - 1) / window_h;
    const int64_t groups_w = (width + window_w - 1) / window_w;
    return {
        batch,
        frames,
        height,
        width,
        window_h,
        window_w,
        groups_h,
        groups_w,
        height / groups_h,
        width / groups_w,
        height % groups_h,
        width % groups_w};
  }

  IWIN_HOST_DEVICE int64_t windows_per_image() const { return groups_h * groups_w; }

  IWIN_HOST_DEVICE int64_t windows() const { return batch * windows_per_image(); }

  IWIN_HOST_DEVICE int64_t tokens_per_window() const { return frames * window_h * window_w; }

  IWIN_HOST_DEVICE bool has_padding() const {
    return height % window_h != 0 || width % window_w != 0;
  }
};

// Where a token of a window lies in the map. Outside the map it is padding.
struct TokenPlace {
  int64_t image;
  int64_t frame;
  int64_t row;
  int64_t column;
  bool inside;
};

// Windows count image by image, within an image row by row.
IWIN_HOST_DEVICE TokenPlace place_of(const WindowGrid& grid, int64_t window, int64_t token) {
  const int64_t in_image = window % grid.windows_per_image();
  const int64_t in_frame = token % (grid.window_h * grid.window_w);
  TokenPlace place;
  place.image = window / grid.windows_per_image();
  place.frame = token / (grid.window_h * grid.window_w);
  place.row = in_image / grid.groups_w + in_frame / grid.window_w * grid.groups_h;
  place.column = in_image % grid.groups_w + in_frame % grid.window_w * grid.groups_w;
  place.inside = place.row < grid.height && place.column < grid.width;
  return place;
}

// Where the windows hold a token of the map or of its padding: place_of, read backwards.
struct WindowPlace {
  int64_t window;
  int64_t token;
};

IWIN_HOST_DEVICE WindowPlace window_of(const WindowGrid& grid, const TokenPlace& place) {
  const int64_t in_image = place.row % grid.groups_h * grid.groups_w + place.column % grid.groups_w;
  const int64_t in_frame = place.row / grid.groups_h * grid.window_w + place.column / grid.groups_w;
  return {
      place.image * grid.windows_per_image() + in_image,
      place.frame * grid.window_h * grid.window_w + in_frame};
}

// The tokens of a window that lie in the map. The padding comes last among a window's rows and
// among its columns, so they are a box of it; there is always at least one.
struct WindowBox {
  int64_t image;
  int64_t first_row;  // in the map
  int64_t first_column;
  int32_t rows;  // of the window
  int32_t columns;
};

// Of the window whose first token lies at this row and column of an image.
IWIN_HOST_DEVICE WindowBox
box_at(const WindowGrid& grid, int64_t image, int64_t first_row, int64_t first_column) {
  WindowBox box;
  box.image = image;
  box.first_row = first_row;
  box.first_column = first_column;
  box.rows = static_cast<int32_t>(grid.rows) + (first_row < grid.longer_h ? 1 : 0);
  box.columns = static_cast<int32_t>(grid.columns) + (first_column < grid.longer_w ? 1 : 0);
  return box;
}

IWIN_HOST_DEVICE int64_t tokens_in(const WindowGrid& grid, const WindowBox& box) {
  return grid.frames * box.rows * box.columns;
}

// The place of the n-th of them, in the order of the window's tokens. Divides 32 bits, which a GPU
// does much faster than 64.
IWIN_HOST_DEVICE TokenPlace place_in(const WindowGrid& grid, const WindowBox& box, uint32_t n) {
  const uint32_t row = n / static_cast<uint32_t>(box.columns);  // counted through all frames
  const uint32_t frame = row / static_cast<uint32_t>(box.rows);
  TokenPlace place;
  place.image = box.image;
  place.frame = frame;
  place.row = box.first_row + (row - frame * box.rows) * grid.groups_h;
  place.column = box.first_column + (n - row * box.columns) * grid.groups_w;
  place.inside = true;
  return place;
}

// As place_of, token after token: calls visit(token, place) for every token of a window in order.
template <typename Visit>
inline void for_each_token(const WindowGrid& grid, int64_t window, Visit visit) {
  const int64_t in_image = window % grid.windows_per_image();
  const int64_t first_row = in_image / grid.groups_w;
  const int64_t first_column = in_image % grid.groups_w;
  TokenPlace place;
  place.image = window / grid.windows_per_image();
  int64_t token = 0;
  for (place.frame = 0; place.frame < grid.frames; place.frame++) {
    for (int64_t i = 0; i < grid.window_h; i++) {
      place.row = first_row + i * grid.groups_h;
      for (int64_t j = 0; j < grid.window_w; j++) {
        place.column = first_column + j * grid.groups_w;
        place.inside = place.row < grid.height && place.column < grid.width;
        visit(token++, place);
      }
    }
  }
}

}  // namespace iwin_d2
