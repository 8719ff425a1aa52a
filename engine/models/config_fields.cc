#include "engine/models/config_fields.h"

#include <map>
#include <string>

#include "engine/util/status.h"

namespace dimmer {

absl::Status RefuseSetting(const JsonFields& fields, std::string_view key, std::string_view found,
                           std::string_view expected) {
  return absl::UnimplementedError(
      fmt::format("{}: {}: found {}, expected {}", fields.where(), key, found, expected));
}

absl::StatusOr<uint32_t> SizeField(const JsonFields& fields, std::string_view key, int64_t max,
                                   std::optional<int64_t> fallback) {
  DIMMER_ASSIGN_OR_RETURN(const int64_t value, fields.Int(key, 1, max, fallback));
  return static_cast<uint32_t>(value);
}

absl::StatusOr<Activation> ActivationField(const JsonFields& fields, std::string_view key,
                                           std::string_view fallback) {
  static const std::map<std::string, Activation, std::less<>> kKnown = {
      {"gelu", Activation::kGelu},          {"gelu_new", Activation::kGeluTanh},
      {"gelu_fast", Activation::kGeluTanh}, {"gelu_pytorch_tanh", Activation::kGeluTanh},
      {"relu", Activation::kRelu},          {"silu", Activation::kSilu},
      {"swish", Activation::kSilu}};
  DIMMER_ASSIGN_OR_RETURN(const std::string name, fields.String(key, std::string(fallback)));
  const auto found = kKnown.find(name);
  if (found == kKnown.end()) {
    return RefuseSetting(fields, key, '"' + name + '"',
                         "gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, silu or swish");
  }
  return found->second;
}

absl::Status ExpectFlag(const JsonFields& fields, std::string_view key, bool wanted) {
  DIMMER_ASSIGN_OR_RETURN(const bool found, fields.Bool(key, wanted));
  if (found == wanted) return absl::OkStatus();
  return RefuseSetting(fields, key, found ? "true" : "false", wanted ? "true" : "false");
}

absl::StatusOr<std::vector<int32_t>> EndIdsField(const JsonFields& fields, uint32_t vocab_size,
                                                 std::optional<int32_t> fallback) {
  constexpr std::string_view kKey = "eos_token_id";
  std::vector<double> stated;
  if (!fields.json().contains(kKey)) {
    if (fallback) stated.push_back(*fallback);
  } else if (!fields.Has(kKey)) {
    // null: nothing ends a text.
  } else if (fields.json().find(kKey)->is_array()) {
    DIMMER_ASSIGN_OR_RETURN(stated, fields.Numbers(kKey));
  } else {
    DIMMER_ASSIGN_OR_RETURN(const int64_t id, fields.Int(kKey, -1, kMaxVocabulary));
    stated.push_back(static_cast<double>(id));
  }
  std::vector<int32_t> ids;
  for (const double id : stated) {
    if (id >= 0 && id < vocab_size) ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

}  // namespace dimmer
