// What code that GCC compiles with -fsanitize=thread calls before each access to memory. The
// kernels are compiled so, and linked without the sanitizer: all of it goes to the emulator.
#include "emulator.h"

namespace {

inline __attribute__((always_inline)) void access(const void* address, size_t bytes, bool writes) {
  if (__builtin_expect(iwin_d2::emulator::is_watched(address), false)) {
    iwin_d2::emulator::note_access(address, bytes, writes, __builtin_return_address(0));
  }
}

}  // namespace

// Hidden: another library's functions of these names, if there are any, are not meant.
#pragma GCC visibility push(hidden)
extern "C" {

void __tsan_init() {}

void __tsan_vptr_update(void*, void*) {}

void __tsan_vptr_read(void*) {}

#define IWIN_ACCESS(name, bytes, writes)     \
  void __tsan_##name(const void* address) {  \
    access(address, bytes, writes);          \
  }
#define IWIN_ACCESSES(bytes)                       \
  IWIN_ACCESS(read##bytes, bytes, false)           \
  IWIN_ACCESS(write##bytes, bytes, true)           \
  IWIN_ACCESS(unaligned_read##bytes, bytes, false) \
  IWIN_ACCESS(unaligned_write##bytes, bytes, true)
IWIN_ACCESSES(1)
IWIN_ACCESSES(2)
IWIN_ACCESSES(4)
IWIN_ACCESSES(8)
IWIN_ACCESSES(16)

void __tsan_read_range(const void* address, size_t bytes) {
  access(address, bytes, false);
}

void __tsan_write_range(const void* address, size_t bytes) {
  access(address, bytes, true);
}

// Kernels have no atomic operations. What starts them does (tensors are counted so): as ever.
#define IWIN_ATOMIC(bits, T)                                                              \
  T __tsan_atomic##bits##_load(const volatile T* from, int) {                             \
    return __atomic_load_n(from, __ATOMIC_SEQ_CST);                                       \
  }                                                                                       \
  void __tsan_atomic##bits##_store(volatile T* to, T value, int) {                        \
    __atomic_store_n(to, value, __ATOMIC_SEQ_CST);                                        \
  }                                                                                       \
  T __tsan_atomic##bits##_exchange(volatile T* at, T value, int) {                        \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                              \
  }                                                                                       \
  T __tsan_atomic##bits##_fetch_add(volatile T* at, T value, int) {                       \
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);                               \
  }                                                                                       \
  T __tsan_atomic##bits##_fetch_sub(volatile T* at, T value, int) {                       \
    return __atomic_fetch_sub(at, value, __ATOMIC_SEQ_CST);                               \
  }                                                                                       \
  int __tsan_atomic##bits##_compare_exchange_strong(                                      \
      volatile T* at, T* expected, T value, int, int) {                                   \
    return __atomic_compare_exchange_n(                                                   \
        at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                  \
  }                                                                                       \
  int __tsan_atomic##bits##_compare_exchange_weak(                                        \
      volatile T* at, T* expected, T value, int, int) {                                   \
    return __tsan_atomic##bits##_compare_exchange_strong(at, expected, value, 0, 0);      \
  }
IWIN_ATOMIC(8, uint8_t)
IWIN_ATOMIC(32, uint32_t)
IWIN_ATOMIC(64, uint64_t)

}  // extern "C"
#pragma GCC visibility pop
