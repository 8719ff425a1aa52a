// Between the engine's types and the messages of dimmer.v1.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_CONVERT_H_
#define DIMMER_SERVER_CONVERT_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dimmer/v1/admin.pb.h"
#include "dimmer/v1/inference.pb.h"
#include "engine/engine.h"

namespace dimmer {

Budget ToBudget(const v1::Budget& budget);

void FromUsage(const Usage& usage, v1::Usage* out);

// The best `top_k` labels (0: all), descending score, ties by index. A class without a name is
// called LABEL_<index>.
void FromScores(std::span<const float> scores, const std::vector<std::string>& labels,
                uint32_t top_k, google::protobuf::RepeatedPtrField<v1::Label>* out);

void FromPiece(const Piece& piece, v1::GenerateResponse* out);
// The last message of a generation: how it ended.
void FromGeneration(const Response& response, v1::GenerateResponse* out);

// LABEL_<index> where the model has no name for it.
std::string LabelName(const std::vector<std::string>& labels, size_t index);
// The first of the largest; `scores` must not be empty.
size_t BestIndex(std::span<const float> scores);

// InvalidArgument names the field: an unknown module, a ttl that is negative or beyond a century.
absl::StatusOr<TauChange> ToTauChange(const v1::SetTauRequest& request);
// `cost` names the modules of settings.layer_tau.
void FromTauState(const TauState& state, const CostModel& cost, v1::TauSettings* out);
void FromTauAnswer(const TauAnswer& answer, const CostModel& cost, v1::SetTauResponse* out);

// `tau` may be null (no settings known).
void FromModelStatus(const ModelStatus& status, const TauState* tau, const Scheduler::Load& load,
                     v1::Model* out);

std::string_view TaskName(Task task);  // "classification", "embedding", "generation", "scoring"

}  // namespace dimmer

#endif  // DIMMER_SERVER_CONVERT_H_
