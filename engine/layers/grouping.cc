#include "engine/layers/grouping.h"

#include <algorithm>
#include <cstring>

namespace dimmer {
namespace {

// Calls visit(expert) for the experts that run, ascending. Most do not: eight bytes at a time.
template <typename F>
void ForEachExpert(const uint8_t* mask, size_t experts, const F& visit) {
  size_t n = 0;
  for (; n + 8 <= experts; n += 8) {
    uint64_t word;
    std::memcpy(&word, mask + n, sizeof(word));
    if (word == 0) continue;
    for (size_t i = 0; i < 8; ++i) {
      if (mask[n + i] != 0) visit(n + i);
    }
  }
  for (; n < experts; ++n) {
    if (mask[n] != 0) visit(n);
  }
}

}  // namespace

size_t GroupByExpert(std::span<const uint8_t> mask, std::span<const uint32_t> rows, size_t experts,
                     std::span<uint32_t> offsets, std::span<uint32_t> group_rows) {
  std::fill(offsets.begin(), offsets.begin() + experts + 1, 0u);
  for (size_t t = 0; t < rows.size(); ++t) {
    ForEachExpert(mask.data() + t * experts, experts, [&](size_t n) { ++offsets[n + 1]; });
  }
  for (size_t n = 0; n < experts; ++n) offsets[n + 1] += offsets[n];
  const size_t total = offsets[experts];
  for (size_t t = 0; t < rows.size(); ++t) {
    ForEachExpert(mask.data() + t * experts, experts,
                  [&](size_t n) { group_rows[offsets[n]++] = rows[t]; });
  }
  // Every offset has moved to the next one's place.
  for (size_t n = experts; n > 0; --n) offsets[n] = offsets[n - 1];
  offsets[0] = 0;
  return total;
}

}  // namespace dimmer
