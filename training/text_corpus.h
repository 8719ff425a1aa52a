// The documents of a language model's training, read, split and tokenized: what pretraining and
// conversion share.
#ifndef DIMMER_TRAINING_TEXT_CORPUS_H_
#define DIMMER_TRAINING_TEXT_CORPUS_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "training/blocks.h"
#include "training/documents.h"

namespace dimmer {

struct TextOptions {
  std::string data;
  std::string exclude;     // documents never to be used; may be empty
  double held_out = 0.04;  // share of each of validation, calibration and test
  uint64_t seed = 1;       // of the split
};

// Reads, cleans and splits; `report` says what was read, dropped and used, with checksums.
struct SplitText {
  DocumentSplit split;
  nlohmann::json report;
};
absl::StatusOr<SplitText> ReadText(const TextOptions& options);

// One line of `report` for the log.
std::string DescribeText(const nlohmann::json& report);

struct TextCorpus {
  std::vector<TokenizedDocument> training, validation, calibration, test;
};
// Adds the numbers of tokens to `report`.
absl::StatusOr<TextCorpus> TokenizeText(const Tokenizer& tokenizer, const DocumentEnds& ends,
                                        const DocumentSplit& split, nlohmann::json& report);

// Two reports of the same file and the same split: a model pretrained under one of them has not
// seen what the other holds out.
bool SameSplit(const nlohmann::json& a, const nlohmann::json& b);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_TEXT_CORPUS_H_
