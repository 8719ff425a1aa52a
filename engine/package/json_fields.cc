#include "engine/package/json_fields.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>

#include "engine/package/atomic_file.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr int kMaxDepth = 64;

// Values are shown shortened: a message is for a person.
std::string Shown(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

absl::Status WrongField(std::string_view where, std::string_view key, const nlohmann::json* found,
                        std::string_view expected) {
  return absl::InvalidArgumentError(fmt::format("{}: {}: found {}, expected {}", where, key,
                                                found == nullptr ? "nothing" : Shown(*found),
                                                expected));
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const std::string message = fmt::format("{}: {}", path, std::strerror(errno));
    return errno == ENOENT || errno == ENOTDIR ? absl::NotFoundError(message)
                                               : absl::InvalidArgumentError(message);
  }
  struct stat info {};
  std::string text;
  absl::Status status;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = absl::InvalidArgumentError(fmt::format("{}: not a regular file", path));
  } else if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    status = absl::InvalidArgumentError(
        fmt::format("{}: found {} bytes, expected at most {}", path, info.st_size, max_bytes));
  } else {
    text.resize(static_cast<size_t>(info.st_size));
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t n = read(fd, text.data() + done, text.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    if (done < text.size()) {
      status = absl::InvalidArgumentError(
          fmt::format("{}: read {} of {} bytes", path, done, text.size()));
    }
  }
  close(fd);
  if (!status.ok()) return status;
  return text;
}

absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, const std::string& where) {
  // nlohmann's parser itself is not recursive, but the destructor and dump() are.
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) {
        return absl::InvalidArgumentError(
            fmt::format("{}: byte {}: JSON nested deeper than {}", where, i, kMaxDepth));
      }
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  try {
    return nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(
        fmt::format("{}: byte {}: not valid JSON", where, error.byte));
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(fmt::format("{}: not valid JSON: {}", where, error.what()));
  }
}

absl::Status WriteTextFile(const std::string& path, std::string_view text) {
  DIMMER_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  DIMMER_RETURN_IF_ERROR(file.Write(text.data(), text.size()));
  return file.Commit();
}

absl::StatusOr<JsonFields> JsonFields::Of(const nlohmann::json& object, std::string where) {
  if (!object.is_object()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {}, expected a JSON object", where, Shown(object)));
  }
  return JsonFields(&object, std::move(where));
}

bool JsonFields::Has(std::string_view key) const {
  const auto it = object_->find(std::string(key));
  return it != object_->end() && !it->is_null();
}

// A field that is absent or null takes the fallback; one of another type or range is an error.
namespace {
const nlohmann::json* FindField(const nlohmann::json& object, std::string_view key) {
  const auto it = object.find(std::string(key));
  return it == object.end() || it->is_null() ? nullptr : &*it;
}
}  // namespace

absl::StatusOr<int64_t> JsonFields::Int(std::string_view key, int64_t min, int64_t max,
                                        std::optional<int64_t> fallback) const {
  const nlohmann::json* value = FindField(*object_, key);
  if (value == nullptr && fallback) return *fallback;
  const std::string expected = fmt::format("an integer in [{}, {}]", min, max);
  if (value == nullptr || !value->is_number_integer()) {
    return WrongField(where_, key, value, expected);
  }
  const bool too_large = value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX;
  if (too_large || value->get<int64_t>() < min || value->get<int64_t>() > max) {
    return WrongField(where_, key, value, expected);
  }
  return value->get<int64_t>();
}

absl::StatusOr<double> JsonFields::Number(std::string_view key, double min, double max,
                                          std::optional<double> fallback) const {
  const nlohmann::json* value = FindField(*object_, key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_number() || !(value->get<double>() >= min) ||
      !(value->get<double>() <= max)) {
    return WrongField(where_, key, value, fmt::format("a number in [{}, {}]", min, max));
  }
  return value->get<double>();
}

absl::StatusOr<std::string> JsonFields::String(std::string_view key,
                                               std::optional<std::string> fallback) const {
  const nlohmann::json* value = FindField(*object_, key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_string()) return WrongField(where_, key, value, "a string");
  return value->get<std::string>();
}

absl::StatusOr<bool> JsonFields::Bool(std::string_view key, std::optional<bool> fallback) const {
  const nlohmann::json* value = FindField(*object_, key);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr || !value->is_boolean()) {
    return WrongField(where_, key, value, "true or false");
  }
  return value->get<bool>();
}

absl::StatusOr<std::vector<double>> JsonFields::Numbers(std::string_view key) const {
  const nlohmann::json* value = FindField(*object_, key);
  if (value == nullptr || !value->is_array()) {
    return WrongField(where_, key, value, "an array of numbers");
  }
  std::vector<double> numbers;
  numbers.reserve(value->size());
  for (const nlohmann::json& item : *value) {
    if (!item.is_number() || !std::isfinite(item.get<double>())) {
      return WrongField(where_, fmt::format("{}[{}]", key, numbers.size()), &item, "a number");
    }
    numbers.push_back(item.get<double>());
  }
  return numbers;
}

absl::StatusOr<JsonFields> JsonFields::Object(std::string_view key) const {
  const nlohmann::json* value = FindField(*object_, key);
  if (value == nullptr || !value->is_object()) return WrongField(where_, key, value, "an object");
  return JsonFields(value, fmt::format("{}: {}", where_, key));
}

absl::StatusOr<std::vector<JsonFields>> JsonFields::Objects(std::string_view key) const {
  const nlohmann::json* value = FindField(*object_, key);
  if (value == nullptr || !value->is_array()) {
    return WrongField(where_, key, value, "an array of objects");
  }
  std::vector<JsonFields> objects;
  for (const nlohmann::json& item : *value) {
    const std::string name = fmt::format("{}[{}]", key, objects.size());
    if (!item.is_object()) return WrongField(where_, name, &item, "an object");
    objects.push_back(JsonFields(&item, fmt::format("{}: {}", where_, name)));
  }
  return objects;
}

}  // namespace dimmer
