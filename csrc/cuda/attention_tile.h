// What the attention's kernels share: the problem, its pieces, and tiles of tokens in shared memory.
//
// Blocks take one unit of work after the other: a tile of kTile tokens of one head of one window.
// A warp has 16 of them as its rows, and nobody else writes what belongs to these.
#pragma once

#include "../attention_map.h"
#include "../interleaved_window.h"
#include "divider.h"
#include "matrix.h"

namespace iwin_d2 {

template <typename In>
struct Problem {
  WindowGrid grid;
  int64_t num_heads;
  int64_t channels;  // of the result: a third of qkv's
  int head_dim;
  float scale;
  Map<const In> qkv;
  const In* padding;  // a row of qkv, or null for zeros
  bool in_chunks;  // every token's channels of every head are aligned to 16 bytes
};

// Queries, keys and values lie one after the other in a token's channels.
enum Part { kQuery = 0, kKey = 1, kValue = 2 };

// Sizes of a kernel that takes heads of up to kHeadDim channels, the rest of them being zeros.
template <typename In, int kHeadDim>
struct Sizes {
  static constexpr int kTile = kHeadDim > 64 ? 32 : 64;
  static constexpr int kThreads = kTile / 16 * kWarp;
  static constexpr int kStride = kHeadDim + kGap;
  static constexpr int kMatrix = kTile * kStride;  // numbers of a tile in shared memory
  static constexpr int kChunk = sizeof(Chunk) / sizeof(In);
  static constexpr int kChunksPerRow = kHeadDim / kChunk;
};

// Units of work in order: all tiles of a head, all heads of a window, all windows.
struct Units {
  int64_t count;
  Divider tiles;  // of a window's tokens, at most
  Divider heads;
  Divider columns;  // of windows in an image
  Divider rows;

  Units(const WindowGrid& grid, int64_t num_heads, int64_t tiles)
      : count(grid.windows() * num_heads * tiles),
        tiles(tiles),
        heads(num_heads),
        columns(grid.groups_w),
        rows(grid.groups_h) {}
};

// A window as a unit of work sees it.
struct Window {
  int64_t index;
  int64_t head;
  int64_t tile;  // of its tokens
  WindowBox box;
  int64_t tokens;  // that lie in the map
  int64_t padding;  // those that do not

  // The padding's tokens are all the same row: one more key, that counts as often as they are.
  __device__ __forceinline__ int64_t keys() const { return tokens + (padding > 0 ? 1 : 0); }
};

__device__ __forceinline__ Window
window_of(const WindowGrid& grid, const Units& units, int64_t unit) {
  Window window;
  window.tile = units.tiles.divide(unit);
  window.head = units.heads.divide(unit);
  window.index = unit;
  const int64_t column = units.columns.divide(unit);
  const int64_t row = units.rows.divide(unit);
  window.box = box_at(grid, unit, row, column);
  window.tokens = tokens_in(grid, window.box);
  window.padding = grid.tokens_per_window() - window.tokens;
  return window;
}

// Where a tile's tokens lie in a map: the offset of the first channel, or one of these.
constexpr int64_t kNothing = -1;
constexpr int64_t kPadding = -2;

// Calls visit(n, special, place) for the tokens of a tile that begins with `first`, each in another
// thread: `special` is 0 for those in the map, which have a place there, or says what it is instead.
template <int kTile, typename Visit>
__device__ __forceinline__ void for_tile(
    const WindowGrid& grid, const Window& window, int64_t first, const Visit& visit) {
  for (int n = threadIdx.x; n < kTile; n += blockDim.x) {
    const int64_t token = first + n;
    if (token < window.tokens) {
      visit(n, int64_t{0}, place_in(grid, window.box, static_cast<uint32_t>(token)));
    } else {
      visit(n, token < window.keys() ? kPadding : kNothing, TokenPlace{});
    }
  }
}

// Copies the head's channels of a tile of tokens to shared memory: those in `data` at their places,
// the padding's from `padding` (null: zeros), and zeros for the rest. Whoever copied has it after
// wait_for_copies, the others after a barrier then.
template <typename In, int kHeadDim>
__device__ __forceinline__ void load_tile(
    In* tile,
    const In* data,
    const In* padding,
    const int64_t* places,
    int head_dim,
    bool in_chunks) {
  using S = Sizes<In, kHeadDim>;
  constexpr int kSteps = S::kTile * S::kChunksPerRow / S::kThreads;
  static_assert(kSteps * S::kThreads == S::kTile * S::kChunksPerRow);
#pragma unroll
  for (int step = 0; step < kSteps; step++) {
    const int n = step * S::kThreads + threadIdx.x;
    const int row = n / S::kChunksPerRow;
    const int channel = n % S::kChunksPerRow * S::kChunk;
    In* to = tile + row * S::kStride + channel;
    const int64_t place = places[row];
    const In* from = place >= 0 ? data + place : place == kPadding ? padding : nullptr;
    if (from == nullptr || channel >= head_dim) {
      store_chunk(to, Chunk{{0, 0, 0, 0}});
    } else if (in_chunks) {
      copy_chunk_async(to, from + channel);
    } else {
#pragma unroll
      for (int i = 0; i < S::kChunk; i++) {
        to[i] = from[channel + i];
      }
    }
  }
}

// The same of the queries, keys or values of a window's head.
template <typename In, int kHeadDim>
__device__ __forceinline__ void load_part(
    In* tile, const Problem<In>& problem, const Window& window, Part part, const int64_t* places) {
  const int64_t first = part * problem.channels + window.head * problem.head_dim;
  // The padding's query is nobody's.
  const bool with_padding = problem.padding != nullptr && part != kQuery;
  load_tile<In, kHeadDim>(
      tile,
      problem.qkv.data + first,
      with_padding ? problem.padding + first : nullptr,
      places,
      problem.head_dim,
      problem.in_chunks);
}

// Writes two neighbouring numbers, rounded to In; `to` is aligned to both.
template <typename In>
__device__ __forceinline__ void store_pair(In* to, float first, float second) {
  if constexpr (sizeof(In) == 2) {
    *reinterpret_cast<uint32_t*>(to) = pack<In>(first, second);
  } else {
    to[0] = first;
    to[1] = second;
  }
}

// Writes a warp's 16 rows, given as tiles, to their places. They go through the same rows of
// `buffer`, so that memory is written 16 bytes at a time: `to` has to be aligned to that.
template <typename In, int kHeadDim>
__device__ __forceinline__ void store_rows(
    In* to, const Tile (&tiles)[kHeadDim / 8], In* buffer, const int64_t* places, int head_dim) {
  using S = Sizes<In, kHeadDim>;
  const int first = threadIdx.x / kWarp * 16;
  const int lane = threadIdx.x % kWarp;
  __syncwarp();  // the rows have been read that are written now
#pragma unroll
  for (int n = 0; n < kHeadDim / 8; n++) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      store_pair(
          buffer + (first + Tile::row(i)) * S::kStride + n * 8 + Tile::column(i),
          tiles[n].sums[i],
          tiles[n].sums[i + 1]);
    }
  }
  __syncwarp();
#pragma unroll
  for (int n = lane; n < 16 * S::kChunksPerRow; n += kWarp) {
    const int row = first + n / S::kChunksPerRow;
    const int channel = n % S::kChunksPerRow * S::kChunk;
    if (places[row] >= 0 && channel < head_dim) {
      store_chunk(to + places[row] + channel, load_chunk(buffer + row * S::kStride + channel));
    }
  }
}

// How many tokens of a tile that begins with `first` are among the first `count` of the window.
template <int kTile>
__device__ __forceinline__ int tile_part(int64_t count, int64_t first) {
  const int64_t left = count - first;
  return left < kTile ? static_cast<int>(left) : kTile;
}

// Softmax is made of powers of two: logits are multiplied by this beforehand.
constexpr float kLog2E = 1.4426950408889634f;

// The logit that makes one key count as so many.
__device__ __forceinline__ float logit_of_count(int64_t count) {
  return log2f(static_cast<float>(count));
}

// Logits of 16 queries, as rows, and a tile of keys, made from their products and a scale that
// has kLog2E in it: those of keys that are not there are -inf, and that of the padding's key counts
// as often as there are tokens of it.
template <int kTile>
__device__ __forceinline__ void mask_keys(
    Tile (&logits)[kTile / 8], const Window& window, int64_t first_key, float scale) {
  const int inside = tile_part<kTile>(window.tokens, first_key);
  const int there = tile_part<kTile>(window.keys(), first_key);
  const float count = logit_of_count(window.padding);
#pragma unroll
  for (int n = 0; n < kTile / 8; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float& logit = logits[n].sums[i];
      logit *= scale;
      if (inside < kTile) {
        const int key = n * 8 + Tile::column(i);
        logit = key < inside ? logit : key < there ? logit + count : -INFINITY;
      }
    }
  }
}

template <int kTiles>
__device__ __forceinline__ void clear(Tile (&tiles)[kTiles]) {
#pragma unroll
  for (int n = 0; n < kTiles; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      tiles[n].sums[i] = 0;
    }
  }
}

// Multiplies each of a lane's two rows with a factor of its own.
template <int kTiles>
__device__ __forceinline__ void multiply_by(Tile (&tiles)[kTiles], const float (&factors)[2]) {
#pragma unroll
  for (int n = 0; n < kTiles; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      tiles[n].sums[i] *= factors[i / 2];
    }
  }
}

// What softmax has seen so far of a lane's two rows of logits, tile after tile.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY};
  float total[2] = {0, 0};  // of this lane's columns alone

  // What is taken off the logits; any number will do where all are -inf.
  __device__ __forceinline__ float base(int row) const {
    return largest[row] == -INFINITY ? 0.0f : largest[row];
  }

  // Makes weights of the logits, relative to the largest so far; `rescale` is what those of earlier
  // tiles have to be multiplied with.
  template <int kTiles>
  __device__ __forceinline__ void weigh(Tile (&logits)[kTiles], float (&rescale)[2]) {
#pragma unroll
    for (int row = 0; row < 2; row++) {
      float most = largest[row];
#pragma unroll
      for (int n = 0; n < kTiles; n++) {
        most = fmaxf(most, fmaxf(logits[n].sums[2 * row], logits[n].sums[2 * row + 1]));
      }
      const float before = largest[row];
      largest[row] = max_of_lanes<4>(most);
      rescale[row] = exp2_fast(before - base(row));
      total[row] *= rescale[row];
#pragma unroll
      for (int n = 0; n < kTiles; n++) {
#pragma unroll
        for (int i = 2 * row; i < 2 * row + 2; i++) {
          // The difference first: it is exact for the largest, however large that is.
          logits[n].sums[i] = exp2_fast(logits[n].sums[i] - base(row));
          total[row] += logits[n].sums[i];
        }
      }
    }
  }

  // Makes weights of the logits, relative to the largest of all tiles.
  template <int kTiles>
  __device__ __forceinline__ void weigh_again(Tile (&logits)[kTiles]) const {
#pragma unroll
    for (int n = 0; n < kTiles; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        logits[n].sums[i] = exp2_fast(logits[n].sums[i] - base(i / 2));
      }
    }
  }

  // Of the whole row, once all tiles have been seen.
  __device__ __forceinline__ float inverse(int row) const {
    return 1.0f / sum_of_lanes<4>(total[row]);
  }
};

}  // namespace iwin_d2
