// What every kernel of this folder needs of CUDA, in one place: how one is started, and the few
// things that are no C++. tests/cuda_emulator has all of it for a processor without CUDA, where the
// same kernels run thread by thread; nothing else in this folder knows of that.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#if defined(IWIN_D2_EMULATED)
#include "emulator.h"
#else
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime.h>
#endif

namespace iwin_d2 {

#if defined(IWIN_D2_EMULATED)
#define IWIN_DEVICE_KEY CPU
// Declares `name`, a pointer to the shared memory that the kernel was started with.
#define IWIN_SHARED(name) unsigned char* const name = emulator::shared_memory()
#else
#define IWIN_DEVICE_KEY CUDA
#define IWIN_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
// Every device has it without asking, and every one since compute capability 8.0 has kMostShared.
constexpr size_t kSharedByDefault = 48 * 1024;
constexpr size_t kMostShared = 99 * 1024;

inline int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// As many blocks as there is work, or as a grid may have: kernels go on in steps of gridDim.x.
inline unsigned blocks_for(int64_t work) {
#if defined(IWIN_D2_EMULATED)
  return emulator::blocks_for(work);
#else
  return static_cast<unsigned>(std::min<int64_t>(work, (int64_t{1} << 31) - 1));
#endif
}

// Starts a kernel on the current stream of the current device; `shared` in bytes.
template <typename... Parameters, typename... Arguments>
void launch(
    void (*kernel)(Parameters...),
    unsigned blocks,
    unsigned threads,
    size_t shared,
    Arguments&&... arguments) {
  TORCH_INTERNAL_ASSERT(blocks > 0 && shared <= kMostShared);
#if defined(IWIN_D2_EMULATED)
  emulator::launch(blocks, threads, shared, [&] { kernel(arguments...); });
#else
  if (shared > kSharedByDefault) {
    C10_CUDA_CHECK(cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  }
  kernel<<<blocks, threads, shared, c10::cuda::getCurrentCUDAStream()>>>(
      std::forward<Arguments>(arguments)...);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
#endif
}

// 16 bytes, the most that one thread reads or writes at once.
struct alignas(16) Chunk {
  uint32_t words[4];
};

inline bool is_aligned(const void* address, size_t bytes = sizeof(Chunk)) {
  return reinterpret_cast<uintptr_t>(address) % bytes == 0;
}

__device__ __forceinline__ void check_chunk([[maybe_unused]] const void* address) {
#if defined(IWIN_D2_EMULATED)
  emulator::check_aligned(address, sizeof(Chunk));
#endif
}

__device__ __forceinline__ Chunk load_chunk(const void* from) {
  check_chunk(from);
  return *static_cast<const Chunk*>(from);
}

__device__ __forceinline__ void store_chunk(void* to, Chunk chunk) {
  check_chunk(to);
  *static_cast<Chunk*>(to) = chunk;
}

// Sums a number over groups of `Lanes` neighbouring lanes: every lane gets its group's sum.
template <int Lanes>
__device__ __forceinline__ float sum_of_lanes(float x) {
#pragma unroll
  for (int step = Lanes / 2; step > 0; step /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, step);
  }
  return x;
}

template <int Lanes>
__device__ __forceinline__ float max_of_lanes(float x) {
#pragma unroll
  for (int step = Lanes / 2; step > 0; step /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  }
  return x;
}

}  // namespace iwin_d2
