// Rows of token ids with what is to be predicted, and packed batches of them: sequences back to
// back, no padding.
#ifndef DIMMER_TRAINING_BATCH_H_
#define DIMMER_TRAINING_BATCH_H_

#include <cstdint>
#include <span>
#include <vector>

namespace dimmer {

struct Example {
  std::vector<int32_t> ids;
  std::vector<int32_t> type_ids;  // classification: as long as ids; else empty
  int32_t label = 0;              // classification: of the row
  // Language models: the id that follows each of `ids`; else empty.
  std::vector<int32_t> next_ids;

  // What the loss is a mean of: rows, or predicted tokens.
  uint64_t targets() const { return next_ids.empty() ? 1 : next_ids.size(); }
};

struct PackedBatch {
  std::vector<int64_t> ids, positions, type_ids;  // [tokens]
  std::vector<int32_t> offsets{0};                // [sequences + 1]
  std::vector<int64_t> labels;                    // [sequences]
  std::vector<int64_t> next_ids;                  // [tokens], or empty

  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
  int64_t sequences() const { return static_cast<int64_t>(labels.size()); }
  int64_t targets() const {
    return next_ids.empty() ? sequences() : static_cast<int64_t>(next_ids.size());
  }
  void Add(const Example& example);
};

PackedBatch Pack(std::span<const Example> examples, std::span<const uint32_t> rows);

// Deals `rows` out to `workers` parts of about equally many tokens (longest first to the lightest
// part); each part in ascending position. Deterministic.
std::vector<std::vector<uint32_t>> DealOut(std::span<const Example> examples,
                                           std::span<const uint32_t> rows, uint32_t workers);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_BATCH_H_
