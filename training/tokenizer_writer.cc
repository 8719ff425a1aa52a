#include "training/tokenizer_writer.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "engine/package/json_fields.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using Json = nlohmann::json;

constexpr int32_t kUnknownId = 0, kStartId = 1, kEndId = 2;  // of llama2.c

absl::Status WriteJson(const std::string& path, const Json& json) {
  return WriteTextFile(path, json.dump(1) + "\n");
}

Json VocabOf(const std::vector<std::string>& tokens) {
  Json vocab = Json::object();
  for (size_t id = 0; id < tokens.size(); ++id) vocab[tokens[id]] = id;
  return vocab;
}

Json AddedToken(const std::string& content, int32_t id) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

Json BpeModel(const std::vector<std::string>& tokens, Json merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"vocab", VocabOf(tokens)},
          {"merges", std::move(merges)}};
}

Json TokenizerJson(Json added, Json model) {
  return {{"version", "1.0"},          {"truncation", nullptr},
          {"padding", nullptr},        {"added_tokens", std::move(added)},
          {"normalizer", nullptr},     {"pre_tokenizer", nullptr},
          {"post_processor", nullptr}, {"decoder", nullptr},
          {"model", std::move(model)}};
}

}  // namespace

absl::Status WriteGpt2Tokenizer(const std::string& folder, const BpeTraining& training) {
  Json merges = Json::array();
  std::string merges_text = "#version: 0.2\n";
  for (const auto& [left, right] : training.merges) {
    const std::string merge = fmt::format("{} {}", left, right);
    merges.push_back(merge);
    merges_text += merge;
    merges_text += '\n';
  }
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  Json tokenizer = TokenizerJson(Json::array({AddedToken(kEndOfText, 0)}),
                                 BpeModel(training.tokens, std::move(merges)));
  for (const char* part : {"pre_tokenizer", "post_processor", "decoder"}) {
    tokenizer[part] = byte_level;
  }
  DIMMER_RETURN_IF_ERROR(WriteJson(folder + "/tokenizer.json", tokenizer));
  DIMMER_RETURN_IF_ERROR(WriteJson(folder + "/vocab.json", VocabOf(training.tokens)));
  DIMMER_RETURN_IF_ERROR(WriteTextFile(folder + "/merges.txt", merges_text));
  return WriteJson(folder + "/tokenizer_config.json", {{"tokenizer_class", "GPT2Tokenizer"},
                                                       {"add_prefix_space", false},
                                                       {"bos_token", kEndOfText},
                                                       {"eos_token", kEndOfText},
                                                       {"unk_token", kEndOfText}});
}

absl::Status WriteLlamaTokenizer(const std::string& folder, const BpeOptions& from) {
  Json merges = Json::array();
  for (const BpeMerge& merge : from.merges) {
    merges.push_back(fmt::format("{} {}", from.tokens[static_cast<size_t>(merge.left)],
                                 from.tokens[static_cast<size_t>(merge.right)]));
  }
  Json added = Json::array();
  for (const int32_t id : {kUnknownId, kStartId, kEndId}) {
    added.push_back(AddedToken(from.tokens[static_cast<size_t>(id)], id));
  }
  const std::string unknown = from.tokens[kUnknownId], start = from.tokens[kStartId],
                    end = from.tokens[kEndId];
  Json tokenizer = TokenizerJson(std::move(added), BpeModel(from.tokens, std::move(merges)));
  tokenizer["model"]["unk_token"] = unknown;
  tokenizer["model"]["fuse_unk"] = true;
  tokenizer["model"]["byte_fallback"] = true;
  const std::string blank(kSentencePieceBlank);
  tokenizer["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "Prepend"}, {"prepend", blank}},
        {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", blank}}}}};
  tokenizer["decoder"] = {
      {"type", "Sequence"},
      {"decoders",
       {{{"type", "Replace"}, {"pattern", {{"String", blank}}}, {"content", " "}},
        {{"type", "ByteFallback"}},
        {{"type", "Fuse"}},
        {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  const auto special = [&](int type) {
    return Json{{"SpecialToken", {{"id", start}, {"type_id", type}}}};
  };
  const auto text = [](const char* name, int type) {
    return Json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  const Json ids = Json::array({kStartId}), names = Json::array({start});
  tokenizer["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", Json::array({special(0), text("A", 0)})},
      {"pair", Json::array({special(0), text("A", 0), special(1), text("B", 1)})},
      {"special_tokens", {{start, {{"id", start}, {"ids", ids}, {"tokens", names}}}}}};
  DIMMER_RETURN_IF_ERROR(WriteJson(folder + "/tokenizer.json", tokenizer));
  return WriteJson(folder + "/tokenizer_config.json", {{"tokenizer_class", "LlamaTokenizer"},
                                                       {"add_bos_token", true},
                                                       {"add_eos_token", false},
                                                       {"clean_up_tokenization_spaces", false},
                                                       {"bos_token", start},
                                                       {"eos_token", end},
                                                       {"unk_token", unknown}});
}

}  // namespace dimmer
