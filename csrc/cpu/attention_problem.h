// A projected map in memory, and the tokens of its windows. Included by the kernel files that
// compute attention.
#pragma once

#include <cstdint>

#include "../attention_map.h"
#include "../interleaved_window.h"

namespace iwin_d2 {

// Pointers to the tokens of a window that lie in the map, one after another; returns how many.
template <typename In>
int64_t find_tokens(const WindowGrid& grid, int64_t window, const Map<In>& map, In** tokens) {
  int64_t count = 0;
  for_each_token(grid, window, [&](int64_t, const TokenPlace& place) {
    if (place.inside) {
      tokens[count++] = map.at(place);
    }
  });
  return count;
}

template <typename In>
struct Problem {
  WindowGrid grid;
  int64_t num_heads;
  int64_t channels;  // of the result: a third of qkv's
  double scale;
  Map<const In> qkv;
  const In* padding;

  int64_t units() const { return grid.windows() * num_heads; }
};

}  // namespace iwin_d2
