// A 128-bit digest of a stage's inputs and options, to tell finished work from stale work. Not
// cryptographic: files are checked by SHA-256 elsewhere.
#ifndef DIMMER_TRAINING_FINGERPRINT_H_
#define DIMMER_TRAINING_FINGERPRINT_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "training/batch.h"

namespace dimmer {

class Fingerprint {
 public:
  // `purpose` names the stage and the version of its algorithm, e.g. "sparsify/1".
  explicit Fingerprint(std::string_view purpose) { Add(purpose); }

  // Every addition counts with its length, so that no two sequences of additions look alike.
  Fingerprint& Add(std::string_view bytes);
  Fingerprint& Add(uint64_t value);
  Fingerprint& Add(double value);
  Fingerprint& Add(std::span<const float> values);
  Fingerprint& Add(std::span<const Example> examples);

  std::string Hex() const;  // 32 digits

 private:
  void Mix(uint64_t value);
  uint64_t low_ = 0x243F6A8885A308D3u, high_ = 0x13198A2E03707344u;
};

}  // namespace dimmer

#endif  // DIMMER_TRAINING_FINGERPRINT_H_
