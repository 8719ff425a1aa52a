#include "server/readiness.h"

#include <algorithm>

namespace dimmer {

absl::Status Readiness::Admit() const {
  switch (phase()) {
    case Phase::kStarting:
      return absl::UnavailableError("Server is starting: models are not loaded yet");
    case Phase::kDraining:
      return absl::UnavailableError("GRPC server is shutting down");
    case Phase::kServing:
      break;
  }
  return absl::OkStatus();
}

bool Readiness::ServerReady() const {
  if (phase() != Phase::kServing) return false;
  const auto models = engine_->Models();
  return models.empty() ||
         std::any_of(models.begin(), models.end(), [](const ModelStatus& m) { return m.ready; });
}

bool Readiness::ModelReady(const std::string& model, const std::string& version) const {
  return phase() == Phase::kServing && engine_->Find(model, version).ok();
}

bool Readiness::KnowsModel(const std::string& model) const {
  const auto models = engine_->Models();
  return std::any_of(models.begin(), models.end(),
                     [&](const ModelStatus& m) { return m.name == model; });
}

}  // namespace dimmer
