// Where a package comes from, for dimmer.json and the model card.
#ifndef DIMMER_TRAINING_PROVENANCE_H_
#define DIMMER_TRAINING_PROVENANCE_H_

#include <absl/status/statusor.h>

#include <nlohmann/json.hpp>
#include <string>

#include "training/conversion.h"

namespace dimmer {

// Command, seed, inputs with checksums, what each stage reported, and the libraries, machine and
// environment that it was computed with (at the top: those of the trained weights). No times
// and no directories: the same conversion gives the same bytes.
absl::StatusOr<nlohmann::json> MakeProvenance(const ConversionInputs& inputs,
                                              const nlohmann::json& reports);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_PROVENANCE_H_
