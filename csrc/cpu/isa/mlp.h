// The MLP of a block, forward and backward, on rows that stay in the cache. Included by kernel files
// inside for_each_isa.h, after gelu.h and packed_gemm.h.

// sums[count x C] += fc2(gelu(fc1(x))) without fc2's bias. The hidden channels come in blocks, so that
// they never leave the cache; `hidden` has room for one.
inline void add_mlp(
    const MlpWeights& mlp, int64_t count, const float* x, float* hidden, float* sums) {
  const int64_t channels = mlp.channels;
  for (int64_t first = 0; first < mlp.hidden; first += mlp.block) {
    const int64_t left = mlp.hidden - first;
    const int64_t width = left < mlp.block ? left : mlp.block;
    gemm_packed<float, false>(
        count, width, channels, x, channels, mlp.fc1 + first * channels, hidden, width);
    for (int64_t n = 0; n < count; n++) {
      float* row = hidden + n * width;
      for (int64_t c = 0; c < width; c += kLanes<float>) {
        store(row + c, gelu(load(row + c) + load(mlp.fc1_bias + first + c)));
      }
    }
    gemm_packed<float, true>(
        count, channels, width, hidden, width, mlp.fc2 + first * channels, sums, channels);
  }
}
