// Stage 1, sparsify.
#include <filesystem>

#include "engine/util/status.h"
#include "training/conversion.h"
#include "training/runtime.h"
#include "training/trainee.h"
#include "training/trainer.h"

namespace dimmer {

absl::Status Conversion::Sparsify() {
  DIMMER_ASSIGN_OR_RETURN(const StageDir stage, Stage("sparsify"));
  const std::string fingerprint = SparsifyFingerprint();
  if (stage.Done(fingerprint).has_value()) {
    progress_.Note("sparsify: done before");
    return absl::OkStatus();
  }
  const std::unique_ptr<Trainee> model =
      MakeTrainee(inputs_.base.shape, inputs_.base.weights, inputs_.sparsity());
  const EpochCheck check = inputs_.task->check(inputs_.options.sparsify.workers);
  const std::string penalty = PenaltyName(inputs_.options.sparsify.penalty);
  TrainCallbacks callbacks;
  bool started = false;
  callbacks.on_start = [&](uint64_t done, uint64_t steps) {
    progress_.Start("sparsify", "steps", steps, done);
    started = true;
  };
  callbacks.on_progress = [&](const TrainProgress& now) {
    progress_.Update(now.step, fmt::format("loss {:.4f}  {} {:.1f}  active {:.2f}%", now.loss,
                                           penalty, now.penalty, 100 * now.active));
  };
  callbacks.on_epoch = [&](const EpochReport& report) {
    std::string active;
    for (double share : report.active) active += fmt::format(" {:.1f}", 100 * share);
    progress_.Note(fmt::format("epoch {}: loss {:.4f}, {} {:.1f}, active % per layer{}, {} {:.4f}",
                               report.epoch, report.loss, penalty, report.penalty, active,
                               check.metric, report.quality));
  };
  std::vector<EpochReport> reports;
  if (inputs_.options.sparsify.epochs > 0) {
    DIMMER_ASSIGN_OR_RETURN(
        reports,
        Train(*model, inputs_.task->training(), check, inputs_.options.sparsify,
              {.path = stage.Path("state.safetensors"), .fingerprint = fingerprint}, callbacks));
  }
  if (started) progress_.Finish();
  // Rounded to the package's dtype here, so that every later stage sees what will be served.
  DIMMER_RETURN_IF_ERROR(SaveWeights(stage.Path("model.safetensors"), inputs_.base.layout,
                                     WeightsOf(*model), inputs_.options.weight_dtype()));
  nlohmann::json epochs = nlohmann::json::array();
  for (const EpochReport& report : reports) epochs.push_back(ToJson(report, check.metric, penalty));
  DIMMER_RETURN_IF_ERROR(stage.MarkDone(fingerprint, {"model.safetensors"},
                                        {{"epochs", epochs}, {"made_on", Surroundings()}}));
  std::error_code ignored;  // 12 bytes per weight that nobody needs any more
  std::filesystem::remove(stage.Path("state.safetensors"), ignored);
  return absl::OkStatus();
}

}  // namespace dimmer
