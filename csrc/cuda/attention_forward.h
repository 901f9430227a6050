// Attention inside interleaved windows, from the projected map to the result.
//
// A unit is a tile of one window's queries for one head. Its rows are spread over the warps, 16
// for each; the keys and values come by in tiles. Per unit:
//
//   write                      read                             between them
//   places of queries, keys    load_part                        barrier B1
//   queries, keys, values      all warps: products              wait_for_copies, barrier B2
// The next tile's places are written while others still multiply, since they are read between B1
// and B2 alone; its keys and values after B1, when all have multiplied. The places of the queries
// and of the result, which is written last, wait for barrier B0 at the start of a unit.
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

// `out` is contiguous.
template <typename In, int kHeadDim>
__global__ void __launch_bounds__(Sizes<In, kHeadDim>::kThreads)
    attend(Problem<In> problem, Map<In> out, Units units) {
  using S = Sizes<In, kHeadDim>;
  IWIN_SHARED(shared);
  int64_t* query_places = reinterpret_cast<int64_t*>(shared);
  int64_t* out_places = query_places + S::kTile;
  int64_t* other_places = out_places + S::kTile;
  In* queries = reinterpret_cast<In*>(other_places + S::kTile);
  In* keys = queries + S::kMatrix;
  In* values = keys + S::kMatrix;
  const int first_row = threadIdx.x / kWarp * 16;
  const float scale = problem.scale * kLog2E;

  for (int64_t unit = blockIdx.x; unit < units.count; unit += gridDim.x) {
    const Window window = window_of(problem.grid, units, unit);
    const int64_t first_query = window.tile * S::kTile;
    if (first_query >= window.tokens) {
      continue;
    }
    Softmax softmax;
    Tile result[kHeadDim / 8];
    clear(result);
    for (int64_t first_key = 0; first_key < window.keys(); first_key += S::kTile) {
      // The queries' own tile, whose places are known.
      const bool own = first_key == first_query;
      if (first_key == 0) {
        __syncthreads();  // B0
        for_tile<S::kTile>(
            problem.grid,
            window,
            first_query,
            [&](int n, int64_t special, const TokenPlace& place) {
              query_places[n] = special != 0 ? special : problem.qkv.offset(place);
              out_places[n] = special != 0 ? special : out.offset(place);
            });
      }
      if (!own) {
        for_tile<S::kTile>(
            problem.grid,
            window,
            first_key,
            [&](int n, int64_t special, const TokenPlace& place) {
              other_places[n] = special != 0 ? special : problem.qkv.offset(place);
            });
      }
      __syncthreads();  // B1
      if (first_key == 0) {
        load_part<In, kHeadDim>(queries, problem, window, kQuery, query_places);
      }
      const int64_t* key_places = own ? query_places : other_places;
      load_part<In, kHeadDim>(keys, problem, window, kKey, key_places);
      load_part<In, kHeadDim>(values, problem, window, kValue, key_places);
      wait_for_copies();
      __syncthreads();  // B2

      Tile weights[S::kTile / 8];
      clear(weights);
      multiply_rows<In, S::kTile, kHeadDim>(weights, queries, first_row, keys);
      mask_keys<S::kTile>(weights, window, first_key, scale);
      float rescale[2];
      softmax.weigh(weights, rescale);
      multiply_by(result, rescale);
      multiply_tiles<In, kHeadDim, S::kTile>(result, weights, values);
    }
    multiply_by(result, {softmax.inverse(0), softmax.inverse(1)});
    store_rows<In, kHeadDim>(
        out.data + window.head * problem.head_dim, result, queries, out_places, problem.head_dim);
  }
}

}  // namespace iwin_d2
