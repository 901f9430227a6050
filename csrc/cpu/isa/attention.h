// Attention among the tokens of one window, for one head. Included by kernel files inside
// for_each_isa.h.
//
// Tokens come as pointers to their rows (q | k | v of all heads), wherever these lie: in a
// projected map, in the row of the padding, or in scratch memory. Nothing is stored per pair of
// tokens beyond a block of query rows that stays in the cache, whatever the size of the window.

#include "vec.h"

#include "convert.h"
#include "exp.h"
#include "gemm.h"

template <typename T>
constexpr int64_t round_up_to_lanes(int64_t n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// Sizes of one window's attention, and how the scratch memory is laid out.
template <typename T>
struct AttentionShape {
  int64_t tokens;
  int64_t head_dim;
  int64_t padded_tokens;  // whole vectors
  int64_t padded_dim;
  int64_t block;  // query rows at a time: their logits fill most of the first-level cache

  static AttentionShape make(int64_t tokens, int64_t head_dim) {
    constexpr int64_t kLogits = 40 * 1024 / sizeof(T);
    const int64_t padded_tokens = round_up_to_lanes<T>(tokens);
    const int64_t fitting = kLogits / padded_tokens / 6 * 6;
    const int64_t block = fitting < 6 ? 6 : fitting;
    return {
        tokens,
        head_dim,
        padded_tokens,
        round_up_to_lanes<T>(head_dim),
        block < tokens ? block : tokens};
  }
};

// `gather_rows` for rows of kVectors whole vectors. (With a factor that the compiler knew to be 1, it
// would call memmove for each of these short rows.)
template <typename T, int kVectors>
__attribute__((noinline)) void gather_vectors(
    int64_t tokens, const T* const* rows, int64_t offset, T factor, T* to) {
  for (int64_t n = 0; n < tokens; n++) {
    const T* row = rows[n] + offset;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) {
      store(to + v * kLanes<T>, factor * load(row + v * kLanes<T>));
    }
    to += kVectors * kLanes<T>;
  }
}

// Copies `head_dim` channels of every token, times `factor`; the rest of a padded row is zeros.
// Where `rows` is null the whole row is.
template <typename In>
inline void gather_rows(
    const AttentionShape<Compute<In>>& shape,
    const In* const* rows,
    int64_t offset,
    Compute<In> factor,
    Compute<In>* to) {
  using T = Compute<In>;
  if constexpr (std::is_same_v<In, T>) {
    switch (shape.head_dim % kLanes<T> == 0 ? shape.head_dim / kLanes<T> : 0) {
      case 1:
        return gather_vectors<T, 1>(shape.tokens, rows, offset, factor, to);
      case 2:
        return gather_vectors<T, 2>(shape.tokens, rows, offset, factor, to);
      case 4:
        return gather_vectors<T, 4>(shape.tokens, rows, offset, factor, to);
      case 8:
        return gather_vectors<T, 8>(shape.tokens, rows, offset, factor, to);
    }
  }
  for (int64_t n = 0; n < shape.tokens; n++) {
    T* row = to + n * shape.padded_dim;
    scale_row(rows[n] + offset, factor, row, shape.head_dim);
    for (int64_t d = shape.head_dim; d < shape.padded_dim; d++) {
      row[d] = 0;
    }
  }
}

// to[d][n] = from(n)[d] for rows of padded_dim, to rows of padded_tokens; zeros beyond the tokens.
template <typename T, typename From>
inline void transpose_from(const AttentionShape<T>& shape, const From& from, T* to) {
  constexpr int kWidth = kLanes<T>;
  for (int64_t n = 0; n < shape.padded_tokens; n += kWidth) {
    for (int64_t d = 0; d < shape.padded_dim; d += kWidth) {
      Vec<T> square[kWidth];
      const int64_t valid = shape.tokens - n;
      if (valid >= kWidth) {
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; i++) {
          square[i] = load(from(n + i) + d);
        }
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; i++) {
          square[i] = i < valid ? load(from(n + i) + d) : Vec<T>{};
        }
      }
      transpose_square<T>(square);
#pragma GCC unroll 16
      for (int i = 0; i < kWidth; i++) {
        store(to + (d + i) * shape.padded_tokens + n, square[i]);
      }
    }
  }
}

template <typename T>
__attribute__((noinline)) void transpose_rows(
    const AttentionShape<T>& shape, const T* from, T* to) {
  transpose_from(shape, [&](int64_t n) { return from + n * shape.padded_dim; }, to);
}

// Gathers and transposes; `spare` has room for the gathered rows.
template <typename In>
__attribute__((noinline)) void gather_transposed(
    const AttentionShape<Compute<In>>& shape,
    const In* const* rows,
    int64_t offset,
    Compute<In>* spare,
    Compute<In>* to) {
  if constexpr (std::is_same_v<In, Compute<In>>) {
    if (shape.head_dim == shape.padded_dim) {
      return transpose_from(shape, [&](int64_t n) { return rows[n] + offset; }, to);
    }
  }
  gather_rows(shape, rows, offset, Compute<In>(1), spare);
  transpose_rows(shape, spare, to);
}

// `exponentials` for kRows rows at once: one row alone would mostly wait for its own maximum.
template <typename T, int kRows>
inline void exponentials_of_rows(const AttentionShape<T>& shape, T* rows, T* sums) {
  constexpr int kWidth = kLanes<T>;
  const int64_t width = shape.padded_tokens;
  const int valid = static_cast<int>(shape.tokens - (width - kWidth));
  const T infinity = static_cast<T>(__builtin_inff());
  Vec<T> maximum[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
    T* tail = rows + r * width + width - kWidth;
    maximum[r] = keep_first<T>(load(tail), valid, -infinity);
    store(tail, maximum[r]);
  }
  for (int64_t n = 0; n < width - kWidth; n += kWidth) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      maximum[r] = larger<T>(maximum[r], load(rows + r * width + n));
    }
  }
  Vec<T> sum[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
    maximum[r] = maximum_in_all_lanes<T>(maximum[r]);
    sum[r] = Vec<T>{};
  }
  for (int64_t n = 0; n < width; n += kWidth) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      const Vec<T> weight = exp2_nonpositive(load(rows + r * width + n) - maximum[r]);
      sum[r] += weight;
      store(rows + r * width + n, weight);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
    sums[r] = sum_of_lanes<T>(sum[r]);
  }
}

// Turns `count` rows of logits (in units of log 2) into weights 2^(logit - maximum), next to
// nothing beyond the tokens; sums[r] becomes the sum of row r.
template <typename T>
inline void exponentials(const AttentionShape<T>& shape, int64_t count, T* logits, T* sums) {
  constexpr int kRows = 4;
  int64_t r = 0;
  for (; r + kRows <= count; r += kRows) {
    exponentials_of_rows<T, kRows>(shape, logits + r * shape.padded_tokens, sums + r);
  }
  for (; r < count; r++) {
    exponentials_of_rows<T, 1>(shape, logits + r * shape.padded_tokens, sums + r);
  }
}

// How many elements of scratch memory `attend` needs.
template <typename T>
inline int64_t attend_scratch(const AttentionShape<T>& shape) {
  return shape.padded_tokens * shape.padded_dim * 4 + shape.block * (shape.padded_tokens + 1);
}

// outs[n][offset ..] = softmax(scale * q k^T) v for the head whose channels start at `offset`;
// tokens whose outs[n] is null are computed as keys alone.
template <typename In, typename Out>
inline void attend(
    const AttentionShape<Compute<In>>& shape,
    const In* const* rows,
    int64_t channels,
    int64_t offset,
    Compute<In> scale,
    Out* const* outs,
    Compute<In>* scratch) {
  using T = Compute<In>;
  const int64_t area = shape.padded_tokens * shape.padded_dim;
  T* q = scratch;
  T* k_transposed = q + area;
  T* v = k_transposed + area;
  T* out = v + area;
  T* logits = out + area;
  T* sums = logits + shape.block * shape.padded_tokens;

  gather_rows(shape, rows, offset, static_cast<T>(scale * kLog2OfE), q);
  gather_transposed(shape, rows, channels + offset, v, k_transposed);
  gather_rows(shape, rows, 2 * channels + offset, T(1), v);
  for (int64_t first = 0; first < shape.tokens; first += shape.block) {
    const int64_t count = shape.tokens - first < shape.block ? shape.tokens - first : shape.block;
    gemm<T, false>(
        count,
        shape.padded_tokens / kLanes<T>,
        shape.head_dim,
        q + first * shape.padded_dim,
        shape.padded_dim,
        1,
        k_transposed,
        shape.padded_tokens,
        logits,
        shape.padded_tokens);
    exponentials(shape, count, logits, sums);
    gemm<T, false>(
        count,
        shape.padded_dim / kLanes<T>,
        shape.tokens,
        logits,
        shape.padded_tokens,
        1,
        v,
        shape.padded_dim,
        out,
        shape.padded_dim);
    for (int64_t r = 0; r < count; r++) {
      if (outs[first + r] != nullptr) {
        scale_row_out(
            out + r * shape.padded_dim, 1 / sums[r], outs[first + r] + offset, shape.head_dim);
      }
    }
  }
}

template <typename T>
inline int64_t attend_backward_scratch(const AttentionShape<T>& shape) {
  return shape.padded_tokens * shape.padded_dim * 9 + shape.block * (2 * shape.padded_tokens + 1);
}

// The gradients of q, k and v of one head, from the rows of the forward pass and the gradient of
// its result (grads[n] null: zero). Adds nothing: writes dq, dk, dv, rows of padded_dim, for every
// token of the window into scratch memory and returns where: {dq, dk, dv}.
template <typename In>
inline void attend_backward(
    const AttentionShape<Compute<In>>& shape,
    const In* const* rows,
    int64_t channels,
    int64_t offset,
    Compute<In> scale,
    const In* const* grads,
    Compute<In>* scratch,
    Compute<In>* results[3]) {
  using T = Compute<In>;
  const int64_t area = shape.padded_tokens * shape.padded_dim;
  T* q = scratch;
  T* k = q + area;
  T* k_transposed = k + area;
  T* v_transposed = k_transposed + area;
  T* grad = v_transposed + area;
  T* dq = grad + area;
  T* dk = dq + area;
  T* dv = dk + area;
  T* v = dv + area;
  T* weights = v + area;
  T* slopes = weights + shape.block * shape.padded_tokens;
  T* sums = slopes + shape.block * shape.padded_tokens;

  gather_rows(shape, rows, offset, static_cast<T>(scale * kLog2OfE), q);
  gather_rows(shape, rows, channels + offset, T(1), k);
  gather_rows(shape, rows, 2 * channels + offset, T(1), v);
  transpose_rows(shape, k, k_transposed);
  transpose_rows(shape, v, v_transposed);
  for (int64_t n = 0; n < shape.tokens; n++) {
    T* row = grad + n * shape.padded_dim;
    int64_t d = 0;
    if (grads[n] != nullptr) {
      scale_row(grads[n] + offset, T(1), row, shape.head_dim);
      d = shape.head_dim;
    }
    for (; d < shape.padded_dim; d++) {
      row[d] = 0;
    }
  }
  for (int64_t i = 0; i < shape.tokens * shape.padded_dim; i++) {
    dk[i] = 0;
    dv[i] = 0;
  }

  for (int64_t first = 0; first < shape.tokens; first += shape.block) {
    const int64_t count = shape.tokens - first < shape.block ? shape.tokens - first : shape.block;
    const T* q_rows = q + first * shape.padded_dim;
    const T* grad_rows = grad + first * shape.padded_dim;
    const int64_t key_vectors = shape.padded_tokens / kLanes<T>;
    const int64_t dim_vectors = shape.padded_dim / kLanes<T>;
    gemm<T, false>(
        count,
        key_vectors,
        shape.head_dim,
        q_rows,
        shape.padded_dim,
        1,
        k_transposed,
        shape.padded_tokens,
        weights,
        shape.padded_tokens);
    exponentials(shape, count, weights, sums);
    gemm<T, false>(
        count,
        key_vectors,
        shape.head_dim,
        grad_rows,
        shape.padded_dim,
        1,
        v_transposed,
        shape.padded_tokens,
        slopes,
        shape.padded_tokens);
    // weights become the softmax P, slopes the gradient of the logits: P * (dP - sum(P * dP)).
    for (int64_t r = 0; r < count; r++) {
      T* weight = weights + r * shape.padded_tokens;
      T* slope = slopes + r * shape.padded_tokens;
      const T inverse = 1 / sums[r];
      Vec<T> dot = {};
      for (int64_t n = 0; n < shape.padded_tokens; n += kLanes<T>) {
        const Vec<T> p = inverse * load(weight + n);
        store(weight + n, p);
        dot += p * load(slope + n);
      }
      dot = sum_in_all_lanes<T>(dot);
      for (int64_t n = 0; n < shape.padded_tokens; n += kLanes<T>) {
        store(slope + n, load(weight + n) * (load(slope + n) - dot));
      }
    }
    gemm<T, false>(
        count,
        dim_vectors,
        shape.tokens,
        slopes,
        shape.padded_tokens,
        1,
        k,
        shape.padded_dim,
        dq + first * shape.padded_dim,
        shape.padded_dim);
    gemm<T, true>(
        shape.tokens,
        dim_vectors,
        count,
        slopes,
        1,
        shape.padded_tokens,
        q_rows,
        shape.padded_dim,
        dk,
        shape.padded_dim);
    gemm<T, true>(
        shape.tokens,
        dim_vectors,
        count,
        weights,
        1,
        shape.padded_tokens,
        grad_rows,
        shape.padded_dim,
        dv,
        shape.padded_dim);
  }
  // q carries scale * log2(e): dk wants scale alone.
  for (int64_t i = 0; i < shape.tokens * shape.padded_dim; i++) {
    dq[i] *= scale;
    dk[i] *= static_cast<T>(1 / kLog2OfE);
  }
  results[0] = dq;
  results[1] = dk;
  results[2] = dv;
}
