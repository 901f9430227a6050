// Rows of a normalised map, convolved by 3x3 at stride 2. Included by downsample_kernel.cpp inside
// for_each_isa.h.

#include "vec.h"

#include "gemm.h"
#include "layer_norm.h"
#include "packed_gemm.h"

inline void pack(const PackTask& task) {
  pack_weight(task.outputs, task.depth, task.from, task.stride, task.to);
}

// Rows [begin, end) of the result, counted through all images. The convolution is the sum of nine
// products, one for each tap: a tap's rows of A are every second token of a normalised row.
inline void downsample_rows(const DownsampleProblem& problem, int64_t begin, int64_t end) {
  const int64_t channels = problem.channels;
  const int64_t out_height = (problem.height + 1) / 2;
  const int64_t out_width = (problem.width + 1) / 2;
  const int64_t row = (2 * out_width + 1) * channels;
  // Three normalised rows, each with the zeros beyond the map; the last one of a result's row is
  // the first of the next one's.
  const Scratch<float> scratch(3 * row);
  const auto normalised = [&](int64_t index) { return scratch.data() + index % 3 * row; };
  const auto normalise = [&](int64_t image, int64_t index) {
    float* to = normalised(index);
    const int64_t inside = index < problem.height ? problem.width * channels : 0;
    const float* from = problem.x + (image * problem.height + index) * problem.width * channels;
    for (int64_t c = 0; c < inside; c += channels) {
      normalise_row(
          from + c, problem.norm_weight, problem.norm_bias, problem.eps, channels, to + c);
    }
    for (int64_t c = inside; c < row; c++) {
      to[c] = 0;
    }
  };
  for (int64_t index = begin; index < end; index++) {
    const int64_t image = index / out_height;
    const int64_t first = 2 * (index % out_height);
    if (index == begin || first == 0) {
      normalise(image, first);
    }
    normalise(image, first + 1);
    normalise(image, first + 2);
    float* out = problem.out + index * out_width * problem.outputs;
    for (int64_t i = 0; i < out_width; i++) {
      for (int64_t c = 0; c < problem.outputs; c += kLanes<float>) {
        store(out + i * problem.outputs + c, load(problem.bias + c));
      }
    }
    for (int64_t tap = 0; tap < 9; tap++) {
      gemm_packed<float, true>(
          out_width,
          problem.outputs,
          channels,
          normalised(first + tap / 3) + tap % 3 * channels,
          2 * channels,
          problem.weight + tap * channels * problem.outputs,
          out,
          problem.outputs);
    }
  }
}
