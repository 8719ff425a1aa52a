#include "engine/text/vocab_files.h"

#include <absl/hash/hash.h>
#include <absl/strings/string_view.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr size_t kMaxVocab = 4u << 20;

}  // namespace

bool FileExists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

absl::StatusOr<nlohmann::json> ReadOptionalJson(const std::string& path) {
  if (!FileExists(path)) return nlohmann::json::object();
  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  return ParseJson(text, path);
}

absl::StatusOr<JsonFields> ExpectType(const JsonFields& fields, std::string_view key,
                                      std::string_view type) {
  DIMMER_ASSIGN_OR_RETURN(const JsonFields object, fields.Object(key));
  DIMMER_ASSIGN_OR_RETURN(const std::string found, object.String("type"));
  if (found == type) return object;
  return absl::UnimplementedError(
      fmt::format("{}: type: found {}, expected {}", object.where(), found, type));
}

absl::StatusOr<std::vector<std::string>> ReadVocab(const JsonFields& vocab) {
  const size_t size = vocab.json().size();
  std::vector<std::string> tokens(size);
  std::vector<bool> seen(size);
  for (const auto& [token, value] : vocab.json().items()) {
    const bool usable =
        value.is_number_unsigned() && value.get<uint64_t>() < size && !seen[value.get<uint64_t>()];
    if (!usable) {
      return absl::InvalidArgumentError(
          fmt::format("{}: {}: found id {}, expected each of 0 to {} once", vocab.where(), token,
                      value.dump(), size - 1));
    }
    seen[value.get<uint64_t>()] = true;
    tokens[value.get<uint64_t>()] = token;
  }
  return tokens;
}

absl::StatusOr<std::string> ReadTokenName(const JsonFields& fields, std::string_view key,
                                          const std::string& fallback) {
  if (!fields.Has(key) || !fields.json().at(std::string(key)).is_object()) {
    return fields.String(key, fallback);
  }
  DIMMER_ASSIGN_OR_RETURN(const JsonFields token, fields.Object(key));
  return token.String("content");
}

absl::StatusOr<std::vector<AddedTokenEntry>> ReadAddedTokens(const JsonFields& fields,
                                                             std::vector<std::string>& vocab) {
  std::vector<AddedTokenEntry> tokens;
  if (!fields.Has("added_tokens")) return tokens;
  DIMMER_ASSIGN_OR_RETURN(auto added, fields.Objects("added_tokens"));
  for (const JsonFields& token : added) {
    AddedTokenEntry entry;
    DIMMER_ASSIGN_OR_RETURN(entry.id, token.Int("id", 0, kMaxVocab));
    DIMMER_ASSIGN_OR_RETURN(entry.content, token.String("content"));
    DIMMER_ASSIGN_OR_RETURN(entry.special, token.Bool("special", false));
    DIMMER_ASSIGN_OR_RETURN(entry.normalized, token.Bool("normalized", false));
    for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
      DIMMER_ASSIGN_OR_RETURN(const bool set, token.Bool(flag, false));
      if (!set) continue;
      return absl::UnimplementedError(fmt::format("{}: {}: found true for {}, expected false",
                                                  token.where(), flag, entry.content));
    }
    tokens.push_back(std::move(entry));
  }
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const auto& a, const auto& b) { return a.id < b.id; });
  for (const AddedTokenEntry& token : tokens) {
    const auto index = static_cast<size_t>(token.id);
    if (index == vocab.size()) vocab.push_back(token.content);
    if (index < vocab.size() && vocab[index] == token.content) continue;
    return absl::InvalidArgumentError(
        fmt::format("{}: added_tokens: found {} with id {}, expected the vocabulary's id, or the "
                    "next free one",
                    fields.where(), token.content, token.id));
  }
  return tokens;
}

size_t VocabIndex::Hash::operator()(std::string_view text) const {
  return absl::Hash<absl::string_view>()(absl::string_view(text.data(), text.size()));
}

VocabIndex::VocabIndex(const std::vector<std::string>& vocab) {
  ids_.reserve(vocab.size());
  for (size_t i = 0; i < vocab.size(); ++i) ids_.emplace(vocab[i], static_cast<int32_t>(i));
}

std::optional<int32_t> VocabIndex::Find(std::string_view token) const {
  const auto it = ids_.find(token);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

}  // namespace dimmer
