#include "engine/package/json_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "engine/package/atomic_file.h"
#include "engine/package/input_file.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxDepth = 64;
// Values in one document. A parsed value takes 16 bytes or more for as little as 2 in the file, so
// this, not the file's size, bounds the memory.
constexpr size_t kMaxValues = size_t{4} << 20;

// Builds a document from the parser's events and refuses what the library lets pass: duplicate
// keys, deep nesting and masses of values. Return values are "go on".
class StrictBuilder {
 public:
  Json TakeResult() { return std::move(root_); }
  const std::string& error() const { return error_; }

  // The parser's interface; its names are the library's.
  bool null() { return Add(Json(nullptr)) != nullptr; }
  bool boolean(bool value) { return Add(Json(value)) != nullptr; }
  bool number_integer(int64_t value) { return Add(Json(value)) != nullptr; }
  bool number_unsigned(uint64_t value) { return Add(Json(value)) != nullptr; }
  bool number_float(double value, const std::string&) { return Add(Json(value)) != nullptr; }
  bool string(std::string& value) { return Add(Json(std::move(value))) != nullptr; }
  bool binary(Json::binary_t&) { return false; }  // not in JSON
  bool start_object(size_t) { return Enter(Json::object()); }
  bool start_array(size_t) { return Enter(Json::array()); }
  bool end_object() { return Leave(); }
  bool end_array() { return Leave(); }
  bool key(std::string& name) {
    const auto [slot, fresh] = open_.back()->get_ref<Json::object_t&>().emplace(name, nullptr);
    if (!fresh) return Fail(fmt::format("found key \"{}\" twice, expected each key once", name));
    slot_ = &slot->second;
    return true;
  }
  bool parse_error(size_t position, const std::string& token, const Json::exception&) {
    return Fail(fmt::format("found a syntax error at byte {} near \"{}\", expected JSON", position,
                            Printable(token)));
  }

 private:
  static std::string Printable(std::string_view token) {
    std::string text(token.substr(0, 40));
    for (char& c : text) {
      if (c < ' ' || c > '~') c = '?';
    }
    return text;
  }

  bool Fail(std::string message) {
    error_ = std::move(message);
    return false;
  }

  Json* Add(Json value) {
    if (++values_ > kMaxValues) {
      Fail(fmt::format("found more than {0} values, expected at most {0}", kMaxValues));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      return &open_.back()->get_ref<Json::array_t&>().emplace_back(std::move(value));
    }
    *slot_ = std::move(value);
    return slot_;
  }

  bool Enter(Json container) {
    if (open_.size() == kMaxDepth) {
      return Fail(fmt::format("found nesting deeper than {0}, expected at most {0}", kMaxDepth));
    }
    Json* added = Add(std::move(container));
    if (added != nullptr) open_.push_back(added);
    return added != nullptr;
  }

  bool Leave() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Json*> open_;  // containers being filled; their addresses stay until they are closed
  Json* slot_ = nullptr;     // where the value of the last key goes
  size_t values_ = 0;
  std::string error_;
};

// What was found, short enough for a message.
std::string Describe(const Json& value) {
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  if (value.is_object()) return fmt::format("an object of {} keys", value.size());
  const Json& shown = value.is_string() && value.get_ref<const std::string&>().size() > 80
                          ? Json(value.get_ref<const std::string&>().substr(0, 80))
                          : value;
  std::string text = shown.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

absl::Status Mismatch(const std::string& where, std::string_view key, std::string_view found,
                      std::string_view expected) {
  return absl::InvalidArgumentError(
      fmt::format("{}: {}: found {}, expected {}", where, key, found, expected));
}

// The value of `key`, or null where it is absent or null.
const Json* FindValue(const Json& object, std::string_view key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes) {
  DIMMER_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  if (file.size() > max_bytes) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {} bytes, expected at most {}", path, file.size(), max_bytes));
  }
  std::string text(file.size(), '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const auto rest = std::as_writable_bytes(std::span(text)).subspan(filled);
    DIMMER_ASSIGN_OR_RETURN(const size_t count, file.Read(rest));
    if (count == 0) break;  // it shrank meanwhile
    filled += count;
  }
  text.resize(filled);
  return text;
}

absl::StatusOr<Json> ParseJson(std::string_view text, const std::string& where) {
  StrictBuilder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", where, builder.error()));
  }
  return builder.TakeResult();
}

absl::Status WriteTextFile(const std::string& path, std::string_view text) {
  DIMMER_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  DIMMER_RETURN_IF_ERROR(file.Write(text.data(), text.size()));
  return file.Commit();
}

absl::StatusOr<JsonFields> JsonFields::Of(const Json& object, std::string where) {
  if (!object.is_object()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {}, expected an object", where, Describe(object)));
  }
  return JsonFields(&object, std::move(where));
}

bool JsonFields::Has(std::string_view key) const { return FindValue(*object_, key) != nullptr; }

absl::Status JsonFields::OnlyKeys(std::initializer_list<std::string_view> known) const {
  for (const auto& item : object_->items()) {
    if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
      return Mismatch(where_, item.key(), "an unknown key",
                      fmt::format("only {}", fmt::join(known, ", ")));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> JsonFields::Int(std::string_view key, int64_t min, int64_t max,
                                        std::optional<int64_t> fallback) const {
  const Json* value = FindValue(*object_, key);
  if (value == nullptr && fallback) return *fallback;
  const std::string expected = fmt::format("an integer in [{}, {}]", min, max);
  if (value == nullptr) return Mismatch(where_, key, "nothing", expected);
  const bool fits = value->is_number_integer() &&
                    !(value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX);
  if (!fits || value->get<int64_t>() < min || value->get<int64_t>() > max) {
    return Mismatch(where_, key, Describe(*value), expected);
  }
  return value->get<int64_t>();
}

absl::StatusOr<double> JsonFields::Number(std::string_view key, double min, double max,
                                          std::optional<double> fallback) const {
  const Json* value = FindValue(*object_, key);
  if (value == nullptr && fallback) return *fallback;
  const std::string expected = fmt::format("a number in [{}, {}]", min, max);
  if (value == nullptr) return Mismatch(where_, key, "nothing", expected);
  const double number = value->is_number() ? value->get<double>() : NAN;
  if (!(number >= min && number <= max)) return Mismatch(where_, key, Describe(*value), expected);
  return number;
}

absl::StatusOr<std::string> JsonFields::String(std::string_view key,
                                               std::optional<std::string> fallback) const {
  const Json* value = FindValue(*object_, key);
  if (value == nullptr && fallback) return *std::move(fallback);
  if (value == nullptr) return Mismatch(where_, key, "nothing", "a string");
  if (!value->is_string()) return Mismatch(where_, key, Describe(*value), "a string");
  return value->get<std::string>();
}

absl::StatusOr<bool> JsonFields::Bool(std::string_view key, std::optional<bool> fallback) const {
  const Json* value = FindValue(*object_, key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr) return Mismatch(where_, key, "nothing", "true or false");
  if (!value->is_boolean()) return Mismatch(where_, key, Describe(*value), "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::vector<double>> JsonFields::Numbers(std::string_view key) const {
  constexpr std::string_view kExpected = "an array of finite numbers";
  const Json* value = FindValue(*object_, key);
  if (value == nullptr) return Mismatch(where_, key, "nothing", kExpected);
  if (!value->is_array()) return Mismatch(where_, key, Describe(*value), kExpected);
  std::vector<double> numbers;
  numbers.reserve(value->size());
  for (const Json& element : *value) {
    if (!element.is_number() || !std::isfinite(element.get<double>())) {
      return Mismatch(where_, fmt::format("{}[{}]", key, numbers.size()), Describe(element),
                      "a finite number");
    }
    numbers.push_back(element.get<double>());
  }
  return numbers;
}

absl::StatusOr<JsonFields> JsonFields::Object(std::string_view key) const {
  const Json* value = FindValue(*object_, key);
  if (value == nullptr) return Mismatch(where_, key, "nothing", "an object");
  if (!value->is_object()) return Mismatch(where_, key, Describe(*value), "an object");
  return JsonFields(value, fmt::format("{}: {}", where_, key));
}

absl::StatusOr<std::vector<JsonFields>> JsonFields::Objects(std::string_view key) const {
  const Json* value = FindValue(*object_, key);
  if (value == nullptr) return Mismatch(where_, key, "nothing", "an array of objects");
  if (!value->is_array()) return Mismatch(where_, key, Describe(*value), "an array of objects");
  std::vector<JsonFields> objects;
  objects.reserve(value->size());
  for (const Json& element : *value) {
    const std::string name = fmt::format("{}[{}]", key, objects.size());
    if (!element.is_object()) return Mismatch(where_, name, Describe(element), "an object");
    objects.push_back(JsonFields(&element, fmt::format("{}: {}", where_, name)));
  }
  return objects;
}

}  // namespace dimmer
