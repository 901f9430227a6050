// CUDA's threads on a processor: the kernels of csrc/cuda, compiled as C++, run thread by thread.
//
// Each thread of a block is a fiber, with a stack of its own. A fiber runs until it needs others:
// at a barrier, or at what a warp does together (shuffles, matrix products). Which lane, which warp
// and which block goes first is shuffled, differently in every launch, so that a missing barrier
// changes results; IWIN_D2_EMULATOR_SEED, a number, gives other orders. Compiled as
// build_emulated.py does it, accesses to shared memory are watched besides (races.h).
//
// What CUDA leaves undefined is a RuntimeError here: lanes of one warp in different places, a
// thread that has left while others wait for it, addresses that are not aligned or not shared.
//
// There is as much of CUDA here as the kernels use. csrc/cuda/device.h includes this file.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace iwin_d2 {

// CUDA's own names, for kernels, which are all in this namespace.
struct Index {
  unsigned x;
};

// The emulator sets them whenever a thread goes on. This model makes them cheap; there is room for
// a few such variables.
#define IWIN_OF_THIS_THREAD inline thread_local __attribute__((tls_model("initial-exec")))
IWIN_OF_THIS_THREAD Index threadIdx{};
IWIN_OF_THIS_THREAD Index blockIdx{};
IWIN_OF_THIS_THREAD Index blockDim{};
IWIN_OF_THIS_THREAD Index gridDim{};

namespace emulator {

constexpr int kLanes = 32;

// Shared memory of the block that runs, and a little around it.
IWIN_OF_THIS_THREAD uintptr_t watched{};
IWIN_OF_THIS_THREAD size_t watched_bytes{};
#undef IWIN_OF_THIS_THREAD

// Calls run(context) once for each thread of each block; raises what any of them raised.
void run_grid(
    unsigned blocks,
    unsigned threads,
    size_t shared,
    void (*run)(const void*),
    const void* context);

// As many blocks as there is work or, half of the times, a few: whether kernels go on in steps of
// the grid, only work that is too much for these tests would show otherwise.
unsigned blocks_for(int64_t work);

// Calls run() once for each thread of each block. `threads` are whole warps; `shared` in bytes.
template <typename Run>
void launch(unsigned blocks, unsigned threads, size_t shared, const Run& run) {
  run_grid(
      blocks, threads, shared, [](const void* it) { (*static_cast<const Run*>(it))(); }, &run);
}

// The block's shared memory: as many bytes as were asked for, at the start with 0xFF in each.
unsigned char* shared_memory();

// Raises where an address is not a multiple of so many bytes.
void check_aligned(const void* address, size_t bytes);

// What all lanes of a warp do together: what(lanes) gets each lane's argument and does the work
// once all of them are there. `name` is what all lanes must have come for.
using Together = void (*)(void* const (&lanes)[kLanes]);
void together(const char* name, Together what, void* argument);

// All threads of the block, or all lanes of the warp.
void wait_for_block();
void wait_for_warp();

// Ends the kernel: its caller gets a RuntimeError that says so, and which thread it was.
[[noreturn]] void fail(const char* what);

void check_is_shared(const void* address, size_t bytes);

// A thread is about to read or write in what is watched; `code` is where in the program.
void note_access(const void* address, size_t bytes, bool writes, const void* code);

inline bool is_watched(const void* address) {
  return reinterpret_cast<uintptr_t>(address) - watched < watched_bytes;
}

// d += a b for a 16 x 16 and b 16 x 8, in the fragments of mma.m16n8k16: the element type is Tag's.
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], c10::BFloat16 tag);
void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], c10::Half tag);

// d += a b for a 16 x 8 and b 8 x 8, in those of mma.m16n8k8; all numbers rounded to TF32 before.
void mma_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]);

// Four 8 x 8 matrices of 16-bit numbers from shared memory, as ldmatrix.x4(.trans) loads them: lane
// 8 i + j gives the address of row j of matrix i.
void load_matrix_x4(uint32_t (&r)[4], const void* row, bool transposed);

// cp.async and cp.async.wait_all: 16 bytes into shared memory, some time before the wait is over.
void copy_async(void* to, const void* from);
void wait_for_copies();

// To the nearest number of 10 bits after the point, ties away from zero, as cvt.rna.tf32.f32.
inline float round_to_tf32(float x) {
  if (!std::isfinite(x)) {
    return x;
  }
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits = (bits + 0x1000u) & ~0x1fffu;
  std::memcpy(&x, &bits, sizeof(bits));
  return x;
}

// A number goes into every lane, and out comes that of another lane.
template <typename T>
T shuffle(unsigned mask, T value, int from_lane) {
  static_assert(std::is_arithmetic<T>::value, "CUDA shuffles numbers");
  if (mask != 0xffffffffu) {
    fail("a shuffle of some lanes only, which no kernel needs so far");
  }
  if (from_lane < 0 || from_lane >= kLanes) {
    fail("a shuffle from a lane that is none");
  }
  struct Argument {
    T value;
    int from;
    T result;
  } argument{value, from_lane, T{}};
  together(
      "a shuffle",
      [](void* const(&lanes)[kLanes]) {
        for (void* lane : lanes) {
          auto* to = static_cast<Argument*>(lane);
          to->result = static_cast<Argument*>(lanes[to->from])->value;
        }
      },
      &argument);
  return argument.result;
}

}  // namespace emulator

inline void __syncthreads() {
  emulator::wait_for_block();
}

inline void __syncwarp() {
  emulator::wait_for_warp();
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return emulator::shuffle(mask, value, lane);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  const int lane = static_cast<int>(threadIdx.x % emulator::kLanes);
  return emulator::shuffle(mask, value, lane ^ lane_mask);
}

}  // namespace iwin_d2

namespace c10 {
namespace cuda {

// There is one device, and it is the current one.
struct CUDAGuard {
  explicit CUDAGuard(c10::Device) {}
};

}  // namespace cuda
}  // namespace c10
