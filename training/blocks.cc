#include "training/blocks.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "engine/util/status.h"
#include "training/documents.h"
#include "training/random.h"

namespace dimmer {

absl::StatusOr<DocumentEnds> EndsOf(const Tokenizer& tokenizer, std::span<const int32_t> end_ids) {
  const std::optional<int32_t> before = tokenizer.bos_id();
  if (!end_ids.empty()) {
    const bool starts =
        before && std::find(end_ids.begin(), end_ids.end(), *before) != end_ids.end();
    const int32_t after = starts ? *before : end_ids.front();
    return DocumentEnds{before.value_or(after), after};
  }
  for (size_t i = 0; i < tokenizer.vocab_size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (tokenizer.TokenOf(id) == kEndOfText) return DocumentEnds{id, id};
  }
  const std::optional<int32_t> after = tokenizer.eos_id();
  if (before.has_value() && after.has_value()) return DocumentEnds{*before, *after};
  return absl::InvalidArgumentError(
      fmt::format("the tokenizer has neither {} nor tokens for the start and end of a text, which "
                  "documents need",
                  kEndOfText));
}

absl::StatusOr<std::vector<TokenizedDocument>> TokenizeDocuments(
    const Tokenizer& tokenizer, const DocumentEnds& ends, std::span<const std::string> documents) {
  std::vector<TokenizedDocument> tokenized;
  tokenized.reserve(documents.size());
  for (const std::string& document : documents) {
    DIMMER_ASSIGN_OR_RETURN(
        const Encoding encoding,
        tokenizer.Encode(document, std::nullopt, {.add_special_tokens = false}));
    TokenizedDocument& added = tokenized.emplace_back();
    added.bytes = document.size();
    added.ids.push_back(ends.before);
    added.ids.insert(added.ids.end(), encoding.ids.begin(), encoding.ids.end());
    added.ids.push_back(ends.after);
  }
  return tokenized;
}

std::vector<std::vector<int32_t>> Windows(const TokenizedDocument& document, uint32_t context) {
  std::vector<std::vector<int32_t>> windows;
  const std::vector<int32_t>& ids = document.ids;
  for (size_t begin = 0; begin + 1 < ids.size(); begin += context - 1) {
    const size_t end = std::min(ids.size(), begin + context);
    windows.emplace_back(ids.begin() + static_cast<ptrdiff_t>(begin),
                         ids.begin() + static_cast<ptrdiff_t>(end));
  }
  return windows;
}

std::vector<Example> WindowExamples(std::span<const TokenizedDocument> documents,
                                    uint32_t context) {
  std::vector<Example> examples;
  for (const TokenizedDocument& document : documents) {
    for (const std::vector<int32_t>& window : Windows(document, context)) {
      Example& example = examples.emplace_back();
      example.ids.assign(window.begin(), window.end() - 1);
      example.next_ids.assign(window.begin() + 1, window.end());
    }
  }
  return examples;
}

BlockStream::BlockStream(std::span<const TokenizedDocument> documents, uint32_t context,
                         uint64_t seed)
    : documents_(documents), context_(context), seed_(seed) {
  for (const TokenizedDocument& document : documents) tokens_ += document.ids.size() - 1;
}

std::span<const Example> BlockStream::Epoch(uint64_t epoch) {
  std::vector<int32_t> stream;
  stream.reserve(tokens_);
  for (const uint32_t i :
       Permutation(static_cast<uint32_t>(documents_.size()), RandomKey({seed_, 0xB10C, epoch}))) {
    const std::vector<int32_t>& ids = documents_[i].ids;
    stream.insert(stream.end(), ids.begin(), ids.end() - 1);
  }
  // The stream is a ring: what is left of the last block falls elsewhere in every epoch.
  const uint64_t offset = RandomStream(RandomKey({seed_, 0xB10D, epoch})).Below(tokens_);
  blocks_.assign(rows(), {});
  for (uint64_t block = 0; block < rows(); ++block) {
    Example& example = blocks_[block];
    for (uint64_t i = 0; i <= context_; ++i) {
      const int32_t id = stream[(offset + block * context_ + i) % tokens_];
      if (i < context_) example.ids.push_back(id);
      if (i > 0) example.next_ids.push_back(id);
    }
  }
  return blocks_;
}

}  // namespace dimmer
