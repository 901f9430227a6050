// The gradients of attention inside interleaved windows. Logits and weights are computed again.
//
// With the weights p (query i, key j), the gradient g of the result and d(i, j) = g(i) . v(j):
//
//   by queries: delta(i) = sum_j p d;  s = p (d - delta(i));  the query's gradient: scale sum_j s k(j)
//   by keys:    the key's gradient: scale sum_i s q(i);  the value's: sum_i p g(i)
//
// Each sum is made by one warp, in one order: a warp has 16 queries as its rows for the first, then
// 16 keys for the second, and computes p and d again for them. Where a window has more tokens than
// one tile these are two kernels, and the first leaves what the second has to know of each query
// (`Fact`) in memory; else one kernel does both, and leaves it in shared memory.
//
// Who reads what when is as in attention_forward.h: places, barrier, tiles and facts, barrier,
// products. Places of the next tile are written while others still multiply, since they are read
// between the barriers alone. Those of the unit's own tokens are read later, too; they are written
// once, at its start, after a barrier that all reach when they have read those of the unit before.
// The facts of a tile's queries are written by the warp that has them as rows, and read by all after
// a barrier. Results go through `buffer`, of which a warp touches its own 16 rows alone. No number
// is written by two threads.
#pragma once

#include "attention_tile.h"

namespace iwin_d2 {

// Of each query of a tile: the softmax's base and inverse sum, and delta. All zero for queries that
// are not there, whose weights are then zero, too.
enum Fact { kBase = 0, kInverse = 1, kDelta = 2, kFacts = 3 };

template <typename In>
struct BackwardProblem {
  Problem<In> attention;
  Map<const In> grad;
  bool grad_in_chunks;
  Map<In> grad_qkv;  // contiguous
  // Of the keys and values of the padding: [windows, 2 * channels], or null.
  float* grad_padding;
  // [units, kFacts, kTile], in the order of the units; null where one kernel does it all.
  float* facts;
};

// Shared memory of the kernels below, in bytes.
template <typename In, int kHeadDim>
constexpr size_t shared_for_backward() {
  using S = Sizes<In, kHeadDim>;
  return 4 * S::kTile * sizeof(int64_t) + kFacts * S::kTile * sizeof(float) +
      5 * S::kMatrix * sizeof(In);
}

template <typename In, int kHeadDim>
struct Tiles {
  using S = Sizes<In, kHeadDim>;

  __device__ __forceinline__ explicit Tiles(unsigned char* shared)
      : query_places(reinterpret_cast<int64_t*>(shared)),
        key_places(query_places + S::kTile),
        grad_places(key_places + S::kTile),
        out_places(grad_places + S::kTile),
        facts(reinterpret_cast<float*>(out_places + S::kTile)),
        queries(reinterpret_cast<In*>(facts + kFacts * S::kTile)),
        grads(queries + S::kMatrix),
        keys(grads + S::kMatrix),
        values(keys + S::kMatrix),
        buffer(values + S::kMatrix) {}

  int64_t* const query_places;
  int64_t* const key_places;
  int64_t* const grad_places;  // of the queries, in the gradient of the result
  int64_t* const out_places;  // of the unit's tokens, in the gradient of qkv
  float* const facts;
  In* const queries;
  In* const grads;
  In* const keys;
  In* const values;
  In* const buffer;

  // Writes the places of a tile of tokens that begins with `first`: as queries, as keys, and those
  // of their gradients.
  template <bool kQueries, bool kKeys, bool kResults>
  __device__ __forceinline__ void find(
      const BackwardProblem<In>& problem, const Window& window, int64_t first) const {
    const auto& attention = problem.attention;
    for_tile<S::kTile>(
        attention.grid, window, first, [&](int n, int64_t special, const TokenPlace& place) {
          const int64_t in_qkv = special != 0 ? special : attention.qkv.offset(place);
          if constexpr (kQueries) {
            query_places[n] = in_qkv;
            grad_places[n] = special != 0 ? special : problem.grad.offset(place);
          }
          if constexpr (kKeys) {
            key_places[n] = in_qkv;
          }
          if constexpr (kResults) {
            out_places[n] = special != 0 ? special : problem.grad_qkv.offset(place);
          }
        });
  }

  __device__ __forceinline__ void load_queries(
      const BackwardProblem<In>& problem, const Window& window) const {
    const auto& attention = problem.attention;
    load_part<In, kHeadDim>(queries, attention, window, kQuery, query_places);
    load_tile<In, kHeadDim>(
        grads,
        problem.grad.data + window.head * attention.head_dim,
        nullptr,
        grad_places,
        attention.head_dim,
        problem.grad_in_chunks);
  }

  __device__ __forceinline__ void load_keys(
      const BackwardProblem<In>& problem, const Window& window) const {
    load_part<In, kHeadDim>(keys, problem.attention, window, kKey, key_places);
    load_part<In, kHeadDim>(values, problem.attention, window, kValue, key_places);
  }

  // Writes a part's gradients of the unit's tokens.
  __device__ __forceinline__ void store(
      const BackwardProblem<In>& problem,
      const Window& window,
      Part part,
      const Tile (&tiles)[kHeadDim / 8]) const {
    const auto& attention = problem.attention;
    store_rows<In, kHeadDim>(
        problem.grad_qkv.data + part * attention.channels + window.head * attention.head_dim,
        tiles,
        buffer,
        out_places,
        attention.head_dim);
  }

  // Those of the padding's key or value, if it is among the warp's rows, in float32.
  __device__ __forceinline__ void store_padding(
      const BackwardProblem<In>& problem,
      const Window& window,
      Part part,
      const Tile (&tiles)[kHeadDim / 8]) const {
    const auto& attention = problem.attention;
    if (problem.grad_padding == nullptr) {
      return;
    }
    float* to = problem.grad_padding + (2 * window.index + part - kKey) * attention.channels +
        window.head * attention.head_dim;
    const int first_row = threadIdx.x / kWarp * 16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (out_places[first_row + Tile::row(i)] == kPadding) {
#pragma unroll
        for (int n = 0; n < kHeadDim / 8; n++) {
          const int channel = n * 8 + Tile::column(i);
          if (channel < attention.head_dim) {
            to[channel] = tiles[n].sums[i];
          }
        }
      }
    }
  }
};

// A tile of queries, whose places are found: writes their gradients, and their facts to shared
// memory. Begins with the barrier after the places were written; after it, the facts need another.
template <typename In, int kHeadDim>
__device__ __forceinline__ void by_queries(
    const BackwardProblem<In>& problem, const Window& window, const Tiles<In, kHeadDim>& shared) {
  using S = Sizes<In, kHeadDim>;
  const int first_row = threadIdx.x / kWarp * 16;
  const float scale = problem.attention.scale * kLog2E;
  const int64_t key_tiles = (window.keys() + S::kTile - 1) / S::kTile;
  Tile weights[S::kTile / 8], dots[S::kTile / 8];

  // Logits, as rows of queries, and the products of gradients and values.
  const auto compare = [&](int64_t key_tile, bool with_queries) {
    __syncthreads();  // the places are written, the last keys have been read
    if (with_queries) {
      shared.load_queries(problem, window);
    }
    shared.load_keys(problem, window);
    wait_for_copies();
    __syncthreads();
    clear(weights);
    clear(dots);
    multiply_rows<In, S::kTile, kHeadDim>(weights, shared.queries, first_row, shared.keys);
    multiply_rows<In, S::kTile, kHeadDim>(dots, shared.grads, first_row, shared.values);
    mask_keys<S::kTile>(weights, window, key_tile * S::kTile, scale);
  };
  // Nobody reads the last tile's places any more: all have loaded it.
  const auto next_keys = [&](int64_t key_tile) {
    shared.template find<false, true, false>(problem, window, key_tile * S::kTile);
  };

  Softmax softmax;
  float delta[2] = {0, 0};
  for (int64_t key_tile = 0; key_tile < key_tiles; key_tile++) {
    if (key_tile > 0) {
      next_keys(key_tile);
    }
    compare(key_tile, key_tile == 0);
    float rescale[2];
    softmax.weigh(weights, rescale);
#pragma unroll
    for (int row = 0; row < 2; row++) {
      delta[row] *= rescale[row];
#pragma unroll
      for (int n = 0; n < S::kTile / 8; n++) {
        delta[row] += weights[n].sums[2 * row] * dots[n].sums[2 * row];
        delta[row] += weights[n].sums[2 * row + 1] * dots[n].sums[2 * row + 1];
      }
    }
  }
  float inverse[2];
#pragma unroll
  for (int row = 0; row < 2; row++) {
    inverse[row] = softmax.inverse(row);
    delta[row] = sum_of_lanes<4>(delta[row]) * inverse[row];
  }

  Tile result[kHeadDim / 8];
  clear(result);
  // Backwards, since the last tile of keys is there, with weights relative to the final base.
  for (int64_t key_tile = key_tiles - 1; key_tile >= 0; key_tile--) {
    if (key_tile < key_tiles - 1) {
      next_keys(key_tile);
      compare(key_tile, false);
      softmax.weigh_again(weights);
    }
#pragma unroll
    for (int n = 0; n < S::kTile / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        weights[n].sums[i] *= inverse[i / 2] * (dots[n].sums[i] - delta[i / 2]);
      }
    }
    multiply_tiles<In, kHeadDim, S::kTile>(result, weights, shared.keys);
  }
  multiply_by(result, {problem.attention.scale, problem.attention.scale});
  shared.store(problem, window, kQuery, result);

  if (threadIdx.x % 4 == 0) {
#pragma unroll
    for (int row = 0; row < 2; row++) {
      const int query = first_row + Tile::row(2 * row);
      const bool there = shared.query_places[query] >= 0;
      shared.facts[kBase * S::kTile + query] = there ? softmax.base(row) : 0;
      shared.facts[kInverse * S::kTile + query] = there ? inverse[row] : 0;
      shared.facts[kDelta * S::kTile + query] = there ? delta[row] : 0;
    }
  }
}

// Adds what one tile of queries, with its facts, gives to the gradients of the warp's 16 keys.
// `scale` has kLog2E in it; `count` is the logit of the padding's count.
template <typename In, int kHeadDim>
__device__ __forceinline__ void add_to_keys(
    Tile (&grad_keys)[kHeadDim / 8],
    Tile (&grad_values)[kHeadDim / 8],
    const Tiles<In, kHeadDim>& shared,
    float scale,
    float count) {
  using S = Sizes<In, kHeadDim>;
  const int first_row = threadIdx.x / kWarp * 16;
  Tile weights[S::kTile / 8], dots[S::kTile / 8];
  clear(weights);
  clear(dots);
  multiply_rows<In, S::kTile, kHeadDim>(weights, shared.keys, first_row, shared.queries);
  multiply_rows<In, S::kTile, kHeadDim>(dots, shared.values, first_row, shared.grads);
  // What the logit of the padding's key has on top; 0 for others.
  float more[2];
#pragma unroll
  for (int row = 0; row < 2; row++) {
    const int64_t place = shared.key_places[first_row + Tile::row(2 * row)];
    more[row] = place == kPadding ? count : 0.0f;
  }
#pragma unroll
  for (int n = 0; n < S::kTile / 8; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int query = n * 8 + Tile::column(i);
      const float logit = weights[n].sums[i] * scale + more[i / 2];
      const float weight = exp2_fast(logit - shared.facts[kBase * S::kTile + query]) *
          shared.facts[kInverse * S::kTile + query];
      weights[n].sums[i] = weight;
      dots[n].sums[i] = weight * (dots[n].sums[i] - shared.facts[kDelta * S::kTile + query]);
    }
  }
  multiply_tiles<In, kHeadDim, S::kTile>(grad_values, weights, shared.grads);
  multiply_tiles<In, kHeadDim, S::kTile>(grad_keys, dots, shared.queries);
}

// Writes the gradients of the unit's keys and values; the places are found.
template <typename In, int kHeadDim>
__device__ __forceinline__ void store_keys(
    const BackwardProblem<In>& problem,
    const Window& window,
    const Tiles<In, kHeadDim>& shared,
    Tile (&grad_keys)[kHeadDim / 8],
    const Tile (&grad_values)[kHeadDim / 8]) {
  multiply_by(grad_keys, {problem.attention.scale, problem.attention.scale});
  shared.store(problem, window, kKey, grad_keys);
  shared.store(problem, window, kValue, grad_values);
  shared.store_padding(problem, window, kKey, grad_keys);
  shared.store_padding(problem, window, kValue, grad_values);
}

// Windows of one tile of keys, the padding's included: everything at once. A unit is a window's head.
template <typename In, int kHeadDim>
__global__ void __launch_bounds__(Sizes<In, kHeadDim>::kThreads)
    attend_backward(BackwardProblem<In> problem, Units units) {
  IWIN_SHARED(memory);
  const Tiles<In, kHeadDim> shared(memory);
  for (int64_t unit = blockIdx.x; unit < units.count; unit += gridDim.x) {
    const Window window = window_of(problem.attention.grid, units, unit);
    __syncthreads();  // the last unit is done
    shared.template find<true, true, true>(problem, window, 0);
    by_queries(problem, window, shared);
    __syncthreads();  // the facts are written
    Tile grad_keys[kHeadDim / 8], grad_values[kHeadDim / 8];
    clear(grad_keys);
    clear(grad_values);
    add_to_keys(
        grad_keys,
        grad_values,
        shared,
        problem.attention.scale * kLog2E,
        logit_of_count(window.padding));
    store_keys(problem, window, shared, grad_keys, grad_values);
  }
}

// A unit is a tile of a window's queries for one head.
template <typename In, int kHeadDim>
__global__ void __launch_bounds__(Sizes<In, kHeadDim>::kThreads)
    attend_backward_queries(BackwardProblem<In> problem, Units units) {
  using S = Sizes<In, kHeadDim>;
  IWIN_SHARED(memory);
  const Tiles<In, kHeadDim> shared(memory);
  for (int64_t unit = blockIdx.x; unit < units.count; unit += gridDim.x) {
    const Window window = window_of(problem.attention.grid, units, unit);
    const int64_t first = window.tile * S::kTile;
    if (first >= window.tokens) {
      continue;
    }
    shared.template find<true, false, true>(problem, window, first);
    shared.template find<false, true, false>(problem, window, 0);
    by_queries(problem, window, shared);
    __syncthreads();  // the facts are written
    for (int n = threadIdx.x; n < kFacts * S::kTile; n += S::kThreads) {
      problem.facts[unit * kFacts * S::kTile + n] = shared.facts[n];
    }
  }
}

// A unit is a tile of a window's keys, the padding's included, for one head.
template <typename In, int kHeadDim>
__global__ void __launch_bounds__(Sizes<In, kHeadDim>::kThreads)
    attend_backward_keys(BackwardProblem<In> problem, Units units) {
  using S = Sizes<In, kHeadDim>;
  IWIN_SHARED(memory);
  const Tiles<In, kHeadDim> shared(memory);
  const float scale = problem.attention.scale * kLog2E;
  for (int64_t unit = blockIdx.x; unit < units.count; unit += gridDim.x) {
    const Window window = window_of(problem.attention.grid, units, unit);
    const int64_t first_key = window.tile * S::kTile;
    if (first_key >= window.keys()) {
      continue;
    }
    const float count = logit_of_count(window.padding);
    Tile grad_keys[kHeadDim / 8], grad_values[kHeadDim / 8];
    clear(grad_keys);
    clear(grad_values);
    __syncthreads();  // the last unit is done
    shared.template find<false, true, true>(problem, window, first_key);
    for (int64_t tile = 0; tile * S::kTile < window.tokens; tile++) {
      shared.template find<true, false, false>(problem, window, tile * S::kTile);
      __syncthreads();  // the places are written, the last queries and facts have been read
      if (tile == 0) {
        shared.load_keys(problem, window);
      }
      shared.load_queries(problem, window);
      // The unit of these queries in the kernel above.
      const int64_t writer = unit - window.tile + tile;
      for (int n = threadIdx.x; n < kFacts * S::kTile; n += S::kThreads) {
        shared.facts[n] = problem.facts[writer * kFacts * S::kTile + n];
      }
      wait_for_copies();
      __syncthreads();
      add_to_keys(grad_keys, grad_values, shared, scale, count);
    }
    store_keys(problem, window, shared, grad_keys, grad_values);
  }
}

}  // namespace iwin_d2
