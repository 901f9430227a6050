// Sums over all places of a map, for each channel, without atomics: the gradients of biases and of
// taps. They have the same bits every time, whatever the device.
//
// The places are cut into slices, as many as the shapes alone say. Each block of a kernel sums
// those of one slice, and a second kernel sums the slices:
//
// 1. A thread adds up, in registers, what it comes to in its own order.
// 2. write_slice: thread t writes sum e to shared memory [E][threads] at (e, t), alone. Barrier.
//    Warp w then takes the sums e = w, w + warps, ...: its lane l adds up those of the threads that
//    had unit l of the tile, place after place, and writes them to scratch memory
//    [slices][E][units] at (slice, e, unit): blocks differ in the slice or the tile, warps in e,
//    lanes in the unit. Barrier, after which shared memory may be written again.
// 3. sum_slices: a lane has one of the E * units columns of that matrix, warp w the slices w,
//    w + warps, ..., in that order. It writes to shared memory [warps][32] at (w, l), alone.
//    Barrier. Warp 0 adds up those of the warps in order and writes the result. Barrier.
//
// Neighbouring lanes are at neighbouring words throughout: no two of a warp meet in a bank.
#pragma once

#include "tiling.h"

namespace iwin_d2 {

// The most warps of a block of `sum_slices`.
constexpr int kSumWarps = 32;

// How much of `work` makes a slice: `worth`, the least that is worth a block's start, or so much
// that the blocks of all slices and tiles are not many more than `most`.
inline int64_t part_of_slice(int64_t work, int64_t worth, int64_t tiles, int64_t most) {
  return std::max(worth, divide_up(work, std::max<int64_t>(1, most / tiles)));
}

// Of write_slice, with `kSums` for each thread.
template <int kSums>
size_t shared_for_slice(const Tiling& tiling) {
  return sizeof(float) * kSums * tiling.threads();
}

// Called by all threads of a block; the sums of those without a seat are not looked at.
template <int kSums>
__device__ __forceinline__ void write_slice(
    const float (&sums)[kSums], const Tiling& tiling, int64_t tile, int64_t slice, float* slices) {
  IWIN_SHARED(memory);
  float* const shared = reinterpret_cast<float*>(memory);
  const int threads = static_cast<int>(blockDim.x);
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int e = 0; e < kSums; e++) {
    shared[e * threads + thread] = sums[e];
  }
  __syncthreads();
  const int lane = thread % kWarp;
  const int64_t unit = tile * tiling.lanes + lane;
  if (lane < tiling.lanes && unit < tiling.units) {
    for (int e = thread / kWarp; e < kSums; e += threads / kWarp) {
      float sum = 0;
      for (int place = 0; place < tiling.places; place++) {
        sum += shared[e * threads + place * tiling.lanes + lane];
      }
      slices[(slice * kSums + e) * tiling.units + unit] = sum;
    }
  }
  __syncthreads();
}

// Where the sums of a unit go: the first `first_count` of them to one tensor, the others to
// another, unit after unit in each.
template <typename T>
struct SumsOfUnits {
  int64_t units;
  int64_t count;  // of a unit
  int64_t first_count;
  T* first;
  T* second;

  __device__ __forceinline__ T* at(int64_t unit, int64_t e) const {
    return e < first_count ? first + unit * first_count + e
                           : second + unit * (count - first_count) + e - first_count;
  }
};

template <typename T>
__global__ void __launch_bounds__(kSumWarps* kWarp)
    sum_slices(const float* __restrict__ slices, int64_t number, SumsOfUnits<T> out) {
  IWIN_SHARED(memory);
  float* const shared = reinterpret_cast<float*>(memory);
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t columns = out.units * out.count;
  for (int64_t first = int64_t{blockIdx.x} * kWarp; first < columns;
       first += int64_t{gridDim.x} * kWarp) {
    const int64_t column = first + lane;
    float sum = 0;
    if (column < columns) {
#pragma unroll 4
      for (int64_t slice = warp; slice < number; slice += warps) {
        sum += slices[slice * columns + column];
      }
    }
    shared[warp * kWarp + lane] = sum;
    __syncthreads();
    if (warp == 0 && column < columns) {
      sum = 0;
      for (int i = 0; i < warps; i++) {
        sum += shared[i * kWarp + lane];
      }
      *out.at(column % out.units, column / out.units) = static_cast<T>(sum);
    }
    __syncthreads();
  }
}

template <typename T>
void launch_sum_slices(const float* slices, int64_t number, const SumsOfUnits<T>& out) {
  const int64_t warps = std::min<int64_t>(number, kSumWarps);
  launch(
      sum_slices<T>,
      blocks_for(divide_up(out.units * out.count, kWarp)),
      static_cast<unsigned>(warps * kWarp),
      sizeof(float) * warps * kWarp,
      slices,
      number,
      out);
}

}  // namespace iwin_d2
