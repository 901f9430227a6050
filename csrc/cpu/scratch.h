#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace iwin_d2 {

constexpr size_t kHugePage = size_t{2} << 20;

// Asks for the huge pages of memory that is about to be written for the first time: the system
// hands out one of 2 MiB in a fraction of the time that it takes for 512 of 4 KiB.
inline void prefer_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kHugePage - 1) & ~(kHugePage - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(kHugePage - 1);
  if (begin < end) {
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a hint: it may fail
  }
#endif
}

// Memory of one thread, on a boundary of a cache line: an unaligned vector of AVX-512 always
// straddles two.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    const size_t alignment = bytes >= kHugePage / 2 ? kHugePage : 64;
    const size_t whole = (bytes + alignment - 1) / alignment * alignment + (bytes == 0 ? 64 : 0);
    memory_.reset(static_cast<T*>(std::aligned_alloc(alignment, whole)));
    if (memory_ == nullptr) {
      throw std::bad_alloc();
    }
    prefer_huge_pages(memory_.get(), whole);
  }

  T* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> memory_;
};

}  // namespace iwin_d2
