// Classification: labelled rows, accuracy.
#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/models/model.h"
#include "engine/text/tokenizer.h"
#include "engine/util/status.h"
#include "engine/util/thread_pool.h"
#include "training/accuracy.h"
#include "training/conversion_task.h"
#include "training/data.h"
#include "training/measure.h"
#include "training/model_card.h"
#include "training/tradeoff_plot.h"

namespace dimmer {
namespace {

constexpr double kPlottedShare = 0.99;

// Rows, labels and what is to be said about them in the package.
struct LoadedData {
  Split split;
  std::vector<std::string> labels;
  std::string label_counts;
  nlohmann::json report;
};

absl::StatusOr<LoadedData> LoadData(const ConvertOptions& options) {
  DIMMER_ASSIGN_OR_RETURN(const DataFormat format, ParseDataFormat(options.format));
  DIMMER_ASSIGN_OR_RETURN(std::vector<TextRow> rows, ReadRows(options.data, format));
  DIMMER_RETURN_IF_ERROR(CheckFirstLabel(rows, options.data));
  DIMMER_ASSIGN_OR_RETURN(const std::string checksum, FileChecksum(options.data));
  LoadedData loaded;
  loaded.report = {{"file", BaseName(options.data)}, {"checksum", checksum}, {"rows", rows.size()}};
  std::vector<TextRow> excluded;
  if (!options.exclude.empty()) {
    DIMMER_ASSIGN_OR_RETURN(excluded, ReadRows(options.exclude, format));
    DIMMER_ASSIGN_OR_RETURN(const std::string sum, FileChecksum(options.exclude));
    loaded.report["excluded_file"] = {{"file", BaseName(options.exclude)}, {"checksum", sum}};
  }
  const Cleaned cleaned = CleanRows(rows, excluded);
  loaded.report["dropped"] = {{"duplicates", cleaned.duplicates},
                              {"conflicting_labels", cleaned.conflicting},
                              {"in_excluded_file", cleaned.excluded}};
  if (cleaned.rows.empty()) {
    return absl::InvalidArgumentError(fmt::format("{}: no rows are left", options.data));
  }
  loaded.labels = LabelsOf(cleaned.rows);
  loaded.label_counts = LabelCounts(cleaned.rows);
  if (loaded.labels.size() < 2) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: found one label, \"{}\", expected two or more", options.data, loaded.labels.front()));
  }
  DIMMER_ASSIGN_OR_RETURN(loaded.split,
                          SplitRows(cleaned.rows, options.calibration_rows, options.sparsify.seed));
  loaded.report["training_rows"] = loaded.split.training.size();
  loaded.report["calibration_rows"] = loaded.split.calibration.size();
  return loaded;
}

uint64_t Tokens(std::span<const Example> examples) {
  uint64_t tokens = 0;
  for (const Example& example : examples) tokens += example.ids.size();
  return tokens;
}

nlohmann::json ToJson(const SweepPoint& point) {
  std::string correct;  // one character per row keeps the file small and exact
  for (bool right : point.correct) correct += right ? '1' : '0';
  return {{"tau", point.tau},
          {"flops", point.flops},
          {"dense_flops", point.dense_flops},
          {"experts_run", point.experts_run},
          {"correct", correct}};
}

SweepPoint SweepPointFromJson(const nlohmann::json& json) {
  SweepPoint point;
  point.tau = json.at("tau");
  point.flops = json.at("flops");
  point.dense_flops = json.at("dense_flops");
  point.experts_run = json.at("experts_run").get<std::vector<double>>();
  for (char c : json.at("correct").get<std::string>()) point.correct.push_back(c == '1');
  return point;
}

std::vector<SweepPoint> SweepFromJson(const nlohmann::json& report) {
  std::vector<SweepPoint> sweep;
  for (const nlohmann::json& point : report.at("points"))
    sweep.push_back(SweepPointFromJson(point));
  return sweep;
}

class ClassificationTask : public ConversionTask {
 public:
  ClassificationTask(std::vector<std::string> labels, std::vector<Example> training,
                     std::vector<Example> calibration)
      : labels_(std::move(labels)),
        training_(std::move(training)),
        calibration_(std::move(calibration)),
        fixed_(training_) {}

  TrainingData& training() override { return fixed_; }
  EpochCheck check(uint32_t workers) const override {
    return {.metric = "accuracy",
            .lower_is_better = false,
            .measure = [this, workers](const Trainee& model) {
              return Accuracy(model, calibration_, workers);
            }};
  }
  std::span<const Example> training_rows() const override { return training_; }
  std::span<const Example> check_rows() const override { return calibration_; }
  std::span<const Example> calibration_rows() const override { return calibration_; }

  nlohmann::json PackageConfig(const BaseModel& base, const ConvertOptions& options) const override;
  nlohmann::json BaseFacts(const BaseModel& base) const override {
    return {{"hidden_act", base.config.value("hidden_act", "gelu")},
            {"fresh_pooler", base.fresh_pooler},
            {"fresh_classifier", base.fresh_classifier}};
  }
  absl::StatusOr<nlohmann::json> Measure(const std::string& candidate,
                                         const ConvertOptions& options,
                                         Progress& progress) const override;
  CalibrationResult Conclude(const nlohmann::json& sweep,
                             const ConvertOptions& options) const override {
    const std::vector<SweepPoint> points = SweepFromJson(sweep);
    return {.calibration = CalibrationFrom(points, Tokens(calibration_)),
            .default_tau = points[LastPointKeeping(points, options.keep_quality)].tau};
  }
  std::string Plot(const PackageFacts& facts) const override;
  std::string Card(const PackageFacts& facts, const ConvertOptions& options) const override {
    const std::vector<SweepPoint> points = SweepFromJson(*facts.sweep);
    return RenderModelCard({.title = facts.title,
                            .notes = facts.notes,
                            .labels = labels_,
                            .spec = facts.spec,
                            .sweep = &points,
                            .keep_quality = options.keep_quality});
  }

 private:
  const std::vector<std::string> labels_;  // by class index
  const std::vector<Example> training_, calibration_;
  FixedRows fixed_;
};

nlohmann::json ClassificationTask::PackageConfig(const BaseModel& base,
                                                 const ConvertOptions& options) const {
  nlohmann::json config = base.config;
  config.erase("_name_or_path");
  config["architectures"] = {"BertForSequenceClassification"};
  if (options.activation == "relu") config["hidden_act"] = "relu";
  config["problem_type"] = "single_label_classification";
  config["torch_dtype"] = options.dtype == "f32" ? "float32" : "float16";
  config["id2label"] = nlohmann::json::object();
  config["label2id"] = nlohmann::json::object();
  for (size_t i = 0; i < labels_.size(); ++i) {
    config["id2label"][std::to_string(i)] = labels_[i];
    config["label2id"][labels_[i]] = i;
  }
  return config;
}

absl::StatusOr<nlohmann::json> ClassificationTask::Measure(const std::string& candidate,
                                                           const ConvertOptions& options,
                                                           Progress& progress) const {
  std::unique_ptr<Model> model;
  {
    DIMMER_ASSIGN_OR_RETURN(const Package package, Package::Open(candidate));
    DIMMER_ASSIGN_OR_RETURN(model, LoadModel(package));
  }
  const std::vector<double> taus = DefaultTaus();
  progress.Start("calibrate", "taus", taus.size());
  DIMMER_ASSIGN_OR_RETURN(
      const std::vector<SweepPoint> sweep,
      MeasureSweep(*model, calibration_, taus, options.sparsify.workers,
                   [&](const SweepPoint& point) {
                     progress.Advance(fmt::format("tau {:g}: {:.1f}% of FLOPs, accuracy {:.2f}%",
                                                  point.tau, 100 * point.flop_fraction(),
                                                  100 * point.accuracy().value));
                   }));
  progress.Finish();
  nlohmann::json points = nlohmann::json::array();
  for (const SweepPoint& point : sweep) points.push_back(ToJson(point));
  return nlohmann::json{{"points", points}};
}

std::string ClassificationTask::Plot(const PackageFacts& facts) const {
  const std::vector<SweepPoint> points = SweepFromJson(*facts.sweep);
  const Calibration& calibration = facts.spec->calibration;
  return RenderSvg(
      {.title = fmt::format("{}: accuracy against compute", facts.title),
       .subtitle = fmt::format("{} calibration rows; one point per tau, band: 95% interval",
                               calibration.rows),
       .calibration = calibration,
       .reference = kPlottedShare,
       .reference_point = LastPointKeeping(points, kPlottedShare),
       .default_tau = facts.spec->gate.default_tau});
}

absl::Status CheckRouterTokens(const ConvertOptions& options, std::span<const Example> training) {
  const auto shortest = std::min_element(
      training.begin(), training.end(),
      [](const Example& a, const Example& b) { return a.ids.size() < b.ids.size(); });
  if (options.route.max_tokens >= shortest->ids.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("--router-tokens: found {}, expected at least {}, the tokens of the shortest "
                  "training row",
                  options.route.max_tokens, shortest->ids.size()));
}

}  // namespace

absl::StatusOr<LoadedTask> LoadClassification(const ConvertOptions& options, Progress& progress) {
  DIMMER_ASSIGN_OR_RETURN(LoadedData data, LoadData(options));
  LoadedTask loaded;
  DIMMER_ASSIGN_OR_RETURN(
      loaded.base, LoadBaseClassifier(options.checkpoint, data.labels, options.sparsify.seed));
  const ModelLayout& layout = loaded.base.layout;
  DIMMER_RETURN_IF_ERROR(CheckExperts(options, layout));
  DIMMER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(options.checkpoint));
  DIMMER_RETURN_IF_ERROR(CheckVocabulary(options, *tokenizer, layout));
  const auto max_tokens =
      static_cast<uint32_t>(std::min<int64_t>(options.max_tokens, layout.positions));
  DIMMER_ASSIGN_OR_RETURN(std::vector<Example> training,
                          Tokenize(*tokenizer, data.split.training, data.labels, max_tokens));
  DIMMER_ASSIGN_OR_RETURN(std::vector<Example> calibration,
                          Tokenize(*tokenizer, data.split.calibration, data.labels, max_tokens));
  DIMMER_RETURN_IF_ERROR(CheckRouterTokens(options, training));
  loaded.data_report = std::move(data.report);
  nlohmann::json& report = loaded.data_report;
  report["training_tokens"] = Tokens(training);
  report["calibration_tokens"] = Tokens(calibration);
  const nlohmann::json& dropped = report["dropped"];
  progress.Note(fmt::format(
      "{}: {} rows; dropped {} duplicates, {} with conflicting labels, {} of the excluded file; "
      "{} for training ({} tokens), {} for calibration; labels: {}",
      report["file"].get<std::string>(), report["rows"].get<uint64_t>(),
      dropped["duplicates"].get<uint64_t>(), dropped["conflicting_labels"].get<uint64_t>(),
      dropped["in_excluded_file"].get<uint64_t>(), training.size(), Tokens(training),
      calibration.size(), data.label_counts));
  loaded.task = std::make_unique<ClassificationTask>(std::move(data.labels), std::move(training),
                                                     std::move(calibration));
  return loaded;
}

}  // namespace dimmer
