#include "training/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <queue>

#include "engine/text/byte_alphabet.h"
#include "engine/text/gpt2_words.h"
#include "engine/text/utf8.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr uint64_t kMinVocab = 257, kMaxVocab = 1u << 20;
constexpr uint64_t kProgressEvery = 64;  // tokens

struct Word {
  std::vector<uint32_t> symbols;
  int64_t count = 0;
};

// Left and right id; the order of the number is that of the pairs.
using Pair = uint64_t;
Pair PairOf(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }
uint32_t LeftOf(Pair pair) { return static_cast<uint32_t>(pair >> 32); }
uint32_t RightOf(Pair pair) { return static_cast<uint32_t>(pair); }

struct Candidate {
  int64_t count;
  Pair pair;
  // For a heap: the best is the largest.
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class Trainer {
 public:
  explicit Trainer(const WordCounts& counts) {
    AddFirstTokens();
    AddWords(counts);
    for (uint32_t w = 0; w < words_.size(); ++w) {
      const Word& word = words_[w];
      for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
        Change(PairOf(word.symbols[i], word.symbols[i + 1]), word.count, w);
      }
    }
    QueueTouched();
  }

  size_t size() const { return result_.tokens.size(); }
  BpeTraining TakeResult() { return std::move(result_); }

  // Merges the most frequent pair; false if none occurs `min_count` times.
  bool MergeBest(int64_t min_count) {
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      PairState& state = pairs_[top.pair];
      if (state.count != top.count) {  // it lost some since
        if (state.count > 0) queue_.push({state.count, top.pair});
        continue;
      }
      if (top.count < min_count) return false;
      Merge(top.pair, std::exchange(state.words, {}));
      return true;
    }
    return false;
  }

 private:
  struct PairState {
    int64_t count = 0;
    std::vector<uint32_t> words;  // where it is, and maybe was; the last one at most once
  };

  void AddToken(const std::string& token) {
    ids_.emplace(token, static_cast<uint32_t>(size()));
    result_.tokens.push_back(token);
  }

  void AddFirstTokens() {
    AddToken(kEndOfText);
    std::array<char32_t, 256> letters = ByteAlphabet();
    std::sort(letters.begin(), letters.end());
    for (const char32_t letter : letters) {
      std::string token;
      AppendUtf8(letter, token);
      AddToken(token);
    }
  }

  // In the order of their bytes, so that nothing depends on the map's.
  void AddWords(const WordCounts& counts) {
    std::array<uint32_t, 256> byte_ids;
    for (size_t byte = 0; byte < 256; ++byte) {
      byte_ids[byte] = ids_.at(BytesToLetters(std::string(1, static_cast<char>(byte))));
    }
    std::vector<const WordCounts::value_type*> sorted;
    sorted.reserve(counts.size());
    for (const auto& entry : counts) sorted.push_back(&entry);
    std::sort(sorted.begin(), sorted.end(),
              [](const auto* a, const auto* b) { return a->first < b->first; });
    for (const auto* entry : sorted) {
      Word word;
      word.count = static_cast<int64_t>(entry->second);
      for (const char c : entry->first) {
        word.symbols.push_back(byte_ids[static_cast<unsigned char>(c)]);
      }
      words_.push_back(std::move(word));
    }
  }

  // The pair occurs `by` times more (or less) in word `w`.
  void Change(Pair pair, int64_t by, uint32_t w) {
    PairState& state = pairs_[pair];
    state.count += by;
    if (by <= 0) return;
    if (state.words.empty() || state.words.back() != w) state.words.push_back(w);
    touched_.push_back(pair);
  }

  // Candidates for the pairs that became more frequent.
  void QueueTouched() {
    std::sort(touched_.begin(), touched_.end());
    touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
    for (const Pair pair : touched_) {
      const int64_t count = pairs_[pair].count;
      if (count > 0) queue_.push({count, pair});
    }
    touched_.clear();
  }

  void Merge(Pair pair, const std::vector<uint32_t>& where) {
    const std::string& left = result_.tokens[LeftOf(pair)];
    const std::string& right = result_.tokens[RightOf(pair)];
    const std::string token = left + right;
    result_.merges.emplace_back(left, right);
    const auto known = ids_.find(token);  // two pairs may make one token
    const uint32_t id = known != ids_.end() ? known->second : static_cast<uint32_t>(size());
    if (known == ids_.end()) AddToken(token);
    for (const uint32_t w : where) MergeIn(w, pair, id);
    QueueTouched();
  }

  void MergeIn(uint32_t w, Pair pair, uint32_t id) {
    Word& word = words_[w];
    std::vector<uint32_t>& symbols = word.symbols;
    size_t kept = 0;
    for (size_t i = 0; i < symbols.size(); ++kept) {
      const bool found = i + 1 < symbols.size() && PairOf(symbols[i], symbols[i + 1]) == pair;
      if (!found) {
        symbols[kept] = symbols[i++];
        continue;
      }
      if (kept > 0) {
        Change(PairOf(symbols[kept - 1], LeftOf(pair)), -word.count, w);
        Change(PairOf(symbols[kept - 1], id), word.count, w);
      }
      if (i + 2 < symbols.size()) {
        Change(PairOf(RightOf(pair), symbols[i + 2]), -word.count, w);
        Change(PairOf(id, symbols[i + 2]), word.count, w);
      }
      Change(pair, -word.count, w);
      symbols[kept] = id;
      i += 2;
    }
    symbols.resize(kept);
  }

  BpeTraining result_;
  absl::flat_hash_map<std::string, uint32_t> ids_;
  std::vector<Word> words_;
  absl::flat_hash_map<Pair, PairState> pairs_;
  std::vector<Pair> touched_;
  std::priority_queue<Candidate> queue_;
};

}  // namespace

void CountWords(std::string_view text, WordCounts& counts) {
  while (!text.empty()) {
    const size_t end = std::min(text.find(kEndOfText), text.size());
    std::string_view part = text.substr(0, end);
    while (!part.empty()) {
      const size_t length = FirstGpt2Word(part);
      ++counts[std::string(part.substr(0, length))];
      part.remove_prefix(length);
    }
    text.remove_prefix(std::min(end + sizeof(kEndOfText) - 1, text.size()));
  }
}

absl::StatusOr<BpeTraining> TrainBpe(const WordCounts& counts, uint64_t vocab_size,
                                     uint64_t min_count,
                                     const std::function<void(uint64_t tokens)>& progress) {
  if (vocab_size < kMinVocab || vocab_size > kMaxVocab) {
    return absl::InvalidArgumentError(fmt::format("vocabulary size: found {}, expected {} to {}",
                                                  vocab_size, kMinVocab, kMaxVocab));
  }
  Trainer trainer(counts);
  const auto least = static_cast<int64_t>(std::max<uint64_t>(min_count, 1));
  while (trainer.size() < vocab_size && trainer.MergeBest(least)) {
    if (progress && trainer.size() % kProgressEvery == 0) progress(trainer.size());
  }
  return trainer.TakeResult();
}

}  // namespace dimmer
