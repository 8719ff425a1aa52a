// Documents as token ids, and the two ways in which a language model sees them: blocks of a stream
// in training, one document at a time in measurements.
#ifndef DIMMER_TRAINING_BLOCKS_H_
#define DIMMER_TRAINING_BLOCKS_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "training/batch.h"
#include "training/training_data.h"

namespace dimmer {

// ids: the token before a text, the document, the token after it. The first is only read, the last
// only predicted.
struct TokenizedDocument {
  std::vector<int32_t> ids;
  uint64_t bytes = 0;  // of its text
};

// What stands before and after a document. A model that has been trained says what ends its texts,
// `end_ids`: its start token if that is among them, else the first. For a new one (no `end_ids`):
// <|endoftext|> twice where the tokenizer has it, else its tokens for the start and end of a text.
// InvalidArgument: it has neither.
struct DocumentEnds {
  int32_t before = 0, after = 0;
};
absl::StatusOr<DocumentEnds> EndsOf(const Tokenizer& tokenizer, std::span<const int32_t> end_ids);

absl::StatusOr<std::vector<TokenizedDocument>> TokenizeDocuments(
    const Tokenizer& tokenizer, const DocumentEnds& ends, std::span<const std::string> documents);

// A document in pieces of at most `context` ids, where each piece begins with the id that the one
// before ended with: every id but the first is predicted once. `context` is at least 2.
std::vector<std::vector<int32_t>> Windows(const TokenizedDocument& document, uint32_t context);

// The windows of all documents in order, as examples.
std::vector<Example> WindowExamples(std::span<const TokenizedDocument> documents, uint32_t context);

// Training: in every epoch the documents in a new order, one after the other, cut at a new offset
// into blocks of `context` predictions. A block may begin and end anywhere in a document, and hold
// several. Neither the order nor the cuts depend on anything but seed and epoch.
class BlockStream : public TrainingData {
 public:
  // The documents are not owned. Their tokens must fill a block.
  BlockStream(std::span<const TokenizedDocument> documents, uint32_t context, uint64_t seed);
  uint64_t rows() const override { return tokens_ / context_; }
  std::span<const Example> Epoch(uint64_t epoch) override;
  uint64_t tokens() const { return tokens_; }

 private:
  std::span<const TokenizedDocument> documents_;
  uint32_t context_;
  uint64_t seed_;
  uint64_t tokens_ = 0;  // one end of text per document
  std::vector<Example> blocks_;
};

}  // namespace dimmer

#endif  // DIMMER_TRAINING_BLOCKS_H_
