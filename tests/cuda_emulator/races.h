// Finds races for shared memory: two threads at one place, one of them writing, and no barrier
// between the two accesses. That holds for any order of the threads, not only for the one that ran.
//
// The kernels are compiled with GCC's -fsanitize=thread, which calls a function before every access
// to memory. These functions are those of accesses.cpp, not the sanitizer's, which knows no warps.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "emulator.h"

namespace iwin_d2 {
namespace emulator {

// A clock ticks at each barrier, of the block or of a warp. An access is stamped with the last
// barrier that its warp has passed. Whoever comes later, is of the same warp and has passed another
// barrier since, comes after it; of another warp, only if that barrier was one of the block.
class Races {
 public:
  // A block begins: what was before is forgotten.
  void begin_block(size_t shared, unsigned warps) {
    if (clock_ > UINT32_MAX / 2) {  // start again before it comes round
      clock_ = 0;
      places_.clear();
    }
    places_.resize(std::max(places_.size(), (shared + kBytes - 1) / kBytes));
    of_warp_.resize(warps);
    pass_block_barrier();
  }

  void pass_block_barrier() {
    of_block_ = ++clock_;
    std::fill(of_warp_.begin(), of_warp_.end(), clock_);
  }

  void pass_warp_barrier(unsigned warp) { of_warp_[warp] = ++clock_; }

  static constexpr unsigned kNobody = ~0u;

  // Notes that a thread reads or writes there; returns a thread that it races with, or kNobody.
  unsigned access(unsigned thread, size_t offset, size_t bytes, bool writes) {
    const Stamp now{of_warp_[thread / kLanes], static_cast<uint16_t>(thread), false};
    for (size_t i = offset / kBytes; i <= (offset + bytes - 1) / kBytes; i++) {
      Place& place = places_[i];
      const Stamp& last = writes ? place.written : place.read;
      if (last.clock == now.clock && last.thread == now.thread) {
        continue;  // once more: who has come between has been seen then
      }
      for (const Stamp* before : {&place.written, &place.read, &place.read_by_others}) {
        if ((writes || before == &place.written) && at_once(*before, now)) {
          return before->thread;
        }
      }
      if (writes) {
        place.written = now;
      } else {
        place.add_reader(now);
      }
    }
    return kNobody;
  }

 private:
  // The smallest number that a kernel keeps there: neighbouring bytes count as one place.
  static constexpr size_t kBytes = 2;

  struct Stamp {
    uint32_t clock = 0;
    uint16_t thread = 0;
    bool several = false;  // of the warp's threads, at the same time

    unsigned warp() const { return thread / kLanes; }
  };

  // One writer is enough: a second one would have raced with it, or came after it. Of readers there
  // may be many at once; it takes those of two warps to know whether one is of another warp.
  struct Place {
    Stamp written;
    Stamp read;
    Stamp read_by_others;  // last, of the warps that are not read.warp()

    void add_reader(const Stamp& now) {
      if (read.warp() != now.warp()) {
        std::swap(read, read_by_others);
      }
      if (read.warp() == now.warp() && read.clock == now.clock) {
        read.several |= read.thread != now.thread;
      } else {
        read = now;
      }
    }
  };

  bool at_once(const Stamp& before, const Stamp& now) const {
    if (before.warp() != now.warp()) {
      return before.clock >= of_block_;
    }
    return before.clock == now.clock && (before.several || before.thread != now.thread);
  }

  uint32_t clock_ = 0;
  uint32_t of_block_ = 0;
  std::vector<uint32_t> of_warp_;
  std::vector<Place> places_;
};

}  // namespace emulator
}  // namespace iwin_d2
