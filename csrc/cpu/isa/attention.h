// Attention among the tokens of one window, for one head. Included by kernel files inside
// for_each_isa.h, after vec.h, convert.h, exp.h and gemm.h.
//
// Tokens come as pointers to their rows (q | k | v of all heads), wherever these lie: in a
// projected map, or in scratch memory. The padding's tokens are all the same, and what they ask for
// is cropped away: together they are one key more, which counts as often as there are of them.
// Nothing is stored per pair of tokens beyond a block of query rows that stays in the cache,
// whatever the size of the window.

template <typename T>
constexpr int64_t round_up_to_lanes(int64_t n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// Sizes of one window's attention.
template <typename T>
struct AttentionShape {
  int64_t queries;  // tokens of the map
  int64_t keys;  // the same, and one more for the padding's where there are any
  int64_t head_dim;
  int64_t padded_keys;  // whole vectors
  int64_t padded_dim;
  int64_t block;  // query rows at a time: their logits fill most of the first-level cache
  T last_bias;  // added to the last key's logits, in units of log 2: log2 of how often it counts

  static AttentionShape make(int64_t tokens, int64_t padding, int64_t head_dim) {
    constexpr int64_t kLogits = 40 * 1024 / sizeof(T);
    const int64_t keys = tokens + (padding > 0 ? 1 : 0);
    const int64_t padded_keys = round_up_to_lanes<T>(keys);
    const int64_t fitting = kLogits / padded_keys / 6 * 6;
    const int64_t block = fitting < 6 ? 6 : fitting;
    return {
        tokens,
        keys,
        head_dim,
        padded_keys,
        round_up_to_lanes<T>(head_dim),
        block < tokens ? block : tokens,
        static_cast<T>(padding > 1 ? __builtin_log2(static_cast<double>(padding)) : 0)};
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
template <typename In>
inline void gather_rows(
    const AttentionShape<Compute<In>>& shape,
    int64_t tokens,
    const In* const* rows,
    int64_t offset,
    Compute<In> factor,
    Compute<In>* to) {
  using T = Compute<In>;
  if constexpr (std::is_same_v<In, T>) {
    switch (shape.head_dim % kLanes<T> == 0 ? shape.head_dim / kLanes<T> : 0) {
      case 1:
        return gather_vectors<T, 1>(tokens, rows, offset, factor, to);
      case 2:
        return gather_vectors<T, 2>(tokens, rows, offset, factor, to);
      case 4:
        return gather_vectors<T, 4>(tokens, rows, offset, factor, to);
      case 8:
        return gather_vectors<T, 8>(tokens, rows, offset, factor, to);
    }
  }
  for (int64_t n = 0; n < tokens; n++) {
    T* row = to + n * shape.padded_dim;
    scale_row(rows[n] + offset, factor, row, shape.head_dim);
    for (int64_t d = shape.head_dim; d < shape.padded_dim; d++) {
      row[d] = 0;
    }
  }
}

// to[d][n] = from(n)[d] for keys n, rows of padded_dim, to rows of padded_keys; zeros beyond them.
template <typename T, typename From>
inline void transpose_from(const AttentionShape<T>& shape, const From& from, T* to) {
  constexpr int kWidth = kLanes<T>;
  for (int64_t n = 0; n < shape.padded_keys; n += kWidth) {
    for (int64_t d = 0; d < shape.padded_dim; d += kWidth) {
      Vec<T> square[kWidth];
      const int64_t valid = shape.keys - n;
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
        store(to + (d + i) * shape.padded_keys + n, square[i]);
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
  gather_rows(shape, shape.keys, rows, offset, Compute<In>(1), spare);
  transpose_rows(shape, spare, to);
}

// `exponentials` for kRows rows at once: one row alone would mostly wait for its own maximum.
template <typename T, int kRows>
inline void exponentials_of_rows(const AttentionShape<T>& shape, T* rows, T* sums) {
  constexpr int kWidth = kLanes<T>;
  const int64_t width = shape.padded_keys;
  const int valid = static_cast<int>(shape.keys - (width - kWidth));
  const T infinity = static_cast<T>(__builtin_inff());
  // Of the last vector: the last key's bias, and nothing beyond it.
  const Vec<T> bias = keep_first<T>(
      keep_first<T>(Vec<T>{}, valid - 1, shape.last_bias), valid, -infinity);
  Vec<T> maximum[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
    T* tail = rows + r * width + width - kWidth;
    maximum[r] = load(tail) + bias;
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

// Turns `count` rows of logits (in units of log 2) into weights 2^(logit - maximum), zeros
// beyond the keys; sums[r] becomes the sum of row r.
template <typename T>
inline void exponentials(const AttentionShape<T>& shape, int64_t count, T* logits, T* sums) {
  constexpr int kRows = 4;
  int64_t r = 0;
  for (; r + kRows <= count; r += kRows) {
    exponentials_of_rows<T, kRows>(shape, logits + r * shape.padded_keys, sums + r);
  }
  for (; r < count; r++) {
    exponentials_of_rows<T, 1>(shape, logits + r * shape.padded_keys, sums + r);
  }
}

// Elements of a block's logits, for windows of up to that many tokens: a window of fewer has larger
// blocks, but six rows more than this one's block would not fit the cache either.
template <typename T>
inline int64_t most_logits(const AttentionShape<T>& shape) {
  return (shape.block + 6) * shape.padded_keys;
}

// How many elements of scratch memory `attend` needs for windows of up to that many tokens.
template <typename T>
inline int64_t attend_scratch(int64_t tokens, int64_t head_dim) {
  const auto shape = AttentionShape<T>::make(tokens, 1, head_dim);
  return shape.padded_keys * shape.padded_dim * 4 + most_logits(shape) + tokens;
}

// outs[n][offset ..] = softmax(scale * q k^T) v of token n for the head whose channels start at
// `offset`. rows: of the keys, the padding's last.
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
  const int64_t area = shape.padded_keys * shape.padded_dim;
  T* q = scratch;
  T* k_transposed = q + area;
  T* v = k_transposed + area;
  T* out = v + area;
  T* logits = out + area;
  T* sums = logits + shape.block * shape.padded_keys;

  gather_rows(shape, shape.queries, rows, offset, static_cast<T>(scale * kLog2OfE), q);
  gather_transposed(shape, rows, channels + offset, v, k_transposed);
  gather_rows(shape, shape.keys, rows, 2 * channels + offset, T(1), v);
  for (int64_t first = 0; first < shape.queries; first += shape.block) {
    const int64_t left = shape.queries - first;
    const int64_t count = left < shape.block ? left : shape.block;
    gemm<T, false>(
        count,
        shape.padded_keys / kLanes<T>,
        shape.head_dim,
        q + first * shape.padded_dim,
        shape.padded_dim,
        1,
        k_transposed,
        shape.padded_keys,
        logits,
        shape.padded_keys);
    exponentials(shape, count, logits, sums);
    gemm<T, false>(
        count,
        shape.padded_dim / kLanes<T>,
        shape.keys,
        logits,
        shape.padded_keys,
        1,
        v,
        shape.padded_dim,
        out,
        shape.padded_dim);
    for (int64_t r = 0; r < count; r++) {
      scale_row_out(
          out + r * shape.padded_dim, 1 / sums[r], outs[first + r] + offset, shape.head_dim);
    }
  }
}

template <typename T>
inline int64_t attend_backward_scratch(int64_t tokens, int64_t head_dim) {
  const auto shape = AttentionShape<T>::make(tokens, 1, head_dim);
  return shape.padded_keys * shape.padded_dim * 9 + 2 * most_logits(shape) + tokens;
}

// The gradients of q, k and v of one head, from the rows of the forward pass and the gradients of
// its result, one for each query. They are written to scratch memory, in rows of padded_dim, and
// results = {dq, dk, dv} says where: dq for the queries, dk and dv for the keys, those of the
// padding's key being sums over all of its tokens.
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
  const int64_t area = shape.padded_keys * shape.padded_dim;
  T* q = scratch;
  T* k = q + area;
  T* k_transposed = k + area;
  T* v_transposed = k_transposed + area;
  T* grad = v_transposed + area;
  T* dq = grad + area;
  T* dk = dq + area;
  T* dv = dk + area;
  T* spare = dv + area;
  T* weights = spare + area;
  T* slopes = weights + shape.block * shape.padded_keys;
  T* sums = slopes + shape.block * shape.padded_keys;

  gather_rows(shape, shape.queries, rows, offset, static_cast<T>(scale * kLog2OfE), q);
  gather_rows(shape, shape.keys, rows, channels + offset, T(1), k);
  transpose_rows(shape, k, k_transposed);
  gather_transposed(shape, rows, 2 * channels + offset, spare, v_transposed);
  gather_rows(shape, shape.queries, grads, offset, T(1), grad);
  for (int64_t i = 0; i < shape.keys * shape.padded_dim; i++) {
    dk[i] = 0;
    dv[i] = 0;
  }

  for (int64_t first = 0; first < shape.queries; first += shape.block) {
    const int64_t left = shape.queries - first;
    const int64_t count = left < shape.block ? left : shape.block;
    const T* q_rows = q + first * shape.padded_dim;
    const T* grad_rows = grad + first * shape.padded_dim;
    const int64_t key_vectors = shape.padded_keys / kLanes<T>;
    const int64_t dim_vectors = shape.padded_dim / kLanes<T>;
    gemm<T, false>(
        count,
        key_vectors,
        shape.head_dim,
        q_rows,
        shape.padded_dim,
        1,
        k_transposed,
        shape.padded_keys,
        weights,
        shape.padded_keys);
    exponentials(shape, count, weights, sums);
    gemm<T, false>(
        count,
        key_vectors,
        shape.head_dim,
        grad_rows,
        shape.padded_dim,
        1,
        v_transposed,
        shape.padded_keys,
        slopes,
        shape.padded_keys);
    // weights become the softmax P, slopes the gradient of the logits: P * (dP - sum(P * dP)).
    for (int64_t r = 0; r < count; r++) {
      T* weight = weights + r * shape.padded_keys;
      T* slope = slopes + r * shape.padded_keys;
      const T inverse = 1 / sums[r];
      Vec<T> dot = {};
      for (int64_t n = 0; n < shape.padded_keys; n += kLanes<T>) {
        const Vec<T> p = inverse * load(weight + n);
        store(weight + n, p);
        dot += p * load(slope + n);
      }
      dot = sum_in_all_lanes<T>(dot);
      for (int64_t n = 0; n < shape.padded_keys; n += kLanes<T>) {
        store(slope + n, load(weight + n) * (load(slope + n) - dot));
      }
    }
    gemm<T, false>(
        count,
        dim_vectors,
        shape.keys,
        slopes,
        shape.padded_keys,
        1,
        k,
        shape.padded_dim,
        dq + first * shape.padded_dim,
        shape.padded_dim);
    gemm<T, true>(
        shape.keys,
        dim_vectors,
        count,
        slopes,
        1,
        shape.padded_keys,
        q_rows,
        shape.padded_dim,
        dk,
        shape.padded_dim);
    gemm<T, true>(
        shape.keys,
        dim_vectors,
        count,
        weights,
        1,
        shape.padded_keys,
        grad_rows,
        shape.padded_dim,
        dv,
        shape.padded_dim);
  }
  for (int64_t i = 0; i < shape.queries * shape.padded_dim; i++) {
    dq[i] *= scale;
  }
  // q carries scale * log2(e): dk wants scale alone.
  for (int64_t i = 0; i < shape.keys * shape.padded_dim; i++) {
    dk[i] *= static_cast<T>(1 / kLog2OfE);
  }
  results[0] = dq;
  results[1] = dk;
  results[2] = dv;
}
