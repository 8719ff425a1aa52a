// Runs the tokenizer over standard input, for comparisons with other implementations.
//   tokenize_lines DIRECTORY < lines    each line a JSON string or [text, pair]; answers ids
//   tokenize_lines --words FLAGS        each line a JSON string; answers the words before WordPiece
//                                       FLAGS: of clean, chinese, lower, strip, comma separated
//   tokenize_lines --gpt2-words         each line a JSON string; answers the words before BPE
#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/text/bert_normalizer.h"
#include "engine/text/gpt2_words.h"
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

json Gpt2Words(const std::string& text) {
  json words = json::array();
  for (size_t at = 0; at < text.size();) {
    const size_t length = dimmer::FirstGpt2Word(std::string_view(text).substr(at));
    words.push_back(text.substr(at, length));
    at += length;
  }
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
  const bool gpt2_words = argc == 2 && std::string(argv[1]) == "--gpt2-words";
  if (!words && argc != 2) {
    fmt::print(stderr, "usage: tokenize_lines DIRECTORY | --words FLAGS | --gpt2-words\n");
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
  } else if (!gpt2_words) {
    auto loaded = dimmer::LoadTokenizer(argv[1]);
    if (!loaded.ok()) {
      std::cerr << loaded.status() << "\n";
      return 1;
    }
    tokenizer = std::move(*loaded);
  }
  for (std::string line; std::getline(std::cin, line);) {
    const json input = json::parse(line);
    const json answer = words        ? Words(input, options)
                        : gpt2_words ? Gpt2Words(input)
                                     : Ids(*tokenizer, input);
    std::cout << answer.dump(-1, ' ', /*ensure_ascii=*/true) << "\n";
  }
  return 0;
}
