#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace iwin_d2 {

// Memory of one thread, on a boundary of a cache line: an unaligned vector of AVX-512 always
// straddles two.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    memory_.reset(static_cast<T*>(std::aligned_alloc(64, bytes == 0 ? 64 : bytes)));
    if (memory_ == nullptr) {
      throw std::bad_alloc();
    }
  }

  T* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> memory_;
};

}  // namespace iwin_d2
