// Runs the tokenizer over standard input, for comparisons with other implementations.
//   tokenize_lines DIRECTORY < lines    each line a JSON string, or a JSON [text, pair]; answers
//   ids tokenize_lines --words FLAGS        each line a JSON string; answers the words before
//   WordPiece.
//                                       FLAGS: of clean, chinese, lower, strip, comma separated
#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/text/bert_normalizer.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

namespace {

using nlohmann::json;

json Words(const std::string& text, const dimmer::BertNormalizerOptions& options) {
  std::u32string normalized;
  dimmer::NormalizeBert(text, options, normalized);
  json words = json::array();
  std::string word;
  const auto flush = [&] {
    if (!word.empty()) words.push_back(word);
    word.clear();
  };
  for (const char32_t c : normalized) {
    const dimmer::CharClass kind = dimmer::ClassOf(c);
    if (kind != dimmer::CharClass::kWord) flush();
    if (kind != dimmer::CharClass::kSpace) dimmer::AppendUtf8(c, word);
    if (kind == dimmer::CharClass::kPunctuation) flush();
  }
  flush();
  return words;
}

json Ids(const dimmer::Tokenizer& tokenizer, const json& line) {
  const bool pair = line.is_array();
  const std::string text = pair ? line[0] : line;
  const std::string second = pair ? line[1].get<std::string>() : "";
  const auto encoding =
      tokenizer.Encode(text, pair ? std::optional<std::string_view>(second) : std::nullopt, {});
  return encoding.ok() ? json(encoding->ids) : json(std::string(encoding.status().message()));
}

}  // namespace

int main(int argc, char** argv) {
  const bool words = argc == 3 && std::string(argv[1]) == "--words";
  if (!words && argc != 2) {
    fmt::print(stderr, "usage: tokenize_lines DIRECTORY | --words FLAGS\n");
    return 2;
  }
  std::unique_ptr<dimmer::Tokenizer> tokenizer;
  dimmer::BertNormalizerOptions options;
  if (words) {
    const std::string flags = argv[2];
    const auto has = [&](const char* flag) { return flags.find(flag) != std::string::npos; };
    options = {.clean_text = has("clean"),
               .handle_chinese_chars = has("chinese"),
               .lowercase = has("lower"),
               .strip_accents = has("strip")};
  } else {
    auto loaded = dimmer::LoadTokenizer(argv[1]);
    if (!loaded.ok()) {
      std::cerr << loaded.status() << "\n";
      return 1;
    }
    tokenizer = std::move(*loaded);
  }
  for (std::string line; std::getline(std::cin, line);) {
    const json input = json::parse(line);
    std::cout << (words ? Words(input, options) : Ids(*tokenizer, input)).dump() << "\n";
  }
  return 0;
}
