// Where a package comes from, for dimmer.json and the model card.
#ifndef DIMMER_TRAINING_PROVENANCE_H_
#define DIMMER_TRAINING_PROVENANCE_H_

#include <absl/status/statusor.h>

#include <nlohmann/json.hpp>
#include <string>

#include "training/conversion.h"

namespace dimmer {

// Command, seed, inputs with checksums, libraries, machine and what each stage reported. No times
// and no directories: the same conversion gives the same bytes.
absl::StatusOr<nlohmann::json> MakeProvenance(const ConversionInputs& inputs,
                                              const nlohmann::json& reports);

// "AMD EPYC 9B14 (avx512)": the processor's name, and the widest instruction set used.
std::string MachineType();

}  // namespace dimmer

#endif  // DIMMER_TRAINING_PROVENANCE_H_
