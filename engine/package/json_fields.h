// Typed, strict access to the fields of a JSON object from a file that may be wrong.
// Every error is InvalidArgument and reads "<where>: <key>: found ..., expected ...".
#ifndef DIMMER_ENGINE_PACKAGE_JSON_FIELDS_H_
#define DIMMER_ENGINE_PACKAGE_JSON_FIELDS_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dimmer {

// Reads a whole file of at most `max_bytes`; NotFound, or InvalidArgument with both sizes.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes = 64u << 20);

// Parses JSON without exceptions; InvalidArgument names the file and what is wrong (a syntax error:
// its byte offset). Duplicate keys, nesting deeper than 64 and more than 4 million values are
// refused.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, const std::string& where);

// Writes text atomically (temporary file, fsync, rename).
absl::Status WriteTextFile(const std::string& path, std::string_view text);

// A view: the JSON object must outlive it.
class JsonFields {
 public:
  // InvalidArgument if `object` is not a JSON object.
  static absl::StatusOr<JsonFields> Of(const nlohmann::json& object, std::string where);

  bool Has(std::string_view key) const;  // present and not null
  // InvalidArgument names the first key that is not in `known`.
  absl::Status OnlyKeys(std::initializer_list<std::string_view> known) const;
  absl::StatusOr<int64_t> Int(std::string_view key, int64_t min, int64_t max,
                              std::optional<int64_t> fallback = std::nullopt) const;
  absl::StatusOr<double> Number(std::string_view key, double min, double max,
                                std::optional<double> fallback = std::nullopt) const;
  absl::StatusOr<std::string> String(std::string_view key,
                                     std::optional<std::string> fallback = std::nullopt) const;
  absl::StatusOr<bool> Bool(std::string_view key,
                            std::optional<bool> fallback = std::nullopt) const;
  absl::StatusOr<std::vector<double>> Numbers(std::string_view key) const;
  absl::StatusOr<JsonFields> Object(std::string_view key) const;
  absl::StatusOr<std::vector<JsonFields>> Objects(
      std::string_view key) const;  // an array of objects

  const nlohmann::json& json() const { return *object_; }
  const std::string& where() const { return where_; }

 private:
  JsonFields(const nlohmann::json* object, std::string where)
      : object_(object), where_(std::move(where)) {}
  const nlohmann::json* object_;
  std::string where_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_PACKAGE_JSON_FIELDS_H_
