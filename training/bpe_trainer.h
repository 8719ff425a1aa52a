// Training of a byte-level BPE (Sennrich et al., 2016; bytes and words as GPT-2 has them): of all
// pairs of neighbours in the words of a corpus, the most frequent one becomes a token, again and
// again. Of equally frequent ones the pair of the lower ids does, as in the trainer of Hugging
// Face's tokenizers, so that a corpus has one result.
#ifndef DIMMER_TRAINING_BPE_TRAINER_H_
#define DIMMER_TRAINING_BPE_TRAINER_H_

#include <absl/container/flat_hash_map.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dimmer {

inline constexpr char kEndOfText[] = "<|endoftext|>";

using WordCounts = absl::flat_hash_map<std::string, uint64_t>;

// Counts the words of `text`, which is valid UTF-8, as raw bytes. "<|endoftext|>" ends a text and
// is no word.
void CountWords(std::string_view text, WordCounts& counts);

struct BpeTraining {
  // By id: <|endoftext|>, the letters of the 256 bytes by code point, then what was merged.
  std::vector<std::string> tokens;
  std::vector<std::pair<std::string, std::string>> merges;  // in order, as letters
};

// Pure: the result depends on the arguments alone. Ends early, with fewer tokens, where no pair is
// left that occurs `min_count` times. `progress`, if there is one, hears the number of tokens so
// far now and then. InvalidArgument: vocab_size is not 257 to 2^20.
absl::StatusOr<BpeTraining> TrainBpe(const WordCounts& counts, uint64_t vocab_size,
                                     uint64_t min_count,
                                     const std::function<void(uint64_t tokens)>& progress);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_BPE_TRAINER_H_
