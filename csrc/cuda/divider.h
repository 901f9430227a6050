// Division by a number that is the same for all threads of a kernel: a product and a shift, where a
// GPU's own division takes some twenty instructions, and far more with 64 bits.
#pragma once

#include <cstdint>

#include "device.h"

namespace iwin_d2 {

// For n below 2^31 and a divisor d of at most 2^31, with 2^s the first power of two that is not
// less than d: floor(n / d) = floor(n m / 2^(32 + s)) for m = floor(2^32 (2^s - d) / d) + 1 + 2^32.
// (Granlund and Montgomery, Division by Invariant Integers using Multiplication, 1994, figure 4.1.)
class Divider {
 public:
  Divider() = default;

  // `divisor` is at least 1.
  explicit Divider(int64_t divisor) : divisor_(divisor) {
    if (divisor > kSmall) {
      shift_ = 31;  // of n alone: 0
      multiplier_ = 0;
      return;
    }
    while ((int64_t{1} << shift_) < divisor) {
      shift_++;
    }
    multiplier_ = static_cast<uint32_t>(
        (uint64_t{1} << 32) * ((uint64_t{1} << shift_) - divisor) / divisor + 1);
  }

  // `n` is not negative.
  __device__ __forceinline__ int64_t quotient(int64_t n) const {
    if (n >= kSmall) {
      return n / divisor_;
    }
    const uint32_t small = static_cast<uint32_t>(n);
    const uint32_t high = static_cast<uint32_t>((uint64_t{small} * multiplier_) >> 32);
    return (high + small) >> shift_;
  }

  // Leaves the quotient in `n` and returns the remainder.
  __device__ __forceinline__ int64_t divide(int64_t& n) const {
    const int64_t whole = quotient(n);
    const int64_t rest = n - whole * divisor_;
    n = whole;
    return rest;
  }

 private:
  static constexpr int64_t kSmall = int64_t{1} << 31;

  int64_t divisor_ = 1;
  uint32_t multiplier_ = 1;
  uint32_t shift_ = 0;
};

}  // namespace iwin_d2
