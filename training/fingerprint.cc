#include "training/fingerprint.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "training/random.h"

namespace dimmer {

void Fingerprint::Mix(uint64_t value) {
  low_ = MixBits(low_ ^ value);
  high_ = MixBits(high_ + std::rotl(value, 32));
}

Fingerprint& Fingerprint::Add(std::string_view bytes) {
  Mix(bytes.size());
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min<size_t>(8, bytes.size() - i));
    Mix(word);
  }
  return *this;
}

Fingerprint& Fingerprint::Add(uint64_t value) {
  Mix(value);
  return *this;
}

Fingerprint& Fingerprint::Add(double value) {
  Mix(std::bit_cast<uint64_t>(value));
  return *this;
}

Fingerprint& Fingerprint::Add(std::span<const float> values) {
  return Add({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
}

Fingerprint& Fingerprint::Add(std::span<const Example> examples) {
  Mix(examples.size());
  for (const Example& example : examples) {
    Mix(example.ids.size());
    for (size_t i = 0; i < example.ids.size(); ++i) {
      const int32_t type = example.type_ids.empty() ? 0 : example.type_ids[i];
      Mix(static_cast<uint64_t>(static_cast<uint32_t>(example.ids[i])) << 32 |
          static_cast<uint32_t>(type));
    }
    for (const int32_t id : example.next_ids) Mix(static_cast<uint32_t>(id));
    Mix(static_cast<uint32_t>(example.label));
  }
  return *this;
}

std::string Fingerprint::Hex() const {
  return fmt::format("{:016x}{:016x}", MixBits(low_), MixBits(high_));
}

}  // namespace dimmer
