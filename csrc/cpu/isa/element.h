// Elements of a tensor as what is computed in: a whole vector of them or a single one, so that a
// kernel written once serves both the vectors of a row and its tail. Included by kernel files
// inside for_each_isa.h, after vec.h and convert.h.

// As many lanes as Vec<float>.
typedef uint16_t HalfBits __attribute__((vector_size(IWIN_VECTOR_BYTES / 2)));
typedef uint32_t WordBits __attribute__((vector_size(IWIN_VECTOR_BYTES)));

inline Vec<float> load_vector(const float* from) {
  return load(from);
}

inline Vec<double> load_vector(const double* from) {
  return load(from);
}

inline Vec<float> load_vector(const BFloat16* from) {
  HalfBits halves;
  __builtin_memcpy(&halves, from, sizeof(halves));
  const WordBits words = __builtin_convertvector(halves, WordBits) << 16;
  Vec<float> value;
  __builtin_memcpy(&value, &words, sizeof(value));
  return value;
}

inline void store_vector(float* to, Vec<float> value) {
  store(to, value);
}

inline void store_vector(double* to, Vec<double> value) {
  store(to, value);
}

// Rounds as from_compute does.
inline void store_vector(BFloat16* to, Vec<float> value) {
  WordBits words;
  __builtin_memcpy(&words, &value, sizeof(words));
  words = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
  const WordBits nan = WordBits{} + 0x7fc0;
  words = value == value ? words : nan;
  const HalfBits halves = __builtin_convertvector(words, HalfBits);
  __builtin_memcpy(to, &halves, sizeof(halves));
}

// V is Vec<Compute<In>> or Compute<In>: how many elements there are to read.
template <typename V, typename In>
inline V read(const In* from) {
  if constexpr (sizeof(V) == sizeof(Compute<In>)) {
    return to_compute(*from);
  } else {
    return load_vector(from);
  }
}

template <typename V, typename Out>
inline void write(Out* to, V value) {
  if constexpr (sizeof(V) == sizeof(Compute<Out>)) {
    from_compute(value, to);
  } else {
    store_vector(to, value);
  }
}
