// Products with the weights of a linear layer, which are packed first: in panels as wide as a tile,
// so that what a tile reads lies together. Included by kernel files inside for_each_isa.h, after
// gemm.h.

// to = the transpose of w[outputs x depth] (rows `stride` apart), in panels of `outputs`: panel
// after panel, within a panel [depth x panel]. Both are whole vectors.
template <typename T>
inline void pack_weight(int64_t outputs, int64_t depth, const T* w, int64_t stride, T* to) {
  constexpr int kWidth = kLanes<T>;
  const int64_t vectors = outputs / kWidth;
  for (int64_t first = 0; first < vectors;) {
    const int64_t panel = panel_vectors(vectors - first);
    for (int64_t k = 0; k < depth; k += kWidth) {
      for (int64_t v = 0; v < panel; v++) {
        Vec<T> square[kWidth];
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; i++) {
          square[i] = load(w + ((first + v) * kWidth + i) * stride + k);
        }
        transpose_square<T>(square);
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; i++) {
          store(to + ((k + i) * panel + v) * kWidth, square[i]);
        }
      }
    }
    to += depth * panel * kWidth;
    first += panel;
  }
}

// The same for the transposed product: to = w[depth x outputs] itself, in panels.
template <typename T>
inline void pack_rows(int64_t outputs, int64_t depth, const T* w, int64_t stride, T* to) {
  constexpr int kWidth = kLanes<T>;
  const int64_t vectors = outputs / kWidth;
  for (int64_t first = 0; first < vectors;) {
    const int64_t panel = panel_vectors(vectors - first);
    for (int64_t k = 0; k < depth; k++) {
      for (int64_t v = 0; v < panel; v++) {
        store(to + (k * panel + v) * kWidth, load(w + k * stride + (first + v) * kWidth));
      }
    }
    to += depth * panel * kWidth;
    first += panel;
  }
}

// C[rows x outputs] = (or +=) A[rows x depth] * a packed weight.
template <typename T, bool kAdd>
inline void gemm_packed(
    int64_t rows,
    int64_t outputs,
    int64_t depth,
    const T* a,
    int64_t a_row,
    const T* packed,
    T* c,
    int64_t c_row) {
  const int64_t vectors = outputs / kLanes<T>;
  for (int64_t first = 0; first < vectors;) {
    const int64_t panel = panel_vectors(vectors - first);
    gemm<T, kAdd>(
        rows, panel, depth, a, a_row, 1, packed, panel * kLanes<T>, c + first * kLanes<T>, c_row);
    packed += depth * panel * kLanes<T>;
    first += panel;
  }
}
