// Small matrix products on memory that lies in the cache: what attention and the fused block are
// made of. Included by kernel files inside for_each_isa.h, after vec.h.
//
// One tile of C stays in registers while k runs: rows x vectors accumulators, enough of them to
// hide the latency of a multiply-add, few enough to leave room for a row of B.

constexpr int kMaxTileVectors = IWIN_VECTOR_REGISTERS >= 32 ? 4 : 2;

// The most rows of a tile that is `vectors` wide.
constexpr int max_tile_rows(int vectors) {
  return IWIN_VECTOR_REGISTERS >= 32 ? (vectors == 4 ? 6 : vectors == 3 ? 8 : 12)
                                     : (vectors == 2 ? 6 : 8);
}

// C[rows x vectors] = (or +=) A[rows x depth] * B[depth x vectors]. A is read one scalar at a time,
// at row * a_row + k * a_depth, so it may be transposed.
template <typename T, int kRows, int kVectors, bool kAdd>
__attribute__((noinline)) void gemm_tile(
    int64_t depth,
    const T* a,
    int64_t a_row,
    int64_t a_depth,
    const T* b,
    int64_t b_depth,
    T* c,
    int64_t c_row) {
  Vec<T> sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) {
      sum[r][v] = Vec<T>{};
    }
  }
  for (int64_t k = 0; k < depth; k++) {
    Vec<T> row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) {
      row[v] = load(b + k * b_depth + v * kLanes<T>);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; r++) {
      const T scalar = a[r * a_row + k * a_depth];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) {
        sum[r][v] += scalar * row[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) {
      // What is there already comes last: the terms would lose digits against a large sum.
      T* to = c + r * c_row + v * kLanes<T>;
      store(to, kAdd ? load(to) + sum[r][v] : sum[r][v]);
    }
  }
}

template <typename T, int kRows, int kVectors, bool kAdd>
inline void gemm_rows(
    int rows,
    int64_t depth,
    const T* a,
    int64_t a_row,
    int64_t a_depth,
    const T* b,
    int64_t b_depth,
    T* c,
    int64_t c_row) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      gemm_tile<T, kRows, kVectors, kAdd>(depth, a, a_row, a_depth, b, b_depth, c, c_row);
    } else {
      gemm_rows<T, kRows - 1, kVectors, kAdd>(
          rows, depth, a, a_row, a_depth, b, b_depth, c, c_row);
    }
  }
}

// One panel of `kVectors` vectors, for any number of rows: split into tiles of nearly equal height,
// since a tile of one row would wait for its own additions.
template <typename T, int kVectors, bool kAdd>
inline void gemm_panel(
    int64_t rows,
    int64_t depth,
    const T* a,
    int64_t a_row,
    int64_t a_depth,
    const T* b,
    int64_t b_depth,
    T* c,
    int64_t c_row) {
  constexpr int kMax = max_tile_rows(kVectors);
  const int64_t tiles = (rows + kMax - 1) / kMax;
  int64_t first = 0;
  for (int64_t tile = 0; tile < tiles; tile++) {
    const int64_t height = rows / tiles + (tile < rows % tiles ? 1 : 0);
    gemm_rows<T, kMax, kVectors, kAdd>(
        static_cast<int>(height),
        depth,
        a + first * a_row,
        a_row,
        a_depth,
        b,
        b_depth,
        c + first * c_row,
        c_row);
    first += height;
  }
}

// How wide the next panel is when `left` vectors are left. Five as 3 + 2 rather than 4 + 1: a narrow
// panel reads more of A than it multiplies.
inline int64_t panel_vectors(int64_t left) {
  if (left > kMaxTileVectors && left < 2 * kMaxTileVectors) {
    return (left + 1) / 2;
  }
  return left < kMaxTileVectors ? left : kMaxTileVectors;
}

// C[rows x vectors * lanes] = (or +=) A[rows x depth] * B[depth x vectors * lanes]. Rows of B and C
// are whole vectors: the caller pads them.
template <typename T, bool kAdd>
inline void gemm(
    int64_t rows,
    int64_t vectors,
    int64_t depth,
    const T* a,
    int64_t a_row,
    int64_t a_depth,
    const T* b,
    int64_t b_depth,
    T* c,
    int64_t c_row) {
  while (vectors > 0) {
    const int64_t panel = panel_vectors(vectors);
    switch (panel) {
      case 1:
        gemm_panel<T, 1, kAdd>(rows, depth, a, a_row, a_depth, b, b_depth, c, c_row);
        break;
      case 2:
        gemm_panel<T, 2, kAdd>(rows, depth, a, a_row, a_depth, b, b_depth, c, c_row);
        break;
      case 3:
        if constexpr (kMaxTileVectors >= 3) {
          gemm_panel<T, 3, kAdd>(rows, depth, a, a_row, a_depth, b, b_depth, c, c_row);
        }
        break;
      default:
        if constexpr (kMaxTileVectors >= 4) {
          gemm_panel<T, 4, kAdd>(rows, depth, a, a_row, a_depth, b, b_depth, c, c_row);
        }
        break;
    }
    b += panel * kLanes<T>;
    c += panel * kLanes<T>;
    vectors -= panel;
  }
}
