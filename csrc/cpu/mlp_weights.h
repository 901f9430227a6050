// The weights of an MLP, packed for the kernels (isa/mlp.h).
#pragma once

#include <algorithm>
#include <cstdint>

namespace iwin_d2 {

// Hidden channels at a time.
constexpr int64_t kHiddenBlock = 384;

// Calls run(first, width) for each block.
template <typename Run>
void for_hidden_blocks(int64_t hidden, const Run& run) {
  for (int64_t first = 0; first < hidden; first += kHiddenBlock) {
    run(first, std::min(kHiddenBlock, hidden - first));
  }
}

// Pointers to weights packed in blocks of hidden channels; C channels, `hidden` hidden ones.
struct MlpWeights {
  int64_t channels;
  int64_t hidden;
  int64_t block;
  const float* fc1;
  const float* fc1_bias;
  const float* fc2;
};

}  // namespace iwin_d2
