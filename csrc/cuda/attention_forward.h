// Attention inside interleaved windows, from the projected map to the result.
//
// A unit is a tile of one window's queries for one head. Its rows are spread over the warps, 16
// for each; the keys and values come by in tiles. Per unit:
//
//   write                      read                             between them
//   places of queries, keys    load_part                        barrier B1
//   queries, keys, values      all warps: products              wait_for_copies, barrier B2
//   (next tile of keys) places, keys, values: after barrier B0, when all have read the last ones
//
// A warp reads the queries of its own 16 rows alone, and in the end writes its result over them:
// __syncwarp on both sides suffices. Nothing but the result is written to memory, each of its
// numbers once: a unit's tokens belong to its window, and its tile, alone. Every barrier stands in
// control flow that depends on the unit alone. Offsets into maps are of 64 bits; indices in shared
// memory stay below kMostShared.
#pragma once

#include "attention_tile.h"

namespace iwin_d2 {

// Shared memory of the kernel below, in bytes.
template <typename In, int kHeadDim>
constexpr size_t shared_for_attend() {
  using S = Sizes<In, kHeadDim>;
  return 3 * S::kTile * sizeof(int64_t) + 3 * S::kMatrix * sizeof(In);
}

// `tiles` of queries per window at most; `out` is contiguous.
template <typename In, int kHeadDim>
__global__ void __launch_bounds__(Sizes<In, kHeadDim>::kThreads)
    attend(Problem<In> problem, Map<In> out, int64_t tiles, int64_t units) {
  using S = Sizes<In, kHeadDim>;
  IWIN_SHARED(shared);
  int64_t* query_places = reinterpret_cast<int64_t*>(shared);
  int64_t* out_places = query_places + S::kTile;
  int64_t* key_places = out_places + S::kTile;
  In* queries = reinterpret_cast<In*>(key_places + S::kTile);
  In* keys = queries + S::kMatrix;
  In* values = keys + S::kMatrix;
  const int first_row = threadIdx.x / kWarp * 16;

  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const Window window = window_of(problem, unit, tiles);
    const int64_t first_query = window.tile * S::kTile;
    if (first_query >= window.tokens) {
      continue;
    }
    Softmax softmax;
    Tile result[kHeadDim / 8];
    clear(result);
    for (int64_t first_key = 0; first_key < window.keys(); first_key += S::kTile) {
      __syncthreads();  // B0
      if (first_key == 0) {
        find_places<S::kTile>(
            query_places, problem.grid, window, problem.qkv, first_query, false);
        find_places<S::kTile>(out_places, problem.grid, window, out, first_query, false);
      }
      find_places<S::kTile>(key_places, problem.grid, window, problem.qkv, first_key, true);
      __syncthreads();  // B1
      if (first_key == 0) {
        load_part<In, kHeadDim>(queries, problem, window, kQuery, query_places);
      }
      load_part<In, kHeadDim>(keys, problem, window, kKey, key_places);
      load_part<In, kHeadDim>(values, problem, window, kValue, key_places);
      wait_for_copies();
      __syncthreads();  // B2

      Tile weights[S::kTile / 8];
      clear(weights);
      multiply_rows<In, S::kTile, kHeadDim>(weights, queries, first_row, keys);
      mask_keys<S::kTile>(weights, window, first_key, problem.scale);
      float rescale[2];
      softmax.weigh(weights, rescale);
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          result[n].sums[i] *= rescale[i / 2];
        }
      }
      multiply_tiles<In, kHeadDim, S::kTile>(result, weights, values);
    }
    const float inverse[2] = {softmax.inverse(0), softmax.inverse(1)};
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        result[n].sums[i] *= inverse[i / 2];
      }
    }
    store_rows<In, kHeadDim>(
        out.data + window.head * problem.head_dim, result, queries, out_places, problem.head_dim);
  }
}

}  // namespace iwin_d2
