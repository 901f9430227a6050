// Work cut into pieces for the threads, and weights packed by them.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

namespace iwin_d2 {

// A weight that is to be packed: see isa/packed_gemm.h.
struct PackTask {
  int64_t outputs;
  int64_t depth;
  const float* from;
  int64_t stride;
  float* to;
};

// Calls run(begin, end) for pieces of at most `most` of a range, as many for each thread.
template <typename Run>
void for_pieces(int64_t count, int64_t most, const Run& run) {
  const int64_t threads = at::get_num_threads();
  const int64_t least = std::max<int64_t>(1, (count + most - 1) / most);
  const int64_t parts = std::min(count, (least + threads - 1) / threads * threads);
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; part++) {
      run(count * part / parts, count * (part + 1) / parts);
    }
  });
}

}  // namespace iwin_d2
