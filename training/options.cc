#include "training/options.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "engine/util/status.h"
#include "training/data.h"
#include "training/package_target.h"

namespace dimmer {

std::string BaseName(const std::string& path) {
  const std::filesystem::path lexical = std::filesystem::path(path).lexically_normal();
  return lexical.has_filename() ? lexical.filename().string()
                                : lexical.parent_path().filename().string();
}

absl::Status CheckRange(const char* option, double value, double low, double high) {
  if (std::isfinite(value) && value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: found {:g}, expected {:g} to {:g}", option, value, low, high));
}

absl::Status TrainOptions::Validate() const {
  DIMMER_RETURN_IF_ERROR(CheckRange("--workers", workers, 1, 256));
  DIMMER_RETURN_IF_ERROR(CheckRange("--epochs", epochs, 0, 1000));
  DIMMER_RETURN_IF_ERROR(CheckRange("--batch-size", batch_size, 1, 65536));
  DIMMER_RETURN_IF_ERROR(CheckRange("--learning-rate", learning_rate, 1e-12, 1));
  DIMMER_RETURN_IF_ERROR(CheckRange("--weight-decay", weight_decay, 0, 1));
  DIMMER_RETURN_IF_ERROR(CheckRange("--warm-up", warmup, 0, 1));
  DIMMER_RETURN_IF_ERROR(CheckRange("--final-rate", final_rate, 0, 1));
  DIMMER_RETURN_IF_ERROR(CheckRange("--beta2", beta2, 0, 1));
  const std::string name = "--" + PenaltyName(penalty);
  DIMMER_RETURN_IF_ERROR(CheckRange(name.c_str(), alpha, 0, 1e3));
  DIMMER_RETURN_IF_ERROR(CheckRange("--hoyer-ramp", alpha_ramp, 0, 1));
  return CheckRange("--checkpoint-steps", checkpoint_steps, 1, 1e9);
}

absl::Status ConvertOptions::Validate() const {
  if (task != "classification" && task != "language-model") {
    return absl::InvalidArgumentError(fmt::format(
        "--task: found \"{}\", expected \"classification\" or \"language-model\"", task));
  }
  if (dtype != "f16" && dtype != "f32") {
    return absl::InvalidArgumentError(
        fmt::format("--dtype: found \"{}\", expected \"f16\" or \"f32\"", dtype));
  }
  if (activation != "relu" && activation != "keep") {
    return absl::InvalidArgumentError(
        fmt::format("--activation: found \"{}\", expected \"relu\" or \"keep\"", activation));
  }
  DIMMER_RETURN_IF_ERROR(ParseDataFormat(format).status());
  for (const auto& [option, folder] :
       {std::pair("--to", &to), std::pair("--checkpoint", &checkpoint),
        std::pair("--work", &work)}) {
    if (folder->empty()) {
      return absl::InvalidArgumentError(
          fmt::format("{}: found nothing, expected a folder", option));
    }
  }
  DIMMER_RETURN_IF_ERROR(CheckApart(to, "--checkpoint", checkpoint));
  DIMMER_RETURN_IF_ERROR(CheckApart(to, "--work", work));
  DIMMER_RETURN_IF_ERROR(sparsify.Validate());
  DIMMER_RETURN_IF_ERROR(CheckRange("--experts", route.experts, 1, 65536));
  DIMMER_RETURN_IF_ERROR(CheckRange("--router-width", route.width, 0, 65536));
  DIMMER_RETURN_IF_ERROR(CheckRange("--router-epochs", route.epochs, 1, 1000));
  DIMMER_RETURN_IF_ERROR(CheckRange("--refine-epochs", route.refine_epochs, 0, 1000));
  DIMMER_RETURN_IF_ERROR(
      CheckRange("--router-tokens", static_cast<double>(route.max_tokens), 1, 1e12));
  DIMMER_RETURN_IF_ERROR(CheckRange("--max-tokens", max_tokens, 3, 1 << 20));
  DIMMER_RETURN_IF_ERROR(CheckRange("--keep-quality", keep_quality, 0, 1));
  DIMMER_RETURN_IF_ERROR(CheckRange("--held-out", held_out, 1e-6, 0.3));
  DIMMER_RETURN_IF_ERROR(CheckRange("--loss-increase", loss_increase, 0, 10));
  return absl::OkStatus();
}

uint32_t RouterWidthFor(int64_t model_width) {
  constexpr int64_t kStep = 8;
  const int64_t steps = (model_width + 3 * kStep) / (6 * kStep);
  return static_cast<uint32_t>(std::max<int64_t>(2, steps) * kStep);
}

std::string CommandLine(const ConvertOptions& o) {
  std::string command = fmt::format("dimmer-convert run --checkpoint {} --data {}",
                                    BaseName(o.checkpoint), BaseName(o.data));
  if (!o.exclude.empty()) command += " --exclude " + BaseName(o.exclude);
  if (!o.notes.empty()) command += " --notes " + BaseName(o.notes);
  command += fmt::format(
      " --format {} --task {} --seed {} --workers {} --epochs {} --batch-size {} "
      "--learning-rate {:g} --weight-decay {:g} --{} {:g} --max-tokens {} ",
      o.format, o.task, o.sparsify.seed, o.sparsify.workers, o.sparsify.epochs,
      o.sparsify.batch_size, o.sparsify.learning_rate, o.sparsify.weight_decay,
      PenaltyName(o.sparsify.penalty), o.sparsify.alpha, o.max_tokens);
  if (o.activation != "relu") command += fmt::format("--activation {} ", o.activation);
  const bool language = o.task == "language-model";
  command += language ? fmt::format(
                            "--warm-up {:g} --final-rate {:g} --beta2 {:g} --hoyer-ramp {:g} "
                            "--held-out {:g} ",
                            o.sparsify.warmup, o.sparsify.final_rate, o.sparsify.beta2,
                            o.sparsify.alpha_ramp, o.held_out)
                      : fmt::format("--calibration-rows {} ", o.calibration_rows);
  command += fmt::format("--experts {} --router-width {} --router-epochs {} --router-tokens {} ",
                         o.route.experts, o.route.width, o.route.epochs, o.route.max_tokens);
  if (o.route.refine_epochs > 0) {
    command += fmt::format("--refine-epochs {} ", o.route.refine_epochs);
  }
  command += language ? fmt::format("--loss-increase {:g} ", o.loss_increase)
                      : fmt::format("--keep-quality {:g} ", o.keep_quality);
  return command + fmt::format("--dtype {} --to PACKAGE_DIR --work WORK_DIR", o.dtype);
}

}  // namespace dimmer
