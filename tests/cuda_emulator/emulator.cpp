#include "emulator.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <memory>
#include <numeric>
#include <sstream>
#include <utility>
#include <vector>

#include "fiber.h"
#include "races.h"

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
  Fiber fiber{Fiber::Stack::own};
  At at = At::start;
  const char* name = "";  // at `together`: of what
  Together what = nullptr;
  void* argument = nullptr;
  std::vector<std::pair<void*, const void*>> copies;  // under way, of 16 bytes each
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
    watched = reinterpret_cast<uintptr_t>(memory);
    watched_bytes = size + 2 * kAround;
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory() { watched_bytes = 0; }

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
  // While it runs a block.
  static Processor& current() { return *current_; }

  static Processor& of_this_thread() {
    static thread_local Processor processor;
    current_ = &processor;
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
      threads_[i]->copies.clear();
      threads_[i]->fiber.prepare(&Processor::enter);
    }
    error_ = nullptr;
    races_.begin_block(kernel.shared, kernel.threads / kLanes);
    kernel_ = &kernel;
    shared_ = &shared;
    shuffler_ = &shuffler;
    blockIdx = {block};
    blockDim = {kernel.threads};
    gridDim = {kernel.blocks};
    try {
      run_warps();
      TORCH_CHECK(
          shared.is_whole(), "the emulator: block ", block, " wrote beside its shared memory");
    } catch (...) {
      kernel_ = nullptr;
      throw;
    }
    kernel_ = nullptr;
  }

  // Called on a fiber: it goes on once the others have come.
  void stop(At at) {
    Thread& thread = *threads_[threadIdx.x];
    thread.at = at;
    next_lane_after(thread.fiber);
  }

  void together(const char* name, Together what, void* argument) {
    Thread& thread = *threads_[threadIdx.x];
    thread.name = name;
    thread.what = what;
    thread.argument = argument;
    stop(At::together);
  }

  // Called on a fiber: the thread's copies that are under way.
  std::vector<std::pair<void*, const void*>>& copies() { return threads_[threadIdx.x]->copies; }

  // Called on a fiber: it never goes on, and the kernel's caller gets the error. Nothing is thrown
  // through the kernel, which the compiler may have taken for code that does not throw.
  [[noreturn]] void give_up(const std::string& what) {
    try {
      TORCH_CHECK(
          false, "the emulator: block ", blockIdx.x, ", thread ", threadIdx.x, ": ", what);
    } catch (...) {
      error_ = std::current_exception();
    }
    stop(At::end);
    std::abort();
  }

  // Called on a fiber that is about to read or write in shared memory, or close to it.
  void access(const void* address, size_t bytes, bool writes, const void* code) {
    const auto offset = static_cast<const unsigned char*>(address) - shared_->begin();
    const bool inside = shared_->holds(address, bytes);
    const unsigned other =
        inside ? races_.access(threadIdx.x, offset, bytes, writes) : Races::kNobody;
    if (inside && other == Races::kNobody) {
      return;
    }
    std::ostringstream what;
    what << (writes ? "writes " : "reads ") << bytes << " bytes at " << offset;
    if (inside) {
      what << " of shared memory in a race with thread " << other;
    } else {
      what << ", outside the " << kernel_->shared << " bytes of shared memory";
    }
    Dl_info file;
    if (dladdr(code, &file) != 0) {
      what << " (addr2line -Cipe " << file.dli_fname << ' ' << std::hex << "0x"
           << static_cast<const char*>(code) - static_cast<const char*>(file.dli_fbase) << ')';
    }
    give_up(what.str());
  }

  const SharedMemory& shared() const {
    return *shared_;
  }

 private:
  static void enter() {
    Processor& processor = current();
    Thread& thread = *processor.threads_[threadIdx.x];
    thread.fiber.has_started();
    try {
      processor.kernel_->run(processor.kernel_->context);
      TORCH_CHECK(thread.copies.empty(), "the emulator: a thread has not waited for its copies");
    } catch (...) {
      processor.error_ = std::current_exception();
    }
    thread.at = At::end;
    processor.next_lane_after(thread.fiber);
  }

  // Stops a fiber; the next lane of the warp goes on, or, when all have had their turn (or there is
  // an error), whoever has started them.
  void next_lane_after(Fiber& fiber) {
    if (turn_.taken == kLanes || error_) {
      fiber.switch_to(main_);
    } else {
      threadIdx = {turn_.warp * kLanes + (turn_.first + turn_.taken++ * turn_.step) % kLanes};
      fiber.switch_to(threads_[threadIdx.x]->fiber);
    }
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
          races_.pass_block_barrier();
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
    turn_ = {warp, shuffler_->below(kLanes), 2 * shuffler_->below(kLanes / 2) + 1, 0};
    next_lane_after(main_);
    if (error_) {
      std::rethrow_exception(std::exchange(error_, nullptr));
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
    } else if (lanes[0]->at == At::warp_barrier) {
      races_.pass_warp_barrier(warp);
    }
    return lanes[0]->at;
  }

  static inline thread_local __attribute__((tls_model("initial-exec")))
  Processor* current_ = nullptr;

  struct Turn {
    unsigned warp;
    unsigned first;
    unsigned step;
    unsigned taken;
  };

  Fiber main_{Fiber::Stack::of_this_thread};
  std::vector<std::unique_ptr<Thread>> threads_;
  Turn turn_{};
  const Kernel* kernel_ = nullptr;
  const SharedMemory* shared_ = nullptr;
  Shuffler* shuffler_ = nullptr;
  Races races_;
  std::exception_ptr error_;
};

uint64_t seed_of_this_launch() {
  static std::atomic<uint64_t> launches{0};
  const char* given = std::getenv("IWIN_D2_EMULATOR_SEED");
  const uint64_t seed = given ? std::strtoull(given, nullptr, 10) : 0;
  return ((seed << 20) + launches++) << 32;
}

}  // namespace

void run_grid(
    unsigned blocks,
    unsigned threads,
    size_t shared,
    void (*run)(const void*),
    const void* context) {
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

unsigned blocks_for(int64_t work) {
  static std::atomic<uint64_t> calls{0};
  Shuffler shuffler(calls++);
  const auto all = static_cast<unsigned>(std::min<int64_t>(work, (int64_t{1} << 31) - 1));
  return shuffler.below(2) == 0 ? all : std::min(all, 1 + shuffler.below(4));
}

unsigned char* shared_memory() {
  return Processor::current().shared().begin();
}

void copy_async(void* to, const void* from) {
  const void* code = __builtin_return_address(0);
  check_aligned(to, 16);
  check_aligned(from, 16);
  check_is_shared(to, 16);
  note_access(to, 16, true, code);
  std::memset(to, 0xff, 16);
  Processor::current().copies().emplace_back(to, from);
}

void wait_for_copies() {
  auto& copies = Processor::current().copies();
  for (const auto& [to, from] : copies) {
    note_access(to, 16, true, __builtin_return_address(0));
    std::memcpy(to, from, 16);
  }
  copies.clear();
}

void check_aligned(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    fail("an address that is not aligned");
  }
}

void together(const char* name, Together what, void* argument) {
  Processor::current().together(name, what, argument);
}

void wait_for_block() {
  Processor::current().stop(At::block_barrier);
}

void wait_for_warp() {
  Processor::current().stop(At::warp_barrier);
}

void note_access(const void* address, size_t bytes, bool writes, const void* code) {
  Processor::current().access(address, bytes, writes, code);
}

void check_is_shared(const void* address, size_t bytes) {
  if (!Processor::current().shared().holds(address, bytes)) {
    fail("an address that is not in shared memory");
  }
}

void fail(const char* what) {
  Processor::current().give_up(what);
}

}  // namespace emulator
}  // namespace iwin_d2
