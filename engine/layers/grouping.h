// From a mask per token to a list of rows per expert. A pure function.
#ifndef DIMMER_ENGINE_LAYERS_GROUPING_H_
#define DIMMER_ENGINE_LAYERS_GROUPING_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace dimmer {

// `mask` [tokens, experts] of 0 and 1; `rows` [tokens] are the tokens' row numbers, ascending.
// offsets [experts + 1]: expert n's rows are group_rows[offsets[n], offsets[n + 1]), ascending.
// `group_rows` has room for as many entries as the mask has ones. Returns their number.
size_t GroupByExpert(std::span<const uint8_t> mask, std::span<const uint32_t> rows, size_t experts,
                     std::span<uint32_t> offsets, std::span<uint32_t> group_rows);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_GROUPING_H_
