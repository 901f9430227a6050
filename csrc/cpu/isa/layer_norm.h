// Layer normalisation of one token. Included by kernel files inside for_each_isa.h, after vec.h.

// to = (from - mean) / sqrt(variance + eps) * weight + bias over `channels`, whole vectors.
inline void normalise_row(
    const float* from,
    const float* weight,
    const float* bias,
    float eps,
    int64_t channels,
    float* to) {
  constexpr int kWidth = kLanes<float>;
  Vec<float> sum = {};
  for (int64_t c = 0; c < channels; c += kWidth) {
    sum += load(from + c);
  }
  const Vec<float> mean = sum_in_all_lanes<float>(sum) / static_cast<float>(channels);
  Vec<float> squares = {};
  for (int64_t c = 0; c < channels; c += kWidth) {
    const Vec<float> centred = load(from + c) - mean;
    squares += centred * centred;
  }
  const float variance = sum_of_lanes<float>(squares) / static_cast<float>(channels);
  const float factor = 1.0f / __builtin_sqrtf(variance + eps);
  for (int64_t c = 0; c < channels; c += kWidth) {
    const Vec<float> centred = load(from + c) - mean;
    store(to + c, centred * factor * load(weight + c) + load(bias + c));
  }
}
