#include "training/language_card.h"

#include <absl/strings/str_join.h>
#include <fmt/format.h>

#include <vector>

#include "training/language_measure.h"
#include "training/sparsity.h"

namespace dimmer {
namespace {

constexpr double kOverfit = 1.03;    // validation loss over training loss, to say so
constexpr size_t kShownEpochs = 12;  // of a longer pretraining, every n-th

std::string Made(const nlohmann::json& provenance) {
  const nlohmann::json& base = provenance.at("base");
  const nlohmann::json& data = provenance.at("data");
  const auto documents = [&](const char* part) {
    return data.at(part).at("documents").get<uint64_t>();
  };
  std::string text = fmt::format(
      "## How it was made\n\n```\n{}\n```\n\n"
      "Seed {}, {}, on {}. Base: `{}` ({}).",
      provenance.at("command").get<std::string>(), provenance.at("seed").get<uint64_t>(),
      provenance.at("tool").get<std::string>(), provenance.at("machine").get<std::string>(),
      base.at("name").get<std::string>(), base.at("architecture").get<std::string>());
  text += fmt::format(" Data: `{}`, {} documents, of which {} duplicates were dropped",
                      data.at("file").get<std::string>(), data.at("documents").get<uint64_t>(),
                      data.at("dropped").at("duplicates").get<uint64_t>());
  if (data.contains("excluded_file")) {
    text += fmt::format(", and {} that also occur in `{}`",
                        data.at("dropped").at("in_excluded_file").get<uint64_t>(),
                        data.at("excluded_file").at("file").get<std::string>());
  }
  return text + fmt::format(
                    ". Trained on {} documents ({} tokens); {} for validation; {} for calibration, "
                    "which chose the default tau; {} for the test, which chose nothing. Checksums, "
                    "library versions and all reports are in `dimmer.json`.\n",
                    documents("training"), data.at("training").at("tokens").get<uint64_t>(),
                    documents("validation"), documents("calibration"), documents("test"));
}

std::string TrainingCurve(const nlohmann::json& epochs) {
  if (epochs.empty()) return "\nThe weights are those of the base: it was not fine-tuned.\n";
  const Penalty penalty = PenaltyOf(epochs.at(0));
  std::string text = fmt::format(
      "\nFine-tuning for sparse activations:\n\n| epoch | training loss, nats per token | {} | "
      "active neurons per layer, % | validation, bits per byte |\n|---|---|---|---|---|\n",
      PenaltyTitle(penalty));
  for (const nlohmann::json& epoch : epochs) {
    std::vector<std::string> active;
    for (const double share : epoch.at("active")) {
      active.push_back(fmt::format("{:.1f}", 100 * share));
    }
    text +=
        fmt::format("| {} | {:.3f} | {:.1f} | {} | {:.4f} |\n", epoch.at("epoch").get<int>(),
                    epoch.at("loss").get<double>(), epoch.at(PenaltyName(penalty)).get<double>(),
                    absl::StrJoin(active, ", "), epoch.at(std::string(kBitsPerByte)).get<double>());
  }
  return text;
}

std::string Pretraining(const nlohmann::json& base) {
  if (!base.contains("pretraining")) return "";
  const nlohmann::json& result = base.at("pretraining").at("result");
  std::string text = fmt::format(
      "\nPretraining, from scratch:\n\n```\n{}\n```\n\n| epoch | training loss, nats per token "
      "(with dropout) | validation, bits per byte |\n|---|---|---|\n",
      base.at("pretraining").at("command").get<std::string>());
  const nlohmann::json& epochs = result.at("epochs");
  const size_t every = (epochs.size() + kShownEpochs - 1) / kShownEpochs;
  for (const nlohmann::json& epoch : epochs) {
    const auto number = epoch.at("epoch").get<size_t>();
    const bool best = number == result.at("best_epoch").get<size_t>();
    if (number % every != 0 && number != 1 && number != epochs.size() && !best) continue;
    text += fmt::format("| {} | {:.3f} | {:.4f} |\n", epoch.at("epoch").get<int>(),
                        epoch.at("loss").get<double>(),
                        epoch.at(std::string(kBitsPerByte)).get<double>());
  }
  const auto bits = [&](const char* part) {
    return result.at(part).at("bits_per_byte").get<double>();
  };
  return text +
         fmt::format(
             "\nEpoch {} was kept (lowest validation loss). Bits per byte of the dense model "
             "before sparsification: training documents {:.4f}, validation {:.4f}, test "
             "{:.4f}.{}\n",
             result.at("best_epoch").get<uint64_t>(), bits("training"), bits("validation"),
             bits("test"),
             bits("validation") > kOverfit * bits("training")
                 ? " The gap between training and the others is overfitting: the corpus is small."
                 : "");
}

// "+0.31% (+0.20 to +0.42)"
std::string Increase(const LossPoint& base, const LossPoint& point) {
  const Interval interval = LossIncrease(base, point);
  return fmt::format("{:+.2f}% ({:+.2f} to {:+.2f})", 100 * interval.value, 100 * interval.low,
                     100 * interval.high);
}

std::string Curve(const PackageFacts& facts, double loss_increase) {
  const LossSweep sweep = LossSweepFromJson(facts.sweep->at("calibration"));
  const LossSweep test = LossSweepFromJson(facts.sweep->at("test"));
  const LossPoint base = LossSweepFromJson(facts.sweep->at("base_test")).points.front();
  const Calibration& calibration = facts.spec->calibration;
  std::string text = fmt::format(
      "\n## Loss against compute\n\n![Trade-off](tradeoff.svg)\n\n"
      "Bits per byte (total nats / ln 2 / bytes of text; the end of a document is predicted too) "
      "on {} calibration and {} test documents; lower is better. Intervals are 95%, by bootstrap "
      "over documents. FLOPs are of the whole model on the calibration documents, routers "
      "included, "
      "over the dense model's, of which the FFNs are {:.1f}%; one multiply-accumulate is 2 FLOPs. "
      "The last column compares with the dense model before sparsification, {:.4f} bits per byte "
      "on "
      "the test documents. Measured through the engine that serves the package.\n\n"
      "| tau | FLOPs | calibration | 95% interval | increase from tau 0 | experts run per layer | "
      "test | test, increase from before sparsification |\n|---|---|---|---|---|---|---|---|\n",
      sweep.text.bytes.size(), test.text.bytes.size(),
      100 * facts.sweep->at("ffn_share").get<double>(), BitsPerByte(test.text, base));
  for (size_t i = 0; i < sweep.points.size(); ++i) {
    const LossPoint& point = sweep.points[i];
    const CalibrationPoint& shown = calibration.points[i];
    std::vector<std::string> experts;
    for (const double mean : point.experts_run) experts.push_back(fmt::format("{:.1f}", mean));
    text += fmt::format(
        "| {0}{1:g}{0} | {2:.1f}% | {3:.4f} | {4:.4f} to {5:.4f} | {6} | {7} | "
        "{8:.4f} | {9} |\n",
        point.tau == facts.spec->gate.default_tau ? "**" : "", point.tau,
        100 * point.flop_fraction(), shown.quality, shown.quality_low, shown.quality_high,
        Increase(sweep.points.front(), point), absl::StrJoin(experts, ", "),
        BitsPerByte(test.text, test.points[i]), Increase(base, test.points[i]));
  }
  return text +
         fmt::format(
             "\nDefault tau: **{:g}**, the largest measured tau that, like all smaller ones, "
             "loses at most {:g}% against tau 0 on the calibration documents.\n",
             facts.spec->gate.default_tau, 100 * loss_increase);
}

}  // namespace

std::string RenderLanguageCard(const PackageFacts& facts, double loss_increase) {
  const MoeSpec& spec = *facts.spec;
  std::string text = fmt::format(
      "# {}\n\nA language model whose compute can be turned down per request: {} FFN layers split "
      "into {} experts of {} neurons each, with a router of width {}.\n\n"
      "The directory is also an ordinary `{}` checkpoint: `transformers` opens it as the dense "
      "model, which is what tau 0 computes.\n",
      facts.title, spec.modules.size(), spec.modules.front().experts,
      spec.modules.front().expert_size, spec.modules.front().router_width,
      spec.provenance.at("base").at("architecture").get<std::string>());
  if (!facts.notes.empty()) text += "\n" + facts.notes + (facts.notes.ends_with('\n') ? "" : "\n");
  text += "\n" + Made(spec.provenance) + Pretraining(spec.provenance.at("base")) +
          TrainingCurve(spec.provenance.at("training")) + Curve(facts, loss_increase);
  return text +
         "\n## Limits\n\n"
         "- The default tau was chosen on the calibration documents, so their figures are slightly "
         "optimistic; the test column is not.\n"
         "- Figures hold for texts like the training documents; on other texts both the loss and "
         "the "
         "FLOPs at a tau differ.\n"
         "- The model continues text. It knows nothing but its training documents, and what it "
         "writes need not be true or sensible.\n";
}

}  // namespace dimmer
