#include "training/batch.h"

#include <algorithm>
#include <numeric>

namespace dimmer {

void PackedBatch::Add(const Example& example) {
  for (size_t i = 0; i < example.ids.size(); ++i) {
    ids.push_back(example.ids[i]);
    positions.push_back(static_cast<int64_t>(i));
  }
  type_ids.insert(type_ids.end(), example.type_ids.begin(), example.type_ids.end());
  next_ids.insert(next_ids.end(), example.next_ids.begin(), example.next_ids.end());
  offsets.push_back(static_cast<int32_t>(ids.size()));
  labels.push_back(example.label);
}

PackedBatch Pack(std::span<const Example> examples, std::span<const uint32_t> rows) {
  PackedBatch batch;
  for (uint32_t row : rows) batch.Add(examples[row]);
  return batch;
}

std::vector<std::vector<uint32_t>> DealOut(std::span<const Example> examples,
                                           std::span<const uint32_t> rows, uint32_t workers) {
  std::vector<uint32_t> by_length(rows.size());  // positions in `rows`
  std::iota(by_length.begin(), by_length.end(), 0u);
  std::stable_sort(by_length.begin(), by_length.end(), [&](uint32_t a, uint32_t b) {
    return examples[rows[a]].ids.size() > examples[rows[b]].ids.size();
  });
  std::vector<std::vector<uint32_t>> parts(workers);
  std::vector<size_t> tokens(workers, 0);
  for (uint32_t position : by_length) {
    const size_t lightest = std::min_element(tokens.begin(), tokens.end()) - tokens.begin();
    parts[lightest].push_back(position);
    tokens[lightest] += examples[rows[position]].ids.size();
  }
  for (std::vector<uint32_t>& part : parts) {
    std::sort(part.begin(), part.end());
    for (uint32_t& position : part) position = rows[position];
  }
  return parts;
}

}  // namespace dimmer
