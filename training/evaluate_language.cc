// dimmer-convert evaluate for language models.
#include <algorithm>

#include "engine/text/tokenizer.h"
#include "engine/util/status.h"
#include "training/blocks.h"
#include "training/documents.h"
#include "training/engine_scorer.h"
#include "training/evaluate.h"
#include "training/language_measure.h"
#include "training/text_corpus.h"

namespace dimmer {
namespace {

nlohmann::json ToJson(const Interval& interval) {
  return {{"value", interval.value}, {"low", interval.low}, {"high", interval.high}};
}

nlohmann::json Report(const LossSweep& sweep, const ModelInfo& info) {
  nlohmann::json points = nlohmann::json::array();
  for (const LossPoint& point : sweep.points) {
    points.push_back({{"tau", point.tau},
                      {"flops", point.flops},
                      {"flop_fraction", point.flop_fraction()},
                      {"bits_per_byte", ToJson(BitsPerByteInterval(sweep.text, point))},
                      {"perplexity", Perplexity(sweep.text, point)},
                      {"loss_increase", ToJson(LossIncrease(sweep.points.front(), point))},
                      {"experts_run", point.experts_run}});
  }
  return {{"documents", sweep.text.bytes.size()},
          {"tokens", sweep.text.predicted},
          {"dense_flops", sweep.points.front().dense_flops},
          {"default_tau", info.gate.default_tau},
          {"points", points}};
}

void PrintTable(const nlohmann::json& report, std::FILE* out) {
  fmt::print(out, "{} documents, {} tokens, default tau {:g}\n\n",
             report.at("documents").get<uint64_t>(), report.at("tokens").get<uint64_t>(),
             report.at("default_tau").get<double>());
  fmt::print(out, "{:>6}  {:>7}  {:>13}  {:>16}  {:>10}  {:>26}  {}\n", "tau", "FLOPs",
             "bits per byte", "95% interval", "perplexity", "increase from tau 0",
             "experts run per layer");
  for (const nlohmann::json& point : report.at("points")) {
    const auto part = [&](const char* key, const char* name) {
      return point.at(key).at(name).get<double>();
    };
    std::string experts;
    for (const double mean : point.at("experts_run")) experts += fmt::format("{:6.1f}", mean);
    fmt::print(out,
               "{:>6g}  {:>6.1f}%  {:>13.4f}  {:.4f} to {:.4f}  {:>10.3f}  {:>+7.2f}% ({:+.2f} to "
               "{:+.2f}) {}\n",
               point.at("tau").get<double>(), 100 * point.at("flop_fraction").get<double>(),
               part("bits_per_byte", "value"), part("bits_per_byte", "low"),
               part("bits_per_byte", "high"), point.at("perplexity").get<double>(),
               100 * part("loss_increase", "value"), 100 * part("loss_increase", "low"),
               100 * part("loss_increase", "high"), experts);
  }
}

// All documents of the file, or the part that the package's split made of it.
absl::StatusOr<std::vector<std::string>> DocumentsOf(const EvaluateOptions& options,
                                                     const std::string& directory,
                                                     const ModelInfo& info) {
  if (options.part.empty()) return ReadDocuments(options.data);
  const nlohmann::json& made = info.provenance;
  if (!made.is_object() || !made.contains("data") || !made["data"].contains("split_seed")) {
    return absl::FailedPreconditionError(fmt::format(
        "--part: {}/dimmer.json does not say how its text was split; leave --part out", directory));
  }
  const nlohmann::json& data = made["data"];
  DIMMER_ASSIGN_OR_RETURN(const SplitText text,
                          ReadText({.data = options.data,
                                    .exclude = options.exclude,
                                    .held_out = data.at("held_out").get<double>(),
                                    .seed = data.at("split_seed").get<uint64_t>()}));
  if (!SameSplit(data, text.report)) {
    return absl::InvalidArgumentError(fmt::format(
        "--part: {} has checksum {}, expected {}, that of {}: the file that {} was made from",
        options.data, text.report.at("checksum").get<std::string>(),
        data.at("checksum").get<std::string>(), data.at("file").get<std::string>(), directory));
  }
  const nlohmann::json none;
  const nlohmann::json& excluded = data.contains("excluded_file") ? data["excluded_file"] : none;
  const nlohmann::json& given =
      text.report.contains("excluded_file") ? text.report["excluded_file"] : none;
  if (excluded != given) {
    return absl::InvalidArgumentError(fmt::format("--exclude: found {}, expected {} as {} was made",
                                                  given.dump(), excluded.dump(), directory));
  }
  if (options.part == "training") return text.split.training;
  if (options.part == "validation") return text.split.validation;
  return options.part == "calibration" ? text.split.calibration : text.split.test;
}

}  // namespace

absl::Status EvaluateLanguageModel(const EvaluateOptions& options, const std::string& directory,
                                   const Model& model, std::FILE* out, Progress& progress) {
  DIMMER_ASSIGN_OR_RETURN(const std::vector<std::string> texts,
                          DocumentsOf(options, directory, model.info()));
  DIMMER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(directory));
  DIMMER_ASSIGN_OR_RETURN(const DocumentEnds ends, EndsOf(*tokenizer, model.info().end_ids));
  DIMMER_ASSIGN_OR_RETURN(const std::vector<TokenizedDocument> documents,
                          TokenizeDocuments(*tokenizer, ends, texts));
  const uint32_t limit = model.info().max_tokens;
  const uint32_t context = options.max_tokens == 0 ? limit : std::min(options.max_tokens, limit);
  if (context < 2) {
    return absl::InvalidArgumentError(
        fmt::format("--max-tokens: found {}, expected at least 2", context));
  }
  const std::vector<double> taus = TausOf(options, model.info());
  progress.Start("evaluate", "taus", taus.size());
  DIMMER_ASSIGN_OR_RETURN(
      const LossSweep sweep,
      MeasureLoss(EngineScorer(model), documents, context, taus, options.workers,
                  [&](const LossPoint&) { progress.Advance(""); }));
  progress.Finish();
  const nlohmann::json report = Report(sweep, model.info());
  if (options.json) {
    fmt::print(out, "{}\n", report.dump(2));
  } else {
    PrintTable(report, out);
  }
  return absl::OkStatus();
}

}  // namespace dimmer
