// What the config.json of all families have in common: sizes with limits, activations, token ids,
// and the refusal of what is not computed.
#ifndef DIMMER_ENGINE_MODELS_CONFIG_FIELDS_H_
#define DIMMER_ENGINE_MODELS_CONFIG_FIELDS_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/kernels/activation.h"
#include "engine/package/json_fields.h"

namespace dimmer {

// Far above any published model, far below what could overflow or exhaust memory before the
// tensors' shapes are compared.
inline constexpr int64_t kMaxWidth = 1 << 15;
inline constexpr int64_t kMaxLayers = 512;
inline constexpr int64_t kMaxVocabulary = 1 << 23;
inline constexpr int64_t kMaxPositions = 1 << 17;

// Unimplemented "<where>: <key>: found ..., expected ...".
absl::Status RefuseSetting(const JsonFields& fields, std::string_view key, std::string_view found,
                           std::string_view expected);

// In [1, max]. InvalidArgument.
absl::StatusOr<uint32_t> SizeField(const JsonFields& fields, std::string_view key, int64_t max,
                                   std::optional<int64_t> fallback = std::nullopt);

// By the names of `transformers`. Unimplemented lists those that are known.
absl::StatusOr<Activation> ActivationField(const JsonFields& fields, std::string_view key,
                                           std::string_view fallback);

// Unimplemented unless the key is absent or as wanted.
absl::Status ExpectFlag(const JsonFields& fields, std::string_view key, bool wanted);

// eos_token_id: one id or several, null for none, `fallback` if the key is absent; those outside
// the vocabulary never come and are left out.
absl::StatusOr<std::vector<int32_t>> EndIdsField(const JsonFields& fields, uint32_t vocab_size,
                                                 std::optional<int32_t> fallback);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_MODELS_CONFIG_FIELDS_H_
