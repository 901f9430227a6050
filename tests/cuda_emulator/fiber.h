// Fibers: functions that can stop in the middle, on a stack of their own, and go on later.
//
// On x86-64 a switch is a dozen instructions; elsewhere it is swapcontext, with a system call.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace iwin_d2 {
namespace emulator {

#if defined(__x86_64__)
using Context = void*;  // where the stack pointer was; the registers lie on the stack

extern "C" __attribute__((visibility("hidden"))) void iwin_d2_switch(Context* from, Context to);

// The registers that a function has to keep, by the calling convention.
asm(R"(
.text
.hidden iwin_d2_switch
.type iwin_d2_switch, @function
iwin_d2_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size iwin_d2_switch, . - iwin_d2_switch
)");
#else
using Context = ucontext_t;
#endif

// One stack, and the context of what runs on it and of who lets it run. Not to be moved.
class Fiber {
 public:
  Fiber() {
    // Memory that nobody touches is never given. The lowest page stays without rights: a stack that
    // grows too large ends the process there.
    void* memory =
        mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE) != 0) {
      throw std::bad_alloc();
    }
    stack_ = static_cast<unsigned char*>(memory);
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() { munmap(stack_, kSize); }

  // Gets ready to call entry(), which must not return: it ends with leave_for_good().
  void prepare(void (*entry)()) {
#if defined(__SANITIZE_ADDRESS__)
    // Of a run that was given up, in the middle of functions.
    __asan_unpoison_memory_region(stack_ + kGuard, kSize - kGuard);
    its_fake_stack_ = nullptr;
#endif
#if defined(__x86_64__)
    auto* top = reinterpret_cast<void**>(stack_ + kSize);
    // Where entry would return to; as at every function's start, 8 off a multiple of 16.
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) {
      *--top = nullptr;
    }
    its_ = top;
#else
    getcontext(&its_);
    its_.uc_stack.ss_sp = stack_ + kGuard;
    its_.uc_stack.ss_size = kSize - kGuard;
    its_.uc_link = nullptr;
    makecontext(&its_, entry, 0);
#endif
  }

  // Called by whoever lets the fiber run: comes back when it stops.
  void go_on() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&callers_fake_stack_, stack_ + kGuard, kSize - kGuard);
#endif
    switch_contexts(callers_, its_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(callers_fake_stack_, nullptr, nullptr);
#endif
  }

  // Called on the fiber.
  void stop() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&its_fake_stack_, callers_stack_, callers_size_);
#endif
    switch_contexts(its_, callers_);
    has_started();
  }

  // Called on the fiber, first of all (and by stop, when it goes on).
  void has_started() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(its_fake_stack_, &callers_stack_, &callers_size_);
#endif
  }

  [[noreturn]] void leave_for_good() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(nullptr, callers_stack_, callers_size_);
#endif
    switch_contexts(its_, callers_);
    __builtin_unreachable();
  }

 private:
  static constexpr size_t kSize = 256 * 1024;
  static constexpr size_t kGuard = 4096;

  static void switch_contexts(Context& from, Context& to) {
#if defined(__x86_64__)
    iwin_d2_switch(&from, to);
#else
    swapcontext(&from, &to);
#endif
  }

  unsigned char* stack_;
  Context its_;
  Context callers_;
#if defined(__SANITIZE_ADDRESS__)
  void* its_fake_stack_ = nullptr;
  void* callers_fake_stack_ = nullptr;
  const void* callers_stack_ = nullptr;
  size_t callers_size_ = 0;
#endif
};

}  // namespace emulator
}  // namespace iwin_d2
