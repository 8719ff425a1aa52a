// Language models: documents, the loss of the next token.
#include <algorithm>
#include <filesystem>
#include <utility>

#include "engine/models/model.h"
#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"
#include "training/conversion_task.h"
#include "training/engine_scorer.h"
#include "training/language_card.h"
#include "training/language_loss.h"
#include "training/language_measure.h"
#include "training/pretrain.h"
#include "training/text_corpus.h"
#include "training/tradeoff_plot.h"

namespace dimmer {
namespace {

constexpr double kPlottedIncrease = 0.01;
constexpr uint64_t kMaxPretrainingBytes = 16 << 20;
constexpr uint64_t kMaxMeasured = 20000;  // documents of a part
constexpr double kPlottedRange = 0.3;     // points of a higher loss would flatten the rest

class LanguageTask : public ConversionTask {
 public:
  LanguageTask(TextCorpus corpus, uint32_t context, uint64_t seed, nlohmann::json pretraining)
      : corpus_(std::move(corpus)),
        context_(context),
        pretraining_(std::move(pretraining)),
        training_rows_(WindowExamples(corpus_.training, context)),
        validation_rows_(WindowExamples(corpus_.validation, context)),
        calibration_rows_(WindowExamples(corpus_.calibration, context)),
        test_rows_(WindowExamples(corpus_.test, context)),
        stream_(corpus_.training, context, seed) {}

  TrainingData& training() override { return stream_; }
  EpochCheck check(uint32_t workers) const override {
    return ValidationCheck(corpus_.validation, validation_rows_, workers);
  }
  std::span<const Example> training_rows() const override { return training_rows_; }
  std::span<const Example> check_rows() const override { return validation_rows_; }
  std::span<const Example> calibration_rows() const override { return calibration_rows_; }
  std::span<const Example> test_rows() const override { return test_rows_; }

  nlohmann::json PackageConfig(const BaseModel& base,
                               const ConvertOptions& options) const override {
    nlohmann::json config = base.config;
    config.erase("_name_or_path");
    if (options.activation == "relu") config[base.layout.activation_key] = "relu";
    config["torch_dtype"] = options.dtype == "f32" ? "float32" : "float16";
    return config;
  }
  nlohmann::json BaseFacts(const BaseModel& base) const override {
    nlohmann::json facts = nlohmann::json::object();
    // Absent: the family's own, as `transformers` has it.
    if (base.config.contains(base.layout.activation_key)) {
      facts[base.layout.activation_key] = base.config[base.layout.activation_key];
    }
    if (!pretraining_.is_null()) facts["pretraining"] = pretraining_;
    return facts;
  }
  absl::StatusOr<nlohmann::json> Measure(const std::string& candidate,
                                         const ConvertOptions& options,
                                         Progress& progress) const override;
  CalibrationResult Conclude(const nlohmann::json& sweep,
                             const ConvertOptions& options) const override {
    const LossSweep measured = LossSweepFromJson(sweep.at("calibration"));
    return {.calibration = CalibrationFrom(measured),
            .default_tau = measured.points[LastPointWithin(measured, options.loss_increase)].tau};
  }
  std::string Plot(const PackageFacts& facts) const override;
  std::string Card(const PackageFacts& facts, const ConvertOptions& options) const override {
    return RenderLanguageCard(facts, options.loss_increase);
  }

 private:
  const TextCorpus corpus_;
  const uint32_t context_;
  const nlohmann::json pretraining_;  // of the base, if it was pretrained here; else null
  const std::vector<Example> training_rows_, validation_rows_, calibration_rows_, test_rows_;
  BlockStream stream_;
};

absl::StatusOr<std::unique_ptr<Model>> OpenModel(const std::string& directory) {
  DIMMER_ASSIGN_OR_RETURN(const Package package, Package::Open(directory));
  return LoadModel(package);
}

// The FFNs' part of the dense FLOPs: all that a budget can turn down.
double FfnShare(const CostModel& cost, const LossSweep& sweep) {
  uint64_t per_token = 0;
  for (const MoeCost& module : cost.moe) per_token += module.dense_flops();
  return static_cast<double>(per_token * sweep.text.predicted) /
         static_cast<double>(sweep.points.front().dense_flops);
}

absl::StatusOr<nlohmann::json> LanguageTask::Measure(const std::string& candidate,
                                                     const ConvertOptions& options,
                                                     Progress& progress) const {
  DIMMER_ASSIGN_OR_RETURN(const auto package, OpenModel(candidate));
  DIMMER_ASSIGN_OR_RETURN(const auto base, OpenModel(options.checkpoint));
  const std::vector<double> taus = DefaultTaus();
  constexpr double kDense[] = {0};
  nlohmann::json report = nlohmann::json::object();
  progress.Start("calibrate", "taus", 2 * (taus.size() + 1));
  for (const auto& [name, documents] :
       {std::pair("calibration", &corpus_.calibration), std::pair("test", &corpus_.test)}) {
    const auto measure = [&](const Model& model, std::span<const double> which) {
      return MeasureLoss(
          EngineScorer(model), *documents, context_, which, options.sparsify.workers,
          [&](const LossPoint& point) {
            progress.Advance(fmt::format(
                "{} documents, tau {:g}: {:.1f}% of FLOPs, {:.4f} bits per byte", name, point.tau,
                100 * point.flop_fraction(), BitsPerByte(Measured(*documents), point)));
          });
    };
    DIMMER_ASSIGN_OR_RETURN(const LossSweep sweep, measure(*package, taus));
    // What sparsification has cost shows against the checkpoint that it started from.
    DIMMER_ASSIGN_OR_RETURN(const LossSweep dense, measure(*base, kDense));
    if (report.empty()) report["ffn_share"] = FfnShare(package->info().cost, sweep);
    report[name] = ToJson(sweep);
    report[std::string("base_") + name] = ToJson(dense);
  }
  progress.Finish();
  return report;
}

std::string LanguageTask::Plot(const PackageFacts& facts) const {
  const LossSweep sweep = LossSweepFromJson(facts.sweep->at("calibration"));
  Calibration shown = facts.spec->calibration;
  const double highest = (1 + kPlottedRange) * shown.points.front().quality;
  while (shown.points.size() > 2 && shown.points.back().quality > highest) shown.points.pop_back();
  const size_t kept = LastPointWithin(sweep, kPlottedIncrease);
  return RenderSvg(
      {.title = fmt::format("{}: loss against compute", facts.title),
       .subtitle = fmt::format("{} calibration documents; one point per tau, band: 95% interval",
                               shown.rows),
       .calibration = shown,
       .axis = "bits per byte (lower is better)",
       .scale = 1,
       .reference = 1 + kPlottedIncrease,
       .reference_label = fmt::format("{:+g}% loss", 100 * kPlottedIncrease),
       .reference_point = std::min(kept, shown.points.size() - 1),
       .default_tau = facts.spec->gate.default_tau});
}

// InvalidArgument unless what a checkpoint was trained on, `data`, was split as `report` is: where
// a document goes depends on its text, --seed and --held-out alone, in whatever file it stands.
absl::Status CheckSameSplit(const std::string& checkpoint, const JsonFields& data,
                            const nlohmann::json& report) {
  DIMMER_ASSIGN_OR_RETURN(const int64_t seed, data.Int("split_seed", 0, INT64_MAX));
  DIMMER_ASSIGN_OR_RETURN(const double held_out, data.Number("held_out", 0, 1));
  const auto own_seed = report.at("split_seed").get<int64_t>();
  const auto own_share = report.at("held_out").get<double>();
  if (seed != own_seed || held_out != own_share) {
    return absl::InvalidArgumentError(
        fmt::format("{} was trained with --seed {} and --held-out {:g}, found {} and {:g}: it has "
                    "seen documents that would be held out here",
                    checkpoint, seed, held_out, own_seed, own_share));
  }
  if (!report.contains("excluded_file")) return absl::OkStatus();
  const nlohmann::json& excluded = report["excluded_file"];
  if (data.Has("excluded_file") && data.json().at("excluded_file") == excluded) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("--exclude: {} was not trained with {} excluded: it may have seen its documents",
                  checkpoint, excluded.at("file").get<std::string>()));
}

// What a checkpoint of `dimmer-convert pretrain` says of itself; null for others. InvalidArgument:
// it, or the conversion that a package comes from, has seen documents that are held out here.
absl::StatusOr<nlohmann::json> ReadPretraining(const std::string& checkpoint,
                                               const nlohmann::json& report) {
  const std::string path = checkpoint + "/" + kPretrainingFile;
  const bool pretrained = std::filesystem::exists(path);
  const std::string source = pretrained ? path : checkpoint + "/dimmer.json";
  if (!pretrained && !std::filesystem::exists(source)) return nlohmann::json();
  DIMMER_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(source, kMaxPretrainingBytes));
  DIMMER_ASSIGN_OR_RETURN(nlohmann::json json, ParseJson(text, source));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, source));
  if (!pretrained) {
    DIMMER_ASSIGN_OR_RETURN(const JsonFields made, fields.Object("provenance"));
    DIMMER_ASSIGN_OR_RETURN(const JsonFields data, made.Object("data"));
    DIMMER_RETURN_IF_ERROR(CheckSameSplit(checkpoint, data, report));
    return nlohmann::json();
  }
  DIMMER_ASSIGN_OR_RETURN(const JsonFields data, fields.Object("data"));
  DIMMER_RETURN_IF_ERROR(CheckSameSplit(checkpoint, data, report));
  // What the card shows.
  DIMMER_RETURN_IF_ERROR(fields.String("command").status());
  DIMMER_ASSIGN_OR_RETURN(const JsonFields result, fields.Object("result"));
  DIMMER_RETURN_IF_ERROR(result.Int("best_epoch", 1, INT32_MAX).status());
  for (const char* part : {"training", "validation", "test"}) {
    DIMMER_ASSIGN_OR_RETURN(const JsonFields loss, result.Object(part));
    DIMMER_RETURN_IF_ERROR(loss.Number("bits_per_byte", 0, 1e6).status());
  }
  DIMMER_ASSIGN_OR_RETURN(const std::vector<JsonFields> epochs, result.Objects("epochs"));
  for (const JsonFields& epoch : epochs) {
    DIMMER_RETURN_IF_ERROR(epoch.Int("epoch", 1, INT32_MAX).status());
    DIMMER_RETURN_IF_ERROR(epoch.Number("loss", 0, 1e6).status());
    DIMMER_RETURN_IF_ERROR(epoch.Number(kBitsPerByte, 0, 1e6).status());
  }
  return json;
}

// InvalidArgument: more than calibration keeps the losses of.
absl::Status CheckMeasured(const nlohmann::json& report) {
  for (const char* part : {"calibration", "test"}) {
    const uint64_t found = report.at(part).at("documents").get<uint64_t>();
    if (found <= kMaxMeasured) continue;
    return absl::InvalidArgumentError(fmt::format(
        "--held-out: found {} {} documents, at most {} are measured; hold out a smaller "
        "share",
        found, part, kMaxMeasured));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LoadedTask> LoadLanguageModel(const ConvertOptions& options, Progress& progress) {
  LoadedTask loaded;
  DIMMER_ASSIGN_OR_RETURN(loaded.base, LoadBaseLanguageModel(options.checkpoint));
  const ModelLayout& layout = loaded.base.layout;
  DIMMER_RETURN_IF_ERROR(CheckExperts(options, layout));
  DIMMER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(options.checkpoint));
  DIMMER_RETURN_IF_ERROR(CheckVocabulary(options, *tokenizer, layout));
  DIMMER_ASSIGN_OR_RETURN(SplitText text, ReadText({.data = options.data,
                                                    .exclude = options.exclude,
                                                    .held_out = options.held_out,
                                                    .seed = options.sparsify.seed}));
  DIMMER_ASSIGN_OR_RETURN(nlohmann::json pretraining,
                          ReadPretraining(options.checkpoint, text.report));
  DIMMER_RETURN_IF_ERROR(CheckMeasured(text.report));
  DIMMER_ASSIGN_OR_RETURN(const DocumentEnds ends, EndsOf(*tokenizer, loaded.base.end_ids));
  DIMMER_ASSIGN_OR_RETURN(TextCorpus corpus,
                          TokenizeText(*tokenizer, ends, text.split, text.report));
  const auto context =
      static_cast<uint32_t>(std::min<int64_t>(options.max_tokens, layout.positions));
  if (context < 2) {
    return absl::InvalidArgumentError(
        fmt::format("{}/config.json: found a context of {} tokens, expected at least 2",
                    options.checkpoint, context));
  }
  if (text.report.at("training").at("tokens").get<uint64_t>() < context) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: found {} training tokens, expected at least the context of {}", options.data,
        text.report.at("training").at("tokens").get<uint64_t>(), context));
  }
  progress.Note(DescribeText(text.report));
  loaded.data_report = std::move(text.report);
  loaded.task = std::make_unique<LanguageTask>(std::move(corpus), context, options.sparsify.seed,
                                               std::move(pretraining));
  return loaded;
}

}  // namespace dimmer
