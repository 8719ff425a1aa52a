#include "engine/text/bpe_merges.h"

#include <algorithm>
#include <array>
#include <functional>

namespace dimmer {
namespace {

// Up to so many symbols, looking at every pair again is quicker than keeping a heap of them.
constexpr size_t kShort = 32;

uint64_t KeyOf(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

BpeMerges::BpeMerges(std::span<const BpeMerge> merges) {
  pairs_.reserve(merges.size());
  for (const BpeMerge& merge : merges) {
    pairs_[KeyOf(merge.left, merge.right)] = {merge.rank, merge.result};
  }
}

BpeMerges::Found BpeMerges::Find(int32_t left, int32_t right) const {
  const auto it = pairs_.find(KeyOf(left, right));
  return it == pairs_.end() ? Found() : it->second;
}

void BpeMerges::Apply(std::vector<int32_t>& symbols, Scratch& scratch) const {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShort) {
    ApplyToShort(symbols);
  } else {
    ApplyToLong(symbols, scratch);
  }
}

void BpeMerges::ApplyToShort(std::vector<int32_t>& symbols) const {
  std::array<Found, kShort> pairs;  // pairs[i]: of symbols i and i + 1
  size_t n = symbols.size();
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = Find(symbols[i], symbols[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNoRank) break;
    symbols[best] = pairs[best].result;
    for (size_t i = best + 1; i + 1 < n; ++i) {
      symbols[i] = symbols[i + 1];
      pairs[i] = pairs[i + 1];
    }
    --n;
    if (best > 0) pairs[best - 1] = Find(symbols[best - 1], symbols[best]);
    if (best + 1 < n) pairs[best] = Find(symbols[best], symbols[best + 1]);
  }
  symbols.resize(n);
}

// A linked list of symbols and a heap of (rank, position) of its pairs. A pair that changed since
// it went into the heap is known by its rank and skipped.
void BpeMerges::ApplyToLong(std::vector<int32_t>& symbols, Scratch& scratch) const {
  const auto n = static_cast<uint32_t>(symbols.size());
  std::vector<uint64_t>& heap = scratch.heap;
  std::vector<uint32_t>& ranks = scratch.ranks;
  std::vector<uint32_t>& next = scratch.next;
  std::vector<uint32_t>& previous = scratch.previous;
  heap.clear();
  ranks.assign(n, kNoRank);
  next.resize(n);
  previous.resize(n);
  for (uint32_t i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;  // of the first one: never used
    if (i + 1 < n) ranks[i] = Find(symbols[i], symbols[i + 1]).rank;
    if (ranks[i] != kNoRank) heap.push_back(uint64_t{ranks[i]} << 32 | i);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto look_again = [&](uint32_t at) {
    ranks[at] = next[at] < n ? Find(symbols[at], symbols[next[at]]).rank : kNoRank;
    if (ranks[at] == kNoRank) return;
    heap.push_back(uint64_t{ranks[at]} << 32 | at);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto at = static_cast<uint32_t>(top);
    if (ranks[at] != static_cast<uint32_t>(top >> 32)) continue;
    const uint32_t gone = next[at];
    symbols[at] = Find(symbols[at], symbols[gone]).result;
    ranks[gone] = kNoRank;
    next[at] = next[gone];
    if (next[at] < n) previous[next[at]] = at;
    look_again(at);
    if (at > 0) look_again(previous[at]);
  }
  size_t kept = 0;
  for (uint32_t i = 0; i < n; i = next[i]) symbols[kept++] = symbols[i];
  symbols.resize(kept);
}

}  // namespace dimmer
