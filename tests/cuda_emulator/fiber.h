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
#include <pthread.h>
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
  popq %rcx  # and not ret: the processor would expect to go to whoever called last
  jmpq *%rcx
.size iwin_d2_switch, . - iwin_d2_switch
)");
#else
using Context = ucontext_t;
#endif

// A place in the program, and the stack it needs: of a function of its own, or of the thread that
// has made it. Not to be moved.
class Fiber {
 public:
  enum class Stack { own, of_this_thread };

  explicit Fiber(Stack stack) {
    if (stack == Stack::own) {
      // Memory that nobody touches is never given. The lowest page stays without rights: a stack
      // that grows too large ends the process there.
      memory_ = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory_ == MAP_FAILED || mprotect(memory_, kGuard, PROT_NONE) != 0) {
        throw std::bad_alloc();
      }
      bottom_ = static_cast<unsigned char*>(memory_) + kGuard;
      bytes_ = kSize - kGuard;
    } else {
#if defined(__SANITIZE_ADDRESS__)
      pthread_attr_t attributes;
      void* bottom;
      pthread_getattr_np(pthread_self(), &attributes);
      pthread_attr_getstack(&attributes, &bottom, &bytes_);
      pthread_attr_destroy(&attributes);
      bottom_ = static_cast<unsigned char*>(bottom);
#endif
    }
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
    if (memory_ != nullptr) {
      munmap(memory_, kSize);
    }
  }

  // The next to switch here calls entry(), which begins with has_started() and must not return.
  void prepare(void (*entry)()) {
#if defined(__SANITIZE_ADDRESS__)
    // Of a run that was given up, in the middle of functions.
    __asan_unpoison_memory_region(bottom_, bytes_);
    fake_stack_ = nullptr;
#endif
#if defined(__x86_64__)
    auto* top = reinterpret_cast<void**>(bottom_ + bytes_);
    // Where entry would return to; as at every function's start, 8 off a multiple of 16.
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) {
      *--top = nullptr;
    }
    context_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = bottom_;
    context_.uc_stack.ss_size = bytes_;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
#endif
  }

  // Called on this fiber: it stops, and the other one goes on.
  void switch_to(Fiber& other) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fake_stack_, other.bottom_, other.bytes_);
#endif
#if defined(__x86_64__)
    iwin_d2_switch(&context_, other.context_);
#else
    swapcontext(&context_, &other.context_);
#endif
    has_started();
  }

  void has_started() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
  }

 private:
  static constexpr size_t kSize = 256 * 1024;
  static constexpr size_t kGuard = 4096;

  void* memory_ = nullptr;
  unsigned char* bottom_ = nullptr;
  size_t bytes_ = 0;
  Context context_{};
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack_ = nullptr;
#endif
};

}  // namespace emulator
}  // namespace iwin_d2
