// The weights of an MLP, packed for the kernels (isa/mlp.h).
#pragma once

#include <cstdint>

namespace iwin_d2 {

// Hidden channels at a time.
constexpr int64_t kHiddenBlock = 384;

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
