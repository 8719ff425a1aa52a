#include "training/model_card.h"

#include <absl/strings/str_join.h>
#include <fmt/format.h>

#include <numeric>

#include "training/sparsity.h"

namespace dimmer {
namespace {

std::string Made(const nlohmann::json& provenance) {
  const nlohmann::json& base = provenance.at("base");
  const nlohmann::json& data = provenance.at("data");
  const nlohmann::json& dropped = data.at("dropped");
  std::string text = fmt::format(
      "## How it was made\n\n```\n{}\n```\n\n"
      "Seed {}, {}, on {}. Base: `{}` ({})",
      provenance.at("command").get<std::string>(), provenance.at("seed").get<uint64_t>(),
      provenance.at("tool").get<std::string>(), provenance.at("machine").get<std::string>(),
      base.at("name").get<std::string>(), base.at("architecture").get<std::string>());
  if (base.contains("derived_from")) {
    text += fmt::format(", derived from `{}`", base.at("derived_from").get<std::string>());
  }
  for (const auto& [stage, made_on] : provenance.at("stages_made_on").items()) {
    if (made_on != provenance.at("stages_made_on").at("sparsify")) {
      text += fmt::format(", stage `{}` on {}", stage, made_on.at("machine").get<std::string>());
    }
  }
  text += fmt::format(
      ". Data: `{}`, {} rows, of which {} duplicates and {} rows with conflicting labels were "
      "dropped",
      data.at("file").get<std::string>(), data.at("rows").get<uint64_t>(),
      dropped.at("duplicates").get<uint64_t>(), dropped.at("conflicting_labels").get<uint64_t>());
  if (data.contains("excluded_file")) {
    text += fmt::format(", and {} that also occur in `{}`",
                        dropped.at("in_excluded_file").get<uint64_t>(),
                        data.at("excluded_file").at("file").get<std::string>());
  }
  text += fmt::format(
      ". Trained on {} rows; {} rows, seen by no training step, chose the default tau and "
      "gave the figures below. Checksums, library versions and all reports are in `dimmer.json`.\n",
      data.at("training_rows").get<uint64_t>(), data.at("calibration_rows").get<uint64_t>());
  return text;
}

std::string TrainingCurve(const nlohmann::json& epochs) {
  if (epochs.empty()) return "\nThe weights are those of the base: it was not fine-tuned.\n";
  const Penalty penalty = PenaltyOf(epochs.at(0));
  std::string text = fmt::format(
      "\n| epoch | loss | {} | active neurons per layer, % | accuracy on the calibration rows |\n"
      "|---|---|---|---|---|\n",
      PenaltyTitle(penalty));
  for (const nlohmann::json& epoch : epochs) {
    std::vector<std::string> active;
    for (double share : epoch.at("active")) active.push_back(fmt::format("{:.1f}", 100 * share));
    text +=
        fmt::format("| {} | {:.3f} | {:.1f} | {} | {:.1f}% |\n", epoch.at("epoch").get<int>(),
                    epoch.at("loss").get<double>(), epoch.at(PenaltyName(penalty)).get<double>(),
                    absl::StrJoin(active, ", "), 100 * epoch.at("accuracy").get<double>());
  }
  return text;
}

std::string Curve(const ModelCard& card) {
  const std::vector<SweepPoint>& sweep = *card.sweep;
  std::string text = fmt::format(
      "\n## Quality against compute\n\n![Trade-off](tradeoff.svg)\n\n"
      "Accuracy on the {} calibration rows with its 95% interval (Wilson), and its paired "
      "difference from tau 0. FLOPs are of the whole model, routers included, over the dense "
      "model's; one multiply-accumulate is 2 FLOPs. Measured through the engine that serves the "
      "package.\n\n"
      "| tau | FLOPs | accuracy | 95% interval | difference from tau 0 | experts run per layer "
      "|\n|---|---|---|---|---|---|\n",
      card.spec->calibration.rows);
  for (const SweepPoint& point : sweep) {
    const Interval accuracy = point.accuracy();
    const Interval difference = PairedDifference(sweep.front().correct, point.correct);
    std::vector<std::string> experts;
    for (double mean : point.experts_run) experts.push_back(fmt::format("{:.1f}", mean));
    const bool is_default = point.tau == card.spec->gate.default_tau;
    text += fmt::format(
        "| {0}{1:g}{0} | {2:.1f}% | {3:.2f}% | {4:.1f} to {5:.1f}% | {6:+.2f} ({7:+.2f} to "
        "{8:+.2f}) | {9} |\n",
        is_default ? "**" : "", point.tau, 100 * point.flop_fraction(), 100 * accuracy.value,
        100 * accuracy.low, 100 * accuracy.high, 100 * difference.value, 100 * difference.low,
        100 * difference.high, absl::StrJoin(experts, ", "));
  }
  const SweepPoint& kept = sweep[LastPointKeeping(sweep, 0.99)];
  text += fmt::format(
      "\nDefault tau: **{:g}**, the largest measured tau that, like all smaller ones, keeps {:g}% "
      "of the accuracy at tau 0 on the calibration rows. 99% of it is kept down to {:.1f}% of the "
      "FLOPs (tau {:g}).\n",
      card.spec->gate.default_tau, 100 * card.keep_quality, 100 * kept.flop_fraction(), kept.tau);
  return text;
}

}  // namespace

std::string RenderModelCard(const ModelCard& card) {
  const MoeSpec& spec = *card.spec;
  const nlohmann::json& provenance = spec.provenance;
  std::string text = fmt::format(
      "# {}\n\nA text classifier whose compute can be turned down per request: {} FFN layers split "
      "into {} experts of {} neurons each, with a router of width {}. Labels: {}.\n\n"
      "The directory is also an ordinary `BertForSequenceClassification` checkpoint: "
      "`transformers` opens it as the dense model, which is what tau 0 computes.\n",
      card.title, spec.modules.size(), spec.modules.front().experts,
      spec.modules.front().expert_size, spec.modules.front().router_width,
      absl::StrJoin(card.labels, ", "));
  if (!card.notes.empty()) text += "\n" + card.notes + (card.notes.ends_with('\n') ? "" : "\n");
  text += "\n" + Made(provenance) + TrainingCurve(provenance.at("training")) + Curve(card);
  text +=
      "\n## Limits\n\n"
      "- Choices were made on the calibration rows, so their figures are slightly optimistic; "
      "measure on held-out rows of your own with `dimmer-convert evaluate`.\n"
      "- Figures hold for texts like the training data's; on other texts both the accuracy and "
      "the FLOPs at a tau differ.\n"
      "- The classifier always answers with one of its labels, whatever the text.\n";
  return text;
}

}  // namespace dimmer
