// A whole Iwin block for inference on the CPU: y = norm1(x); z = x + depthwise(y) + attention(y);
// z + mlp(norm2(z)).
//
// Written as separate operators, a block moves maps of up to four times its channels through memory
// a dozen times, and has the system hand out fresh pages for each. Here windows, or rows, of the
// map are taken through all steps while they are in the cache: memory sees the map itself.
#include "../block.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "depthwise_taps.h"
#include "isa.h"
#include "mlp_weights.h"
#include "pieces.h"
#include "scratch.h"

namespace iwin_d2 {
namespace {

// Pointers to contiguous memory; weights packed as isa/packed_gemm.h says, the MLP's in blocks of
// hidden channels.
struct BlockProblem {
  WindowGrid grid;
  int64_t num_heads;
  int64_t channels;
  float eps;
  float scale;
  const float* x;
  float* out;
  const float* residual;  // what the attention is added to
  const float* norm1_weight;
  const float* norm1_bias;
  const float* qkv;
  const float* qkv_bias;
  const float* proj;
  const float* proj_bias;
  const float* depthwise;  // [9, C]
  const float* depthwise_bias;
  const float* norm2_weight;
  const float* norm2_bias;
  MlpWeights mlp;
  const float* fc2_bias;

  int64_t offset_of(const TokenPlace& place) const {
    const int64_t frame = place.image * grid.frames + place.frame;
    return ((frame * grid.height + place.row) * grid.width + place.column) * channels;
  }
};

#define IWIN_ISA_FILE "isa/block.h"
#include "for_each_isa.h"

// Tokens that go through a product together: enough that a panel of the weight pays for being
// read, few enough that they and their hidden channels stay in the second-level cache.
constexpr int64_t kTokens = 192;
// Rows of the map that are convolved together: the first and the last are normalised twice.
constexpr int64_t kMapRows = 32;
// Windows of more tokens are attended to from a projected map in memory, since a few of them would
// neither fit the cache nor give every thread something to do.
constexpr int64_t kWindowTokens = 256;

// Packed copies of the weights; they live as long as one call.
class PackedWeights {
 public:
  PackedWeights(const BlockParameters& parameters, int64_t channels, int64_t hidden)
      : memory_((4 * channels + 2 * hidden) * channels),
        qkv(memory_.data()),
        proj(qkv + 3 * channels * channels),
        fc1(proj + channels * channels),
        fc2(fc1 + hidden * channels) {
    add(parameters.qkv_weight, 3 * channels, channels, channels, 0, qkv);
    add(parameters.proj_weight, channels, channels, channels, 0, proj);
    for_hidden_blocks(hidden, [&](int64_t first, int64_t width) {
      add(parameters.fc1_weight,
          width,
          channels,
          channels,
          first * channels,
          fc1 + first * channels);
      add(parameters.fc2_weight, channels, width, hidden, first, fc2 + first * channels);
    });
    const int64_t count = static_cast<int64_t>(tasks_.size());
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        IWIN_CALL_FOR_ISA(pack, tasks_[i]);
      }
    });
  }

 private:
  void add(
      const at::Tensor& weight,
      int64_t outputs,
      int64_t depth,
      int64_t stride,
      int64_t first,
      float* to) {
    kept_.push_back(weight.contiguous());
    tasks_.push_back({outputs, depth, kept_.back().const_data_ptr<float>() + first, stride, to});
  }

  Scratch<float> memory_;
  std::vector<at::Tensor> kept_;
  std::vector<PackTask> tasks_;

 public:
  float* const qkv;
  float* const proj;
  float* const fc1;
  float* const fc2;
};

// Windows that fit the cache: everything from the norm to the second projection at once.
void attend_in_cache(const BlockProblem& block) {
  const int64_t most = std::max<int64_t>(1, kTokens / block.grid.tokens_per_window());
  for_pieces(block.grid.windows(), most, [&](int64_t begin, int64_t end) {
    IWIN_CALL_FOR_ISA(attend_windows, block, begin, end);
  });
}

void attend_from_map(const BlockProblem& block, int64_t tokens, const at::TensorOptions& options) {
  const at::Tensor qkv = at::empty({tokens, 3 * block.channels}, options);
  const at::Tensor attended = at::empty({tokens, block.channels}, options);
  float* qkv_data = qkv.mutable_data_ptr<float>();
  float* attended_data = attended.mutable_data_ptr<float>();
  for_pieces(tokens, kTokens, [&](int64_t begin, int64_t end) {
    IWIN_CALL_FOR_ISA(project_tokens, block, qkv_data, begin, end);
  });
  for_pieces(block.grid.windows() * block.num_heads, 1, [&](int64_t begin, int64_t end) {
    IWIN_CALL_FOR_ISA(attend_heads, block, qkv_data, attended_data, begin, end);
  });
  for_pieces(tokens, kTokens, [&](int64_t begin, int64_t end) {
    IWIN_CALL_FOR_ISA(project_attended, block, attended_data, begin, end);
  });
}

// The three steps of a block, each over the whole map.
void compute(const BlockProblem& block, bool convolves, const at::TensorOptions& options) {
  const WindowGrid& grid = block.grid;
  const int64_t rows = grid.batch * grid.frames * grid.height;
  const int64_t tokens = rows * grid.width;
  if (convolves) {
    for_pieces(rows, kMapRows, [&](int64_t begin, int64_t end) {
      IWIN_CALL_FOR_ISA(depthwise_rows, block, begin, end);
    });
  }
  if (grid.tokens_per_window() <= kWindowTokens) {
    attend_in_cache(block);
  } else {
    attend_from_map(block, tokens, options);
  }
  for_pieces(tokens, kTokens, [&](int64_t begin, int64_t end) {
    IWIN_CALL_FOR_ISA(mlp_tokens, block, begin, end);
  });
}

at::Tensor run_block(
    const at::Tensor& x_in,
    const BlockParameters& parameters,
    int64_t num_heads,
    at::IntArrayRef window_size,
    double eps) {
  const WindowGrid grid = check_block(x_in, parameters, num_heads, window_size);
  const at::Tensor x = x_in.contiguous();
  const int64_t channels = x.size(-1);
  const int64_t hidden = parameters.fc1_weight.size(0);
  check_float32(x, "channels and hidden channels", channels, hidden);
  at::Tensor out = at::empty(x.sizes(), x.options());
  if (x.numel() == 0) {
    return out;
  }
  const PackedWeights packed(parameters, channels, hidden);
  std::vector<at::Tensor> kept;
  const auto vector = [&](const at::Tensor& parameter) {
    kept.push_back(parameter.contiguous());
    return kept.back().const_data_ptr<float>();
  };
  const bool convolves = parameters.depthwise_weight.has_value();
  const std::vector<float> depthwise =
      convolves ? packed_taps<float>(*parameters.depthwise_weight, false) : std::vector<float>{};
  const float* depthwise_bias =
      parameters.depthwise_bias.has_value() ? vector(*parameters.depthwise_bias) : nullptr;
  float* to = out.mutable_data_ptr<float>();
  const float* from = x.const_data_ptr<float>();
  const BlockProblem block{
      grid,
      num_heads,
      channels,
      static_cast<float>(eps),
      1 / std::sqrt(static_cast<float>(channels / num_heads)),
      from,
      to,
      convolves ? to : from,
      vector(parameters.norm1_weight),
      vector(parameters.norm1_bias),
      packed.qkv,
      vector(parameters.qkv_bias),
      packed.proj,
      vector(parameters.proj_bias),
      depthwise.data(),
      depthwise_bias,
      vector(parameters.norm2_weight),
      vector(parameters.norm2_bias),
      {channels, hidden, kHiddenBlock, packed.fc1, vector(parameters.fc1_bias), packed.fc2},
      vector(parameters.fc2_bias)};

  compute(block, convolves, x.options());
  return out;
}

at::Tensor iwin_block_cpu(
    const at::Tensor& x,
    const at::Tensor& norm1_weight,
    const at::Tensor& norm1_bias,
    const at::Tensor& qkv_weight,
    const at::Tensor& qkv_bias,
    const at::Tensor& proj_weight,
    const at::Tensor& proj_bias,
    const std::optional<at::Tensor>& depthwise_weight,
    const std::optional<at::Tensor>& depthwise_bias,
    const at::Tensor& norm2_weight,
    const at::Tensor& norm2_bias,
    const at::Tensor& fc1_weight,
    const at::Tensor& fc1_bias,
    const at::Tensor& fc2_weight,
    const at::Tensor& fc2_bias,
    int64_t num_heads,
    at::IntArrayRef window_size,
    double eps) {
  const BlockParameters parameters{
      norm1_weight,
      norm1_bias,
      qkv_weight,
      qkv_bias,
      proj_weight,
      proj_bias,
      depthwise_weight,
      depthwise_bias,
      norm2_weight,
      norm2_bias,
      fc1_weight,
      fc1_bias,
      fc2_weight,
      fc2_bias};
  return run_block(x, parameters, num_heads, window_size, eps);
}

}  // namespace
}  // namespace iwin_d2

TORCH_LIBRARY_IMPL(iwin_d2, CPU, m) {
  m.impl("iwin_block", &iwin_d2::iwin_block_cpu);
}
