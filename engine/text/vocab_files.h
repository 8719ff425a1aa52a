// What the readers of tokenizer files share: vocabularies, added tokens, tokenizer_config.json.
#ifndef DIMMER_ENGINE_TEXT_VOCAB_FILES_H_
#define DIMMER_ENGINE_TEXT_VOCAB_FILES_H_

#include <absl/container/flat_hash_map.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/package/json_fields.h"
#include "engine/text/tokenizer.h"

namespace dimmer {

bool FileExists(const std::string& path);

// A JSON file; an empty object if there is none.
absl::StatusOr<nlohmann::json> ReadOptionalJson(const std::string& path);

// The object at `key`, whose "type" must be `type`; otherwise Unimplemented with both.
absl::StatusOr<JsonFields> ExpectType(const JsonFields& fields, std::string_view key,
                                      std::string_view type);

// {"token": id} to a list by id. InvalidArgument unless each id of 0 to n - 1 is there once.
absl::StatusOr<std::vector<std::string>> ReadVocab(const JsonFields& vocab);

// A special token in tokenizer_config.json: "[SEP]", or {"content": "[SEP]", ...}.
absl::StatusOr<std::string> ReadTokenName(const JsonFields& fields, std::string_view key,
                                          const std::string& fallback);

struct AddedTokenEntry {
  std::string content;
  int32_t id = 0;
  bool special = false;
  bool normalized = false;
};

// "added_tokens" of tokenizer.json, by id. Those that lie beyond the vocabulary extend it.
// InvalidArgument: an id that is neither in the vocabulary for that token nor the next free one.
// Unimplemented: a flag that is not supported.
absl::StatusOr<std::vector<AddedTokenEntry>> ReadAddedTokens(const JsonFields& fields,
                                                             std::vector<std::string>& vocab);

// Ids by token. A view: the vocabulary must outlive it and stay as it is.
class VocabIndex {
 public:
  explicit VocabIndex(const std::vector<std::string>& vocab);  // of equal tokens the first counts
  std::optional<int32_t> Find(std::string_view token) const;

 private:
  struct Hash {
    size_t operator()(std::string_view text) const;
  };
  absl::flat_hash_map<std::string_view, int32_t, Hash> ids_;
};

// The readers, one for each kind. Errors name the file, the key, what was found and expected.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadWordPieceJson(const std::string& directory,
                                                             const JsonFields& fields);
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadWordPieceVocab(const std::string& directory);
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadBpeJson(const std::string& directory,
                                                       const JsonFields& fields);
// vocab.json and merges.txt, or encoder.json and vocab.bpe.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadGpt2Files(const std::string& directory,
                                                         const std::string& vocab,
                                                         const std::string& merges);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_VOCAB_FILES_H_
