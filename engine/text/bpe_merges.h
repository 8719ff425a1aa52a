// Byte-pair merges (Sennrich et al., 2016): of all neighbours in a word, the pair of the lowest
// rank becomes one token, leftmost first, until no pair is left.
#ifndef DIMMER_ENGINE_TEXT_BPE_MERGES_H_
#define DIMMER_ENGINE_TEXT_BPE_MERGES_H_

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace dimmer {

struct BpeMerge {
  int32_t left = 0, right = 0;  // token ids
  int32_t result = 0;
  uint32_t rank = 0;  // lower merges first; equal ranks merge from left to right
};

// Immutable; safe for concurrent use.
class BpeMerges {
 public:
  // Memory that Apply() uses again and again; one per thread.
  struct Scratch {
    std::vector<uint64_t> heap;
    std::vector<uint32_t> ranks, next, previous;
  };

  // Of two merges of one pair the later counts, as in the reference. Ranks are below 2^32 - 1.
  explicit BpeMerges(std::span<const BpeMerge> merges);

  // Merges `symbols`, the ids of a word's smallest parts, in place. Ids that no merge names, such
  // as -1 for an unknown part, stay. O(n log n) for n symbols.
  void Apply(std::vector<int32_t>& symbols, Scratch& scratch) const;

 private:
  static constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();
  struct Found {
    uint32_t rank = kNoRank;
    int32_t result = 0;
  };

  Found Find(int32_t left, int32_t right) const;
  void ApplyToShort(std::vector<int32_t>& symbols) const;
  void ApplyToLong(std::vector<int32_t>& symbols, Scratch& scratch) const;

  absl::flat_hash_map<uint64_t, Found> pairs_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_BPE_MERGES_H_
