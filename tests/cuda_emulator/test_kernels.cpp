// Kernels that try the emulator itself: what it must compute, and what it must find. They are
// written and started as those of csrc/cuda are; test_emulator.py calls them by name.
#include "../../csrc/cuda/device.h"

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <string>

namespace iwin_d2 {
namespace {

__global__ void number_threads(int64_t* to) {
  to[blockIdx.x * blockDim.x + threadIdx.x] =
      int64_t{blockIdx.x} * 1000000 + gridDim.x * 10000 + blockDim.x * 10 + threadIdx.x % 10;
}

// The whole block's sum, in every thread. Twice over, so that the second time it matters that all
// have read what the first one left.
template <bool WaitForReaders>
__global__ void sum_of_block(const float* from, float* to) {
  IWIN_SHARED(memory);
  float* parts = reinterpret_cast<float*>(memory);
  float sum = from[blockIdx.x * blockDim.x + threadIdx.x];
  for (int round = 0; round < 2; round++) {
    const float part = sum_of_lanes<kWarp>(sum);
    if (threadIdx.x % kWarp == 0) {
      parts[threadIdx.x / kWarp] = part;
    }
    __syncthreads();
    sum = 0;
    for (unsigned i = 0; i < blockDim.x / kWarp; i++) {
      sum += parts[i];
    }
    if (WaitForReaders) {
      __syncthreads();
    }
  }
  to[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

// Each lane takes its neighbour's number by way of shared memory.
template <bool Wait>
__global__ void rotate_lanes(const float* from, float* to) {
  IWIN_SHARED(memory);
  float* numbers = reinterpret_cast<float*>(memory);
  numbers[threadIdx.x] = from[threadIdx.x];
  if (Wait) {
    __syncwarp();
  }
  to[threadIdx.x] = numbers[threadIdx.x / kWarp * kWarp + (threadIdx.x + 1) % kWarp];
}

__global__ void maximum_and_first(const float* from, float* to) {
  const float most = max_of_lanes<8>(from[threadIdx.x]);
  to[threadIdx.x] = most + __shfl_sync(kAllLanes, from[threadIdx.x], 5);
}

// Nobody has written there: NaN.
__global__ void read_shared(int64_t offset, float* to) {
  IWIN_SHARED(memory);
  to[threadIdx.x] = reinterpret_cast<float*>(memory)[offset + threadIdx.x];
}

__global__ void write_shared(int64_t offset) {
  IWIN_SHARED(memory);
  reinterpret_cast<float*>(memory)[offset + threadIdx.x] = 1.0f;
}

// Notes who has worked on each item.
__global__ void number_items(int64_t* to, int64_t items) {
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    if (threadIdx.x == 0) {
      to[item] = blockIdx.x;
    }
  }
}

// Who comes when: on one thread of the processor, places[0] counts.
__global__ void note_order(int64_t* places) {
  places[1 + blockIdx.x * blockDim.x + threadIdx.x] = places[0]++;
  __syncwarp();
}

enum class Forgets { nothing, to_wait, the_barrier };

// 16 bytes each thread by way of shared memory; what its neighbour has copied.
template <Forgets forgets>
__global__ void copy_asynchronously(const float* from, float* to) {
  IWIN_SHARED(memory);
  float* numbers = reinterpret_cast<float*>(memory);
  emulator::copy_async(numbers + 4 * threadIdx.x, from + 4 * threadIdx.x);
  if (forgets != Forgets::to_wait) {
    emulator::wait_for_copies();
  }
  if (forgets != Forgets::the_barrier) {
    __syncwarp();
  }
  for (int i = 0; i < 4; i++) {
    to[4 * threadIdx.x + i] = numbers[4 * ((threadIdx.x + 1) % kWarp) + i];
  }
}

__global__ void some_wait() {
  if (threadIdx.x < kWarp) {
    __syncthreads();
  }
}

__global__ void some_lanes_wait() {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  }
}

__global__ void different_barriers() {
  threadIdx.x % 2 == 0 ? __syncthreads() : __syncwarp();
}

__global__ void some_lanes_shuffle(float* to) {
  to[threadIdx.x] = threadIdx.x % 2 == 0 ? sum_of_lanes<kWarp>(1.0f) : 1.0f;
}

__global__ void copy_chunk(const float* from, float* to, int64_t offset) {
  store_chunk(to + 4 * threadIdx.x, load_chunk(from + offset + 4 * threadIdx.x));
}

// Fragments as the PTX ISA gives them ("Matrix Fragments for mma.m16n8k16" and "for mma.m16n8k8"):
// where element i of this lane is in its matrix.
struct Place {
  int row;
  int column;
};

__device__ Place place_in_a(int i) {
  const int group = threadIdx.x >> 2, in_group = threadIdx.x % 4;
  const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
  return {upper ? group : group + 8, in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}

__device__ Place place_in_b(int i) {
  const int group = threadIdx.x >> 2, in_group = threadIdx.x % 4;
  return {in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0), group};
}

__device__ Place place_in_tf32_a(int i) {
  const int group = threadIdx.x >> 2, in_group = threadIdx.x % 4;
  return {i == 0 || i == 2 ? group : group + 8, i < 2 ? in_group : in_group + 4};
}

__device__ Place place_in_tf32_b(int i) {
  const int group = threadIdx.x >> 2, in_group = threadIdx.x % 4;
  return {i == 0 ? in_group : in_group + 4, group};
}

__device__ Place place_in_c(int i) {
  const int group = threadIdx.x >> 2, in_group = threadIdx.x % 4;
  return {i < 2 ? group : group + 8, in_group * 2 + (i & 1)};
}

template <typename T>
__device__ T& element(T* matrix, int columns, Place place) {
  return matrix[place.row * columns + place.column];
}

// to = c + a b of one warp: [16, 8], [16, 16], [16, 8].
template <typename T>
__global__ void multiply(const T* a, const T* b, const float* c, float* to) {
  uint32_t fragment_a[4] = {}, fragment_b[2] = {};
  float d[4];
  for (int i = 0; i < 8; i++) {
    fragment_a[i / 2] |= uint32_t{element(a, 16, place_in_a(i)).x} << i % 2 * 16;
  }
  for (int i = 0; i < 4; i++) {
    fragment_b[i / 2] |= uint32_t{element(b, 8, place_in_b(i)).x} << i % 2 * 16;
    d[i] = element(c, 8, place_in_c(i));
  }
  emulator::mma(d, fragment_a, fragment_b, T{});
  for (int i = 0; i < 4; i++) {
    element(to, 8, place_in_c(i)) = d[i];
  }
}

// The same with a of 16 x 8 and b of 8 x 8 numbers.
template <bool kRound>
__global__ void multiply_tf32(const float* a, const float* b, const float* c, float* to) {
  float fragment_a[4], fragment_b[2], d[4];
  const auto round = [](float x) { return kRound ? emulator::round_to_tf32(x) : x; };
  for (int i = 0; i < 4; i++) {
    fragment_a[i] = round(element(a, 8, place_in_tf32_a(i)));
    d[i] = element(c, 8, place_in_c(i));
  }
  for (int i = 0; i < 2; i++) {
    fragment_b[i] = round(element(b, 8, place_in_tf32_b(i)));
  }
  emulator::mma_tf32(d, fragment_a, fragment_b);
  for (int i = 0; i < 4; i++) {
    element(to, 8, place_in_c(i)) = d[i];
  }
}

__global__ void round_numbers(const float* from, float* to) {
  to[threadIdx.x] = emulator::round_to_tf32(from[threadIdx.x]);
}

// [16, 16] and [16, 8] by way of shared memory, as kernels do it: a's four quarters are the
// fragment's four registers, b is read transposed. Only half of what x4 loads is of b.
template <typename T>
__global__ void load_and_multiply(const T* a, const T* b, float* to, int64_t offset) {
  IWIN_SHARED(memory);
  T* shared_a = reinterpret_cast<T*>(memory);
  T* shared_b = shared_a + 256;
  for (int i = threadIdx.x; i < 256; i += kWarp) {
    shared_a[i] = a[i];
    shared_b[i] = b[i % 128];
  }
  __syncwarp();
  const int matrix = threadIdx.x / 8, row = threadIdx.x % 8;
  uint32_t fragment_a[4], fragment_b[4];
  emulator::load_matrix_x4(
      fragment_a, shared_a + (row + matrix % 2 * 8) * 16 + matrix / 2 * 8 + offset, false);
  emulator::load_matrix_x4(fragment_b, shared_b + (row + matrix * 8) * 8, true);
  const uint32_t first_two[2] = {fragment_b[0], fragment_b[1]};
  float d[4] = {};
  emulator::mma(d, fragment_a, first_two, T{});
  for (int i = 0; i < 4; i++) {
    element(to, 8, place_in_c(i)) = d[i];
  }
}

// Starts the kernel of this name. What it reads comes first in `tensors`, then what it writes.
void run(
    const std::string& name,
    const std::vector<at::Tensor>& tensors,
    int64_t blocks,
    int64_t threads,
    int64_t shared,
    int64_t offset) {
  const auto start = [&](auto kernel, auto... arguments) {
    launch(
        kernel, static_cast<unsigned>(blocks), static_cast<unsigned>(threads),
        static_cast<size_t>(shared), arguments...);
  };
  const auto floats = [&](size_t i) { return static_cast<float*>(tensors.at(i).data_ptr()); };
  const auto on_16_bits = [&](auto element) {
    using T = decltype(element);
    const T* a = static_cast<const T*>(tensors.at(0).data_ptr());
    const T* b = static_cast<const T*>(tensors.at(1).data_ptr());
    name == "multiply" ? start(multiply<T>, a, b, floats(2), floats(3))
                       : start(load_and_multiply<T>, a, b, floats(2), offset);
  };
  if (name == "number_threads") {
    start(number_threads, tensors.at(0).data_ptr<int64_t>());
  } else if (name == "sum_of_block") {
    start(sum_of_block<true>, floats(0), floats(1));
  } else if (name == "sum_of_block without a barrier") {
    start(sum_of_block<false>, floats(0), floats(1));
  } else if (name == "rotate_lanes") {
    start(rotate_lanes<true>, floats(0), floats(1));
  } else if (name == "rotate_lanes without a barrier") {
    start(rotate_lanes<false>, floats(0), floats(1));
  } else if (name == "maximum_and_first") {
    start(maximum_and_first, floats(0), floats(1));
  } else if (name == "read_shared") {
    start(read_shared, offset, floats(0));
  } else if (name == "write_shared") {
    start(write_shared, offset);
  } else if (name == "number_items") {
    const int64_t items = tensors.at(0).numel();
    launch(number_items, blocks_for(items), kWarp, 0, tensors.at(0).data_ptr<int64_t>(), items);
  } else if (name == "note_order") {
    start(note_order, tensors.at(0).data_ptr<int64_t>());
  } else if (name == "copy_asynchronously") {
    start(copy_asynchronously<Forgets::nothing>, floats(0), floats(1));
  } else if (name == "copy_asynchronously without waiting") {
    start(copy_asynchronously<Forgets::to_wait>, floats(0), floats(1));
  } else if (name == "copy_asynchronously without a barrier") {
    start(copy_asynchronously<Forgets::the_barrier>, floats(0), floats(1));
  } else if (name == "round_numbers") {
    start(round_numbers, floats(0), floats(1));
  } else if (name == "some_wait") {
    start(some_wait);
  } else if (name == "some_lanes_wait") {
    start(some_lanes_wait);
  } else if (name == "different_barriers") {
    start(different_barriers);
  } else if (name == "some_lanes_shuffle") {
    start(some_lanes_shuffle, floats(0));
  } else if (name == "copy_chunk") {
    start(copy_chunk, floats(0), floats(1), offset);
  } else if (name == "multiply_tf32") {
    start(multiply_tf32<true>, floats(0), floats(1), floats(2), floats(3));
  } else if (name == "multiply_tf32 without rounding") {
    start(multiply_tf32<false>, floats(0), floats(1), floats(2), floats(3));
  } else if (name == "multiply" || name == "load_and_multiply") {
    tensors.at(0).scalar_type() == at::kHalf ? on_16_bits(c10::Half{})
                                             : on_16_bits(c10::BFloat16{});
  } else {
    TORCH_CHECK(false, "there is no kernel ", name);
  }
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY(iwin_d2_emulator_tests, m) {
  m.def(
      "run(str name, Tensor[] tensors, int blocks, int threads, int shared, int offset) -> ()",
      &iwin_d2::run);
}
