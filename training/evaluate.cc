#include "training/evaluate.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "engine/models/model.h"
#include "engine/package/package.h"
#include "engine/package/version_directory.h"
#include "engine/text/tokenizer.h"
#include "engine/util/status.h"
#include "training/data.h"
#include "training/measure.h"

namespace dimmer {
namespace {

nlohmann::json ToJson(const Interval& interval) {
  return {{"value", interval.value}, {"low", interval.low}, {"high", interval.high}};
}

nlohmann::json Report(const std::vector<SweepPoint>& sweep, const Model& model) {
  nlohmann::json points = nlohmann::json::array();
  for (const SweepPoint& point : sweep) {
    points.push_back(
        {{"tau", point.tau},
         {"flops", point.flops},
         {"flop_fraction", point.flop_fraction()},
         {"accuracy", ToJson(point.accuracy())},
         {"difference", ToJson(PairedDifference(sweep.front().correct, point.correct))},
         {"experts_run", point.experts_run}});
  }
  const SweepPoint& kept = sweep[LastPointKeeping(sweep, 0.99)];
  return {{"rows", sweep.front().correct.size()},
          {"dense_flops", sweep.front().dense_flops},
          {"default_tau", model.info().gate.default_tau},
          {"points", points},
          {"keeps_99_percent",
           {{"tau", kept.tau},
            {"flop_fraction", kept.flop_fraction()},
            {"accuracy", kept.accuracy().value}}}};
}

void PrintTable(const nlohmann::json& report, std::FILE* out) {
  fmt::print(out, "{} rows, default tau {:g}\n\n", report.at("rows").get<uint64_t>(),
             report.at("default_tau").get<double>());
  fmt::print(out, "{:>6}  {:>7}  {:>8}  {:>15}  {:>24}  {}\n", "tau", "FLOPs", "accuracy",
             "95% interval", "difference from tau 0", "experts run per layer");
  for (const nlohmann::json& point : report.at("points")) {
    const auto percent = [&](const char* key, const char* part) {
      return 100 * point.at(key).at(part).get<double>();
    };
    std::string experts;
    for (double mean : point.at("experts_run")) experts += fmt::format("{:6.1f}", mean);
    fmt::print(
        out,
        "{:>6g}  {:>6.1f}%  {:>7.2f}%  {:>5.2f} to {:>5.2f}%  {:>+6.2f} ({:+.2f} to {:+.2f}) {}\n",
        point.at("tau").get<double>(), 100 * point.at("flop_fraction").get<double>(),
        percent("accuracy", "value"), percent("accuracy", "low"), percent("accuracy", "high"),
        percent("difference", "value"), percent("difference", "low"), percent("difference", "high"),
        experts);
  }
  const nlohmann::json& kept = report.at("keeps_99_percent");
  fmt::print(out,
             "\n99% of the accuracy at tau 0 is kept down to {:.1f}% of the FLOPs (tau {:g})\n",
             100 * kept.at("flop_fraction").get<double>(), kept.at("tau").get<double>());
}

}  // namespace

std::vector<double> TausOf(const EvaluateOptions& options, const ModelInfo& info) {
  std::vector<double> taus = options.taus;
  if (taus.empty()) {
    for (const CalibrationPoint& point : info.calibration.points) taus.push_back(point.tau);
  }
  if (!info.converted) taus.clear();
  taus.push_back(0);
  std::sort(taus.begin(), taus.end());
  taus.erase(std::unique(taus.begin(), taus.end()), taus.end());
  return taus;
}

absl::Status EvaluateOptions::Validate() const {
  DIMMER_RETURN_IF_ERROR(ParseDataFormat(format).status());
  constexpr std::string_view kParts[] = {"", "training", "validation", "calibration", "test"};
  if (std::find(std::begin(kParts), std::end(kParts), part) == std::end(kParts)) {
    return absl::InvalidArgumentError(fmt::format(
        "--part: found \"{}\", expected training, validation, calibration or test", part));
  }
  for (double tau : taus) {
    if (!std::isfinite(tau) || tau < 0 || tau > 1) {
      return absl::InvalidArgumentError(fmt::format("--tau: found {:g}, expected 0 to 1", tau));
    }
  }
  return absl::OkStatus();
}

absl::Status Evaluate(const EvaluateOptions& options, std::FILE* out, Progress& progress) {
  const std::string directory = VersionDirectory(options.model);
  std::unique_ptr<Model> model;
  {
    DIMMER_ASSIGN_OR_RETURN(const Package package, Package::Open(directory));
    DIMMER_ASSIGN_OR_RETURN(model, LoadModel(package));
  }
  const std::vector<Task>& tasks = model->info().tasks;
  if (std::find(tasks.begin(), tasks.end(), Task::kScoring) != tasks.end()) {
    return EvaluateLanguageModel(options, directory, *model, out, progress);
  }
  if (!options.part.empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "--part: {} is no language model, expected none: measure a file of its own", directory));
  }
  if (model->info().labels.empty()) {
    return absl::FailedPreconditionError(fmt::format("{}: the model has no classifier", directory));
  }
  DIMMER_ASSIGN_OR_RETURN(const DataFormat format, ParseDataFormat(options.format));
  DIMMER_ASSIGN_OR_RETURN(const std::vector<TextRow> rows, ReadRows(options.data, format));
  DIMMER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(directory));
  const uint32_t limit = model->info().max_tokens;
  const uint32_t max_tokens = options.max_tokens == 0 ? limit : std::min(options.max_tokens, limit);
  auto examples = Tokenize(*tokenizer, rows, model->info().labels, max_tokens);
  if (!examples.ok()) return Annotate(examples.status(), options.data);
  const std::vector<double> taus = TausOf(options, model->info());
  progress.Start("evaluate", "taus", taus.size());
  DIMMER_ASSIGN_OR_RETURN(const std::vector<SweepPoint> sweep,
                          MeasureSweep(*model, *examples, taus, options.workers,
                                       [&](const SweepPoint&) { progress.Advance(""); }));
  progress.Finish();
  const nlohmann::json report = Report(sweep, *model);
  if (options.json) {
    fmt::print(out, "{}\n", report.dump(2));
  } else {
    PrintTable(report, out);
  }
  return absl::OkStatus();
}

}  // namespace dimmer
