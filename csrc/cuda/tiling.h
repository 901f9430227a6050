// How a kernel's threads share a matrix [places, channels] that is read row by row: a thread has a
// `unit` of N neighbouring channels of one place. A block has a tile of units, at most a warp's
// lanes, of several places: lanes read what lies together, and what a thread keeps of its channels
// (a bias, sums) serves all places that it comes to.
#pragma once

#include "divider.h"

namespace iwin_d2 {

// The most that a block has.
constexpr int kThreads = 256;

struct Tiling {
  int64_t units;  // of a place
  int64_t tiles;  // that these make
  int lanes;      // units of a tile; the last tile may have fewer
  int places;     // of a block
  Divider by_tiles;
  Divider by_lanes;

  // All sizes are at least 1; no more places than `most` are of use.
  static Tiling make(int64_t units, int64_t most) {
    const int64_t tiles = divide_up(units, kWarp);
    const int64_t lanes = divide_up(units, tiles);
    return {
        units,
        tiles,
        static_cast<int>(lanes),
        static_cast<int>(std::min<int64_t>(kThreads / lanes, most)),
        Divider(tiles),
        Divider(lanes)};
  }

  // Whole warps: up to 31 threads have no place, and nothing to do.
  unsigned threads() const {
    return static_cast<unsigned>(divide_up(lanes * places, kWarp) * kWarp);
  }
};

// What a thread has of a block's tile.
struct Seat {
  int64_t unit;
  int place;
  bool taken;  // else there is no such place, or no such unit

  static __device__ __forceinline__ Seat of_this_thread(const Tiling& tiling, int64_t tile) {
    Seat seat;
    int64_t thread = threadIdx.x;
    seat.unit = tile * tiling.lanes + tiling.by_lanes.divide(thread);
    seat.place = static_cast<int>(thread);
    seat.taken = seat.place < tiling.places && seat.unit < tiling.units;
    return seat;
  }
};

}  // namespace iwin_d2
