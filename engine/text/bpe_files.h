// What the readers of BPE files share beyond engine/text/vocab_files.h.
#ifndef DIMMER_ENGINE_TEXT_BPE_FILES_H_
#define DIMMER_ENGINE_TEXT_BPE_FILES_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <string>
#include <string_view>

#include "engine/text/bpe_tokenizer.h"
#include "engine/text/vocab_files.h"

namespace dimmer {

// InvalidArgument, with `where`: the vocabulary has no such token.
absl::StatusOr<int32_t> FindToken(const VocabIndex& index, std::string_view token,
                                  std::string_view where);

// The merge of two tokens into the one that is written as both together.
absl::StatusOr<BpeMerge> FindMerge(const VocabIndex& index, std::string_view left,
                                   std::string_view right, uint32_t rank, std::string_view where);

// Where the files come from: transformers lets tokenizer_config.json outrank some of
// tokenizer.json.
enum class BpeSource : uint8_t { kTokenizerJson, kVocabAndMerges };

// Start and end tokens, and what tokenizer_config.json of the directory says about them and about
// the blank before a text.
absl::Status ApplyTokenizerConfig(const std::string& directory, BpeSource source,
                                  BpeOptions& options);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_BPE_FILES_H_
