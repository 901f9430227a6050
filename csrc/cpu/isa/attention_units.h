// A range of units (one head of one window each), forward and backward. Included by
// attention_kernel.cpp inside for_each_isa.h.

#include "vec.h"

#include "convert.h"
#include "exp.h"
#include "gemm.h"

#include "attention.h"

// Asks for the memory of a window's tokens ahead of its use: they lie so far apart that the processor
// does not foresee them.
template <bool kToWrite, typename In>
inline void prefetch_rows(In* const* rows, int64_t count, int64_t channels) {
  constexpr int64_t kLine = 64 / sizeof(In);
  for (int64_t n = 0; n < count; n++) {
    for (int64_t c = 0; c < channels; c += kLine) {
      __builtin_prefetch(rows[n] + c, kToWrite, 2);
    }
  }
}

template <typename In>
void attend_units(const Problem<In>& problem, const Map<In>& out, int64_t begin, int64_t end) {
  using T = Compute<In>;
  const int64_t tokens = problem.grid.tokens_per_window();
  const int64_t head_dim = problem.channels / problem.num_heads;
  auto shape = AttentionShape<T>::make(tokens, 0, head_dim);
  const Scratch<T> scratch(attend_scratch<T>(tokens, head_dim));
  const Scratch<const In*> rows(tokens + 1);
  const Scratch<const In*> next_rows(tokens);
  const Scratch<In*> outs(tokens);
  int64_t current = -1;
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t window = unit / problem.num_heads;
    if (window != current) {
      const int64_t count = find_tokens(problem.grid, window, problem.qkv, rows.data());
      rows.data()[count] = problem.padding;
      find_tokens(problem.grid, window, out, outs.data());
      shape = AttentionShape<T>::make(count, tokens - count, head_dim);
      if (window + 1 < problem.grid.windows()) {
        const int64_t next =
            find_tokens(problem.grid, window + 1, problem.qkv, next_rows.data());
        prefetch_rows<false>(next_rows.data(), next, 3 * problem.channels);
      }
      prefetch_rows<true>(outs.data(), count, problem.channels);
      current = window;
    }
    attend(
        shape,
        rows.data(),
        problem.channels,
        unit % problem.num_heads * head_dim,
        static_cast<T>(problem.scale),
        outs.data(),
        scratch.data());
  }
}

// Adds the gradient of the padding's row to `grad_padding`.
template <typename In>
void attend_units_backward(
    const Problem<In>& problem,
    const Map<const In>& grad,
    const Map<In>& grad_qkv,
    Compute<In>* grad_padding,
    int64_t begin,
    int64_t end) {
  using T = Compute<In>;
  const int64_t tokens = problem.grid.tokens_per_window();
  const int64_t head_dim = problem.channels / problem.num_heads;
  auto shape = AttentionShape<T>::make(tokens, 0, head_dim);
  const Scratch<T> scratch(attend_backward_scratch<T>(tokens, head_dim));
  const Scratch<const In*> rows(tokens + 1);
  const Scratch<const In*> grads(tokens);
  const Scratch<In*> outs(tokens);
  int64_t current = -1;
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t window = unit / problem.num_heads;
    if (window != current) {
      const int64_t count = find_tokens(problem.grid, window, problem.qkv, rows.data());
      rows.data()[count] = problem.padding;
      find_tokens(problem.grid, window, grad, grads.data());
      find_tokens(problem.grid, window, grad_qkv, outs.data());
      shape = AttentionShape<T>::make(count, tokens - count, head_dim);
      current = window;
    }
    const int64_t offset = unit % problem.num_heads * head_dim;
    T* results[3];
    attend_backward(
        shape,
        rows.data(),
        problem.channels,
        offset,
        static_cast<T>(problem.scale),
        grads.data(),
        scratch.data(),
        results);
    for (int part = 0; part < 3; part++) {
      const int64_t first = part * problem.channels + offset;
      for (int64_t n = 0; n < shape.queries; n++) {
        const T* row = results[part] + n * shape.padded_dim;
        scale_row_out(row, T(1), outs.data()[n] + first, head_dim);
      }
      // The padding asks for nothing: its q has no gradient.
      if (part > 0 && shape.keys > shape.queries) {
        const T* row = results[part] + shape.queries * shape.padded_dim;
        for (int64_t d = 0; d < head_dim; d++) {
          grad_padding[first + d] += row[d];
        }
      }
    }
  }
}
