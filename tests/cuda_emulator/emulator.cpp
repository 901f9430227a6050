#include "emulator.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <memory>
#include <numeric>
#include <vector>

#include "fiber.h"

namespace iwin_d2 {
namespace emulator {
namespace {

// xorshift64*: what comes first is to be shuffled, not to be random.
class Shuffler {
 public:
  explicit Shuffler(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {
    state_ += state_ == 0;
    for (int i = 0; i < 4; i++) {
      next();
    }
  }

  uint32_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<uint32_t>(state_ * 0x2545f4914f6cdd1du >> 32);
  }

  uint32_t below(uint32_t limit) { return static_cast<uint64_t>(next()) * limit >> 32; }

 private:
  uint64_t state_;
};

// Where a fiber that does not run is.
enum class At { start, together, warp_barrier, block_barrier, end };

struct Thread {
  Fiber fiber;
  At at = At::start;
  const char* name = "";  // at `together`: of what
  Together what = nullptr;
  void* argument = nullptr;
};

const char* describe(const Thread& thread) {
  switch (thread.at) {
    case At::start:
      return "the start";
    case At::together:
      return thread.name;
    case At::warp_barrier:
      return "__syncwarp";
    case At::block_barrier:
      return "__syncthreads";
    default:
      return "the end of the kernel";
  }
}

// Shared memory of one block, with bytes around it that nobody should write to.
class SharedMemory {
 public:
  explicit SharedMemory(size_t size) : size_(size) {
    void* memory = nullptr;
    TORCH_CHECK(posix_memalign(&memory, 16, size + 2 * kAround) == 0, "out of memory");
    memory_.reset(static_cast<unsigned char*>(memory));
    std::memset(memory_.get(), kMark, size + 2 * kAround);
    std::memset(begin(), 0xff, size);
  }

  unsigned char* begin() const { return memory_.get() + kAround; }

  bool holds(const void* address, size_t bytes) const {
    const auto offset = static_cast<const unsigned char*>(address) - begin();
    return offset >= 0 && static_cast<size_t>(offset) + bytes <= size_;
  }

  bool is_whole() const {
    const auto marked = [](unsigned char byte) { return byte == kMark; };
    return std::all_of(memory_.get(), begin(), marked) &&
        std::all_of(begin() + size_, begin() + size_ + kAround, marked);
  }

 private:
  struct Free {
    void operator()(unsigned char* memory) const { std::free(memory); }
  };

#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kAround = 0;  // the sanitizer has its own, and sees who reads there, too
#else
  static constexpr size_t kAround = 256;
#endif
  static constexpr unsigned char kMark = 0xa5;

  size_t size_;
  std::unique_ptr<unsigned char, Free> memory_;
};

struct Kernel {
  unsigned blocks;
  unsigned threads;
  size_t shared;
  void (*run)(const void*);
  const void* context;
  uint64_t seed;
};

// One thread of the processor, which runs block after block.
class Processor {
 public:
  static Processor& of_this_thread() {
    static thread_local Processor processor;
    return processor;
  }

  void run_block(const Kernel& kernel, unsigned block) {
    TORCH_CHECK(kernel_ == nullptr, "the emulator: a kernel cannot start another one");
    SharedMemory shared(kernel.shared);
    Shuffler shuffler(kernel.seed + block);
    while (threads_.size() < kernel.threads) {
      threads_.push_back(std::make_unique<Thread>());
    }
    for (unsigned i = 0; i < kernel.threads; i++) {
      threads_[i]->at = At::start;
      threads_[i]->fiber.prepare(&Processor::enter);
    }
    error_ = nullptr;
    kernel_ = &kernel;
    shared_ = &shared;
    shuffler_ = &shuffler;
    blockIdx = {block};
    blockDim = {kernel.threads};
    gridDim = {kernel.blocks};
    try {
      run_warps();
      TORCH_CHECK(
          shared.is_whole(), "the emulator: block ", block, " has written beside its shared memory");
    } catch (...) {
      kernel_ = nullptr;
      throw;
    }
    kernel_ = nullptr;
  }

  // Called on a fiber: it goes on once the others have come.
  void stop(At at) {
    Thread& thread = *threads_[threadIdx.x];
    const Index here = threadIdx;
    thread.at = at;
    thread.fiber.stop();
    threadIdx = here;
  }

  void together(const char* name, Together what, void* argument) {
    Thread& thread = *threads_[threadIdx.x];
    thread.name = name;
    thread.what = what;
    thread.argument = argument;
    stop(At::together);
  }

  const SharedMemory& shared() const {
    TORCH_CHECK(kernel_ != nullptr, "the emulator: shared memory is there in kernels alone");
    return *shared_;
  }

 private:
  static void enter() {
    Processor& processor = of_this_thread();
    Thread& thread = *processor.threads_[threadIdx.x];
    thread.fiber.has_started();
    try {
      processor.kernel_->run(processor.kernel_->context);
    } catch (...) {
      processor.error_ = std::current_exception();
    }
    thread.at = At::end;
    thread.fiber.leave_for_good();
  }

  // Lets warps run until all of them have ended.
  void run_warps() {
    const unsigned warps = kernel_->threads / kLanes;
    std::vector<unsigned> running(warps);
    std::iota(running.begin(), running.end(), 0u);
    std::vector<unsigned> waiting;
    // Either warps take turns, or one runs as far ahead of the others as it may.
    const bool in_turns = shuffler_->below(2) == 0;
    size_t next = shuffler_->below(warps);
    unsigned ended = 0;
    while (!running.empty()) {
      const unsigned warp = running[next];
      const At at = run_to_next_stop(warp);
      if (at == At::block_barrier || at == At::end) {
        running.erase(running.begin() + static_cast<std::ptrdiff_t>(next));
          if (at == At::end) {
          ended++;
        } else {
          waiting.push_back(warp);
        }
        if (running.empty() && !waiting.empty()) {
          TORCH_CHECK(
              ended == 0,
              "the emulator: block ",
              blockIdx.x,
              ": ",
              waiting.size(),
              " warps wait at __syncthreads and ",
              ended,
              " have left the kernel");
          running.swap(waiting);
        }
        next = running.empty() ? 0 : shuffler_->below(static_cast<unsigned>(running.size()));
      } else if (in_turns) {
        next = shuffler_->below(static_cast<unsigned>(running.size()));
      }
    }
  }

  // Lets each lane run until it stops, and does what they have come for.
  At run_to_next_stop(unsigned warp) {
    Thread* lanes[kLanes];
    for (int i = 0; i < kLanes; i++) {
      lanes[i] = threads_[warp * kLanes + i].get();
    }
    // An odd step and any start give every lane once.
    const unsigned step = 2 * shuffler_->below(kLanes / 2) + 1;
    const unsigned first = shuffler_->below(kLanes);
    for (unsigned i = 0; i < kLanes; i++) {
      const unsigned lane = (first + i * step) % kLanes;
      threadIdx = {warp * kLanes + lane};
      lanes[lane]->fiber.go_on();
      if (error_) {
        std::rethrow_exception(std::exchange(error_, nullptr));
      }
    }
    for (int i = 1; i < kLanes; i++) {
      const bool same = lanes[i]->at == lanes[0]->at &&
          (lanes[0]->at != At::together || lanes[i]->what == lanes[0]->what);
      TORCH_CHECK(
          same,
          "the emulator: block ",
          blockIdx.x,
          ", warp ",
          warp,
          ": lane 0 is at ",
          describe(*lanes[0]),
          " and lane ",
          i,
          " at ",
          describe(*lanes[i]));
    }
    if (lanes[0]->at == At::together) {
      void* arguments[kLanes];
      for (int i = 0; i < kLanes; i++) {
        arguments[i] = lanes[i]->argument;
      }
      lanes[0]->what(arguments);
    }
    return lanes[0]->at;
  }

  std::vector<std::unique_ptr<Thread>> threads_;
  const Kernel* kernel_ = nullptr;
  const SharedMemory* shared_ = nullptr;
  Shuffler* shuffler_ = nullptr;
  std::exception_ptr error_;
};

uint64_t seed_of_this_launch() {
  static std::atomic<uint64_t> launches{0};
  const char* given = std::getenv("IWIN_D2_EMULATOR_SEED");
  const uint64_t seed = given ? std::strtoull(given, nullptr, 10) : 0;
  return ((seed << 20) + launches++) << 32;
}

// Fragments, as the PTX ISA draws them: lane 4 g + t holds two neighbours of row g from column 2 t.

template <typename T>
float number_of(uint32_t bits);

template <>
float number_of<c10::BFloat16>(uint32_t bits) {
  return c10::BFloat16(static_cast<uint16_t>(bits), c10::BFloat16::from_bits());
}

template <>
float number_of<c10::Half>(uint32_t bits) {
  return c10::Half(static_cast<uint16_t>(bits), c10::Half::from_bits());
}

template <int Depth>
void multiply(float (&d)[16][8], const float (&a)[16][Depth], const float (&b)[Depth][8]) {
  for (int i = 0; i < 16; i++) {
    for (int k = 0; k < Depth; k++) {
      for (int j = 0; j < 8; j++) {
        d[i][j] += a[i][k] * b[k][j];
      }
    }
  }
}

// The result's fragments: rows g and g + 8, columns 2 t and 2 t + 1. visit(row, column, place).
template <typename Visit>
void for_each_result(int lane, const Visit& visit) {
  for (int i = 0; i < 4; i++) {
    visit(lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2, i);
  }
}

struct Product16 {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

template <typename T>
void multiply_16(void* const (&lanes)[kLanes]) {
  float d[16][8], a[16][16], b[16][8];
  for (int lane = 0; lane < kLanes; lane++) {
    const auto& its = *static_cast<const Product16*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; half++) {
      for (int i = 0; i < 4; i++) {
        a[g + i % 2 * 8][2 * t + i / 2 * 8 + half] = number_of<T>(its.a[i] >> 16 * half);
      }
      for (int i = 0; i < 2; i++) {
        b[2 * t + i * 8 + half][g] = number_of<T>(its.b[i] >> 16 * half);
      }
    }
    for_each_result(lane, [&](int row, int column, int i) { d[row][column] = its.d[i]; });
  }
  multiply(d, a, b);
  for (int lane = 0; lane < kLanes; lane++) {
    const auto& its = *static_cast<const Product16*>(lanes[lane]);
    for_each_result(lane, [&](int row, int column, int i) { its.d[i] = d[row][column]; });
  }
}

struct ProductTf32 {
  float* d;
  const float* a;
  const float* b;
};

void multiply_tf32(void* const (&lanes)[kLanes]) {
  float d[16][8], a[16][8], b[8][8];
  for (int lane = 0; lane < kLanes; lane++) {
    const auto& its = *static_cast<const ProductTf32*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
      a[g + i % 2 * 8][t + i / 2 * 4] = its.a[i];
    }
    for (int i = 0; i < 2; i++) {
      b[t + i * 4][g] = its.b[i];
    }
    for_each_result(lane, [&](int row, int column, int i) { d[row][column] = its.d[i]; });
  }
  multiply(d, a, b);
  for (int lane = 0; lane < kLanes; lane++) {
    const auto& its = *static_cast<const ProductTf32*>(lanes[lane]);
    for_each_result(lane, [&](int row, int column, int i) { its.d[i] = d[row][column]; });
  }
}

void check_is_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  if (std::isfinite(x) && (bits & 0x1fffu) != 0) {
    fail("a number was not rounded to TF32 before it was multiplied");
  }
}

struct Load {
  uint32_t* r;
  const void* row;
};

template <bool Transposed>
void load_matrices(void* const (&lanes)[kLanes]) {
  for (int matrix = 0; matrix < 4; matrix++) {
    uint16_t rows[8][8];
    for (int i = 0; i < 8; i++) {
      std::memcpy(rows[i], static_cast<const Load*>(lanes[8 * matrix + i])->row, sizeof(rows[i]));
    }
    for (int lane = 0; lane < kLanes; lane++) {
      const int g = lane / 4, t = lane % 4;
      const uint32_t low = Transposed ? rows[2 * t][g] : rows[g][2 * t];
      const uint32_t high = Transposed ? rows[2 * t + 1][g] : rows[g][2 * t + 1];
      static_cast<const Load*>(lanes[lane])->r[matrix] = low | high << 16;
    }
  }
}

}  // namespace

void run_grid(
    unsigned blocks, unsigned threads, size_t shared, void (*run)(const void*), const void* context) {
  TORCH_CHECK(
      blocks > 0 && threads > 0 && threads <= 1024 && threads % kLanes == 0,
      "the emulator: expected blocks of 1 to 32 whole warps, got ",
      blocks,
      " blocks of ",
      threads,
      " threads");
  const Kernel kernel{blocks, threads, shared, run, context, seed_of_this_launch()};
  std::vector<unsigned> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  Shuffler shuffler(~kernel.seed);
  for (unsigned i = blocks; i > 1; i--) {
    std::swap(order[i - 1], order[shuffler.below(i)]);
  }
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      Processor::of_this_thread().run_block(kernel, order[i]);
    }
  });
}

unsigned char* shared_memory() {
  return Processor::of_this_thread().shared().begin();
}

void check_aligned(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    fail("an address that is not aligned");
  }
}

void together(const char* name, Together what, void* argument) {
  Processor::of_this_thread().together(name, what, argument);
}

void wait_for_block() {
  Processor::of_this_thread().stop(At::block_barrier);
}

void wait_for_warp() {
  Processor::of_this_thread().stop(At::warp_barrier);
}

void fail(const char* what) {
  TORCH_CHECK(
      false, "the emulator: block ", blockIdx.x, ", thread ", threadIdx.x, ": ", what);
}

void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], c10::BFloat16) {
  Product16 argument{d, a, b};
  together("mma of bfloat16", multiply_16<c10::BFloat16>, &argument);
}

void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], c10::Half) {
  Product16 argument{d, a, b};
  together("mma of float16", multiply_16<c10::Half>, &argument);
}

void mma_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  std::for_each(a, a + 4, check_is_tf32);
  std::for_each(b, b + 2, check_is_tf32);
  ProductTf32 argument{d, a, b};
  together("mma of TF32", multiply_tf32, &argument);
}

void load_matrix_x4(uint32_t (&r)[4], const void* row, bool transposed) {
  check_aligned(row, 16);
  if (!Processor::of_this_thread().shared().holds(row, 16)) {
    fail("a row of a matrix that is not in shared memory");
  }
  Load argument{r, row};
  together(
      transposed ? "ldmatrix.trans" : "ldmatrix",
      transposed ? load_matrices<true> : load_matrices<false>,
      &argument);
}

}  // namespace emulator
}  // namespace iwin_d2
