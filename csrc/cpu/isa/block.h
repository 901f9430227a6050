// The parts of a fused block, each over a range of work, on memory that stays in the cache between
// the steps. Included by block_kernel.cpp inside for_each_isa.h.

#include "vec.h"

#include "convert.h"
#include "exp.h"
#include "gemm.h"

#include "attention.h"
#include "element.h"
#include "gelu.h"
#include "packed_gemm.h"

#include "depthwise_conv.h"
#include "layer_norm.h"
#include "mlp.h"

inline void fill_row(const float* from, int64_t count, float* to) {
  for (int64_t c = 0; c < count; c += kLanes<float>) {
    store(to + c, load(from + c));
  }
}

// to = a + b + c
inline void add_rows(const float* a, const float* b, const float* c, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += kLanes<float>) {
    store(to + i, load(a + i) + load(b + i) + load(c + i));
  }
}

// One of the weights that are to be packed: see pack_weight.
inline void pack(const PackTask& task) {
  pack_weight(task.outputs, task.depth, task.from, task.stride, task.to);
}


// out = x + depthwise(norm1(x)) for rows [begin, end) of all images and frames.
inline void depthwise_rows(const BlockProblem& block, int64_t begin, int64_t end) {
  const int64_t height = block.grid.height;
  const int64_t row = block.grid.width * block.channels;
  // Normalised rows go round a ring of three; the fourth is the zeros beyond the map.
  const Scratch<float> scratch(4 * row);
  float* zeros = scratch.data() + 3 * row;
  for (int64_t i = 0; i < row; i++) {
    zeros[i] = 0;
  }
  const auto normalised = [&](int64_t index) { return scratch.data() + index % 3 * row; };
  const auto normalise = [&](int64_t index) {
    for (int64_t c = 0; c < row; c += block.channels) {
      normalise_row(
          block.x + index * row + c,
          block.norm1_weight,
          block.norm1_bias,
          block.eps,
          block.channels,
          normalised(index) + c);
    }
  };
  for (int64_t index = begin; index < end; index++) {
    const bool first = index % height == 0;
    const bool last = index % height == height - 1;
    if (index == begin || first) {
      if (!first) {
        normalise(index - 1);
      }
      normalise(index);
    }
    if (!last) {
      normalise(index + 1);
    }
    depthwise_row(
        first ? zeros : normalised(index - 1),
        normalised(index),
        last ? zeros : normalised(index + 1),
        block.depthwise,
        block.depthwise_bias,
        block.x + index * row,
        block.out + index * row,
        block.grid.width,
        block.channels);
  }
}

// out = residual + attention for the windows [begin, end): their tokens are gathered, normalised,
// projected, attended to and projected again before the next windows' are.
inline void attend_windows(const BlockProblem& block, int64_t begin, int64_t end) {
  const int64_t channels = block.channels;
  const int64_t per_window = block.grid.tokens_per_window();
  const int64_t capacity = (end - begin) * per_window;
  const int64_t head_dim = channels / block.num_heads;
  const Scratch<int64_t> counts(end - begin);  // tokens of each window
  const Scratch<int64_t> places(capacity);  // of each token's channels in the map
  const Scratch<float> tokens(capacity * channels);
  const Scratch<float> qkv(capacity * 3 * channels);
  const Scratch<float> attended(capacity * channels);
  const Scratch<const float*> rows(per_window + 1);
  const Scratch<float*> outs(per_window);
  const Scratch<float> scratch(attend_scratch<float>(per_window, head_dim));

  int64_t count = 0;
  for (int64_t window = begin; window < end; window++) {
    const int64_t before = count;
    for_each_token(block.grid, window, [&](int64_t, const TokenPlace& place) {
      if (place.inside) {
        const int64_t at = block.offset_of(place);
        places.data()[count] = at;
        normalise_row(
            block.x + at,
            block.norm1_weight,
            block.norm1_bias,
            block.eps,
            channels,
            tokens.data() + count * channels);
        fill_row(block.qkv_bias, 3 * channels, qkv.data() + count * 3 * channels);
        count++;
      }
    });
    counts.data()[window - begin] = count - before;
  }
  gemm_packed<float, true>(
      count, 3 * channels, channels, tokens.data(), channels, block.qkv, qkv.data(), 3 * channels);

  int64_t first = 0;
  for (int64_t window = 0; window < end - begin; window++) {
    const int64_t inside = counts.data()[window];
    for (int64_t n = 0; n < inside; n++) {
      rows.data()[n] = qkv.data() + (first + n) * 3 * channels;
      outs.data()[n] = attended.data() + (first + n) * channels;
    }
    // The padding is zeros before the projection: its q, k and v are the bias.
    rows.data()[inside] = block.qkv_bias;
    first += inside;
    const auto shape = AttentionShape<float>::make(inside, per_window - inside, head_dim);
    for (int64_t head = 0; head < block.num_heads; head++) {
      attend(
          shape,
          rows.data(),
          channels,
          head * head_dim,
          block.scale,
          outs.data(),
          scratch.data());
    }
  }

  float* projected = tokens.data();
  gemm_packed<float, false>(
      count, channels, channels, attended.data(), channels, block.proj, projected, channels);
  for (int64_t n = 0; n < count; n++) {
    const int64_t at = places.data()[n];
    add_rows(
        block.residual + at, projected + n * channels, block.proj_bias, channels, block.out + at);
  }
}

// qkv = the projection of norm1(x), for the tokens [begin, end) of the map.
inline void project_tokens(const BlockProblem& block, float* qkv, int64_t begin, int64_t end) {
  const int64_t channels = block.channels;
  const int64_t count = end - begin;
  const Scratch<float> tokens(count * channels);
  for (int64_t n = 0; n < count; n++) {
    normalise_row(
        block.x + (begin + n) * channels,
        block.norm1_weight,
        block.norm1_bias,
        block.eps,
        channels,
        tokens.data() + n * channels);
    fill_row(block.qkv_bias, 3 * channels, qkv + (begin + n) * 3 * channels);
  }
  gemm_packed<float, true>(
      count,
      3 * channels,
      channels,
      tokens.data(),
      channels,
      block.qkv,
      qkv + begin * 3 * channels,
      3 * channels);
}

// One head of one window each, from a projected map to a map.
inline void attend_heads(
    const BlockProblem& block, const float* qkv, float* attended, int64_t begin, int64_t end) {
  const int64_t channels = block.channels;
  const int64_t per_window = block.grid.tokens_per_window();
  const int64_t head_dim = channels / block.num_heads;
  const Scratch<const float*> rows(per_window + 1);
  const Scratch<float*> outs(per_window);
  const Scratch<float> scratch(attend_scratch<float>(per_window, head_dim));
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t count = 0;
    for_each_token(block.grid, unit / block.num_heads, [&](int64_t, const TokenPlace& place) {
      if (place.inside) {
        const int64_t at = block.offset_of(place);
        rows.data()[count] = qkv + 3 * at;
        outs.data()[count] = attended + at;
        count++;
      }
    });
    rows.data()[count] = block.qkv_bias;
    attend(
        AttentionShape<float>::make(count, per_window - count, head_dim),
        rows.data(),
        channels,
        unit % block.num_heads * head_dim,
        block.scale,
        outs.data(),
        scratch.data());
  }
}

// out = residual + the projection of what was attended to, for the tokens [begin, end).
inline void project_attended(
    const BlockProblem& block, const float* attended, int64_t begin, int64_t end) {
  const int64_t channels = block.channels;
  const int64_t count = end - begin;
  const Scratch<float> projected(count * channels);
  gemm_packed<float, false>(
      count,
      channels,
      channels,
      attended + begin * channels,
      channels,
      block.proj,
      projected.data(),
      channels);
  for (int64_t n = 0; n < count; n++) {
    const int64_t at = (begin + n) * channels;
    add_rows(
        block.residual + at,
        projected.data() + n * channels,
        block.proj_bias,
        channels,
        block.out + at);
  }
}

// out += mlp(norm2(out)) for the tokens [begin, end).
inline void mlp_tokens(const BlockProblem& block, int64_t begin, int64_t end) {
  const int64_t channels = block.channels;
  const int64_t count = end - begin;
  float* out = block.out + begin * channels;
  const Scratch<float> tokens(count * channels);
  const Scratch<float> hidden(count * block.mlp.block);
  for (int64_t n = 0; n < count; n++) {
    float* row = out + n * channels;
    normalise_row(
        row,
        block.norm2_weight,
        block.norm2_bias,
        block.eps,
        channels,
        tokens.data() + n * channels);
    for (int64_t c = 0; c < channels; c += kLanes<float>) {
      store(row + c, load(row + c) + load(block.fc2_bias + c));
    }
  }
  add_mlp(block.mlp, count, tokens.data(), hidden.data(), out);
}
