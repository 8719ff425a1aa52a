#include "engine/text/encoding.h"

#include <algorithm>
#include <utility>

#include "engine/text/utf8.h"
#include "engine/util/status.h"

namespace dimmer {

absl::Status CheckUtf8(std::string_view text, std::string_view which) {
  const std::optional<size_t> offset = FindInvalidUtf8(text);
  if (!offset) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} is not valid UTF-8: found byte 0x{:02x} at offset {}", which,
                  static_cast<unsigned char>(text[*offset]), *offset));
}

void TruncateLongestFirst(size_t room, std::vector<int32_t>& a, std::vector<int32_t>& b) {
  size_t short_length = std::min(a.size(), b.size());
  size_t long_length = room > short_length ? room - short_length : 0;
  if (long_length < short_length) {
    short_length = room / 2;
    long_length = room - short_length;
  }
  const bool a_is_longer = a.size() > b.size();
  a.resize(std::min(a.size(), a_is_longer ? long_length : short_length));
  b.resize(std::min(b.size(), a_is_longer ? short_length : long_length));
}

absl::StatusOr<Encoding> Assemble(std::vector<int32_t> a, std::vector<int32_t> b, bool is_pair,
                                  const TextTemplate& around, const EncodeOptions& options) {
  const std::vector<TextTemplate::Piece>& pieces = is_pair ? around.pair : around.single;
  const auto is_token = [](const auto& piece) { return piece.what == TextTemplate::What::kToken; };
  const auto special =
      options.add_special_tokens
          ? static_cast<size_t>(std::count_if(pieces.begin(), pieces.end(), is_token))
          : 0;
  Encoding encoding;
  if (options.max_tokens > 0 && a.size() + b.size() + special > options.max_tokens) {
    if (!options.truncate || options.max_tokens < special) {
      return absl::InvalidArgumentError(fmt::format("text has {} tokens, at most {} are taken",
                                                    a.size() + b.size() + special,
                                                    options.max_tokens));
    }
    const size_t room = options.max_tokens - special;
    if (is_pair) {
      TruncateLongestFirst(room, a, b);
    } else {
      a.resize(room);
    }
    encoding.truncated = true;
  }
  encoding.ids.reserve(a.size() + b.size() + special);
  for (const TextTemplate::Piece& piece : pieces) {
    if (!is_token(piece)) {
      const std::vector<int32_t>& ids = piece.what == TextTemplate::What::kFirst ? a : b;
      encoding.ids.insert(encoding.ids.end(), ids.begin(), ids.end());
    } else if (options.add_special_tokens) {
      encoding.ids.push_back(piece.id);
    }
    encoding.type_ids.resize(encoding.ids.size(), piece.type_id);
  }
  return encoding;
}

}  // namespace dimmer
