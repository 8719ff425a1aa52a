#include "training/pretrain.h"

#include <absl/cleanup/cleanup.h>

#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"
#include "training/bpe_trainer.h"
#include "training/checkpoint_files.h"
#include "training/fingerprint.h"
#include "training/gpt2_trainee.h"
#include "training/language_loss.h"
#include "training/language_measure.h"
#include "training/package_target.h"
#include "training/runtime.h"
#include "training/tokenizer_writer.h"
#include "training/trainer.h"
#include "training/work_dir.h"

namespace dimmer {
namespace {

namespace fs = std::filesystem;

std::string FingerprintOf(const PretrainOptions& o, const Gpt2Shape& shape,
                          const TextCorpus& corpus) {
  Fingerprint fingerprint("pretrain/2");
  for (const auto* part : {&corpus.training, &corpus.validation, &corpus.test}) {
    for (const TokenizedDocument& document : *part) {
      fingerprint.Add(std::string_view(reinterpret_cast<const char*>(document.ids.data()),
                                       document.ids.size() * sizeof(int32_t)));
      fingerprint.Add(document.bytes);
    }
  }
  return fingerprint.Add(Gpt2ConfigJson(shape).dump())
      .Add(o.train.seed)
      .Add(uint64_t{o.train.workers})
      .Add(uint64_t{o.train.epochs})
      .Add(uint64_t{o.train.batch_size})
      .Add(o.train.learning_rate)
      .Add(o.train.weight_decay)
      .Add(o.train.warmup)
      .Add(o.train.final_rate)
      .Add(o.train.clip_norm)
      .Add(o.train.beta2)
      .Add(uint64_t{o.train.patience})
      .Hex();
}

TrainCallbacks Callbacks(Progress& progress, const PretrainOptions& options) {
  TrainCallbacks callbacks;
  callbacks.on_start = [&progress](uint64_t done, uint64_t steps) {
    progress.Start("pretrain", "steps", steps, done);
  };
  callbacks.on_progress = [&progress](const TrainProgress& now) {
    progress.Update(now.step,
                    fmt::format("loss {:.4f}  non-zero {:.1f}%", now.loss, 100 * now.active));
  };
  callbacks.on_epoch = [&progress, &options](const EpochReport& report) {
    progress.Note(
        fmt::format("epoch {} of {}: training loss {:.4f} nats per token, validation "
                    "{:.4f} bits per byte",
                    report.epoch, options.train.epochs, report.loss, report.quality));
  };
  return callbacks;
}

// A byte-level BPE of the training documents alone: nothing of the others is known to it.
absl::Status TrainTokenizerOn(std::span<const std::string> documents, uint64_t vocab_size,
                              const std::string& folder, Progress& progress) {
  constexpr uint64_t kMinCount = 2;
  WordCounts counts;
  for (const std::string& document : documents) CountWords(document, counts);
  DIMMER_ASSIGN_OR_RETURN(const BpeTraining training,
                          TrainBpe(counts, vocab_size, kMinCount, nullptr));
  progress.Note(fmt::format("tokenizer: {} tokens from {} different words", training.tokens.size(),
                            counts.size()));
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    return absl::FailedPreconditionError(
        fmt::format("{}: cannot create this folder: {}", folder, error.message()));
  }
  return WriteGpt2Tokenizer(folder, training);
}

nlohmann::json LossOf(const Gpt2Trainee& model, std::span<const TokenizedDocument> documents,
                      uint32_t context, uint32_t workers) {
  const std::vector<Example> rows = WindowExamples(documents, context);
  const MeasuredText text = Measured(documents);
  const LossPoint point{.nats = {TotalNats(model, rows, workers)}};
  return {{"bits_per_byte", BitsPerByte(text, point)}, {"perplexity", Perplexity(text, point)}};
}

// Trains, unless that is done, and leaves model.safetensors and the report in `stage`.
absl::StatusOr<nlohmann::json> TrainStage(const PretrainOptions& options, const Gpt2Shape& shape,
                                          const TextCorpus& corpus, const StageDir& stage,
                                          Progress& progress) {
  const std::string fingerprint = FingerprintOf(options, shape, corpus);
  if (auto report = stage.Done(fingerprint)) {
    progress.Note("pretrain: done before");
    return *std::move(report);
  }
  const auto context = static_cast<uint32_t>(shape.positions);
  Gpt2Trainee model(shape, DrawGpt2(shape, options.train.seed));
  BlockStream stream(corpus.training, context, options.train.seed);
  const std::vector<Example> validation = WindowExamples(corpus.validation, context);
  const EpochCheck check = ValidationCheck(corpus.validation, validation, options.train.workers);
  DIMMER_ASSIGN_OR_RETURN(
      const std::vector<EpochReport> reports,
      Train(model, stream, check, options.train,
            {.path = stage.Path("state.safetensors"), .fingerprint = fingerprint},
            Callbacks(progress, options)));
  progress.Finish();
  nlohmann::json epochs = nlohmann::json::array();
  for (const EpochReport& report : reports)
    epochs.push_back(ToJson(report, check.metric, PenaltyName(options.train.penalty)));
  const uint32_t workers = options.train.workers;
  const nlohmann::json report = {{"epochs", epochs},
                                 {"best_epoch", BestEpoch(reports, true) + 1},
                                 {"training", LossOf(model, corpus.training, context, workers)},
                                 {"validation", LossOf(model, corpus.validation, context, workers)},
                                 {"test", LossOf(model, corpus.test, context, workers)},
                                 {"made_on", Surroundings()}};
  DIMMER_RETURN_IF_ERROR(
      SaveWeights(stage.Path("model.safetensors"), model.layout(), WeightsOf(model), DType::kF32));
  DIMMER_RETURN_IF_ERROR(stage.MarkDone(fingerprint, {"model.safetensors"}, report));
  std::error_code ignored;  // 16 bytes per weight that nobody needs any more
  fs::remove(stage.Path("state.safetensors"), ignored);
  return report;
}

// The command that repeats it: no directories but the names of the inputs.
std::string CommandLine(const PretrainOptions& o) {
  const Gpt2Shape& shape = o.shape;
  std::string command = "dimmer-convert pretrain --data " + BaseName(o.data);
  if (!o.exclude.empty()) command += " --exclude " + BaseName(o.exclude);
  command += o.tokenizer.empty() ? fmt::format(" --vocab-size {}", o.vocab_size)
                                 : " --tokenizer " + BaseName(o.tokenizer);
  return command +
         fmt::format(
             " --layers {} --width {} --heads {} --hidden {} --context {} --dropout {:g} "
             "--attention-dropout {:g} --embedding-dropout {:g} --seed {} --workers {} --epochs {} "
             "--patience {} --batch-size {} --learning-rate {:g} --warm-up {:g} --final-rate {:g} "
             "--weight-decay {:g} --beta2 {:g} --held-out {:g} --to CHECKPOINT_DIR --work WORK_DIR",
             shape.layers, shape.width, shape.heads, shape.hidden, shape.positions,
             shape.residual_dropout, shape.attention_dropout, shape.embedding_dropout, o.train.seed,
             o.train.workers, o.train.epochs, o.train.patience, o.train.batch_size,
             o.train.learning_rate, o.train.warmup, o.train.final_rate, o.train.weight_decay,
             o.train.beta2, o.held_out);
}

absl::Status WriteCheckpoint(const PretrainOptions& options, const Gpt2Shape& shape,
                             const DocumentEnds& ends, const std::string& tokenizer_folder,
                             const StageDir& stage, const nlohmann::json& pretraining) {
  const fs::path target = PackageTarget(options.to);
  const fs::path fresh = PartialPath(target);
  const absl::Cleanup remove_fresh = [&] {
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
  };
  std::error_code error;
  fs::remove_all(fresh, error);
  fs::create_directories(fresh, error);
  if (error) {
    return absl::UnavailableError(
        fmt::format("{}: cannot create this folder: {}", fresh.string(), error.message()));
  }
  nlohmann::json config = Gpt2ConfigJson(shape);
  config["bos_token_id"] = ends.before;
  config["eos_token_id"] = ends.after;
  config["torch_dtype"] = "float32";
  DIMMER_RETURN_IF_ERROR(CopyFile(stage.Path("model.safetensors"), fresh / "model.safetensors"));
  DIMMER_RETURN_IF_ERROR(CopyTokenizer(tokenizer_folder, fresh));
  DIMMER_RETURN_IF_ERROR(WriteTextFile(fresh / "config.json", config.dump(2) + "\n"));
  DIMMER_RETURN_IF_ERROR(WriteTextFile(fresh / kPretrainingFile, pretraining.dump(2) + "\n"));
  DIMMER_RETURN_IF_ERROR(Package::Open(fresh).status());  // what is handed over can be opened
  return ReplacePackage(fresh, target, kPretrainingFile);
}

}  // namespace

absl::Status PretrainOptions::Validate() const {
  for (const auto& [option, folder] : {std::pair("--to", &to), std::pair("--work", &work)}) {
    if (folder->empty()) {
      return absl::InvalidArgumentError(
          fmt::format("{}: found nothing, expected a folder", option));
    }
  }
  if (!tokenizer.empty()) DIMMER_RETURN_IF_ERROR(CheckApart(to, "--tokenizer", tokenizer));
  DIMMER_RETURN_IF_ERROR(CheckApart(to, "--work", work));
  DIMMER_RETURN_IF_ERROR(CheckRange("--layers", static_cast<double>(shape.layers), 1, 512));
  DIMMER_RETURN_IF_ERROR(CheckRange("--width", static_cast<double>(shape.width), 1, 1 << 15));
  DIMMER_RETURN_IF_ERROR(CheckRange("--hidden", static_cast<double>(shape.hidden), 1, 1 << 19));
  DIMMER_RETURN_IF_ERROR(CheckRange("--context", static_cast<double>(shape.positions), 2, 1 << 17));
  DIMMER_RETURN_IF_ERROR(CheckRange("--heads", static_cast<double>(shape.heads), 1, 1 << 15));
  if (shape.width % shape.heads != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "--heads: found {}, expected a divisor of --width {}", shape.heads, shape.width));
  }
  DIMMER_RETURN_IF_ERROR(CheckRange("--dropout", shape.residual_dropout, 0, 0.9));
  DIMMER_RETURN_IF_ERROR(CheckRange("--attention-dropout", shape.attention_dropout, 0, 0.9));
  DIMMER_RETURN_IF_ERROR(CheckRange("--embedding-dropout", shape.embedding_dropout, 0, 0.9));
  DIMMER_RETURN_IF_ERROR(CheckRange("--vocab-size", static_cast<double>(vocab_size), 257, 1 << 20));
  DIMMER_RETURN_IF_ERROR(CheckRange("--held-out", held_out, 1e-6, 0.3));
  DIMMER_RETURN_IF_ERROR(CheckRange("--patience", train.patience, 0, 1000));
  DIMMER_RETURN_IF_ERROR(CheckRange("--epochs", train.epochs, 1, 1000));
  return train.Validate();
}

absl::Status Pretrain(const PretrainOptions& options, Progress& progress) {
  DIMMER_RETURN_IF_ERROR(options.Validate());
  DIMMER_RETURN_IF_ERROR(CheckTarget(PackageTarget(options.to), kPretrainingFile));
  DIMMER_ASSIGN_OR_RETURN(const WorkLock lock, WorkLock::Acquire(options.work));
  DIMMER_ASSIGN_OR_RETURN(SplitText text, ReadText({.data = options.data,
                                                    .exclude = options.exclude,
                                                    .held_out = options.held_out,
                                                    .seed = options.train.seed}));
  DIMMER_ASSIGN_OR_RETURN(const StageDir stage, StageDir::Open(options.work, "pretrain"));
  std::string tokenizer_folder = options.tokenizer;
  if (tokenizer_folder.empty()) {
    tokenizer_folder = stage.Path("tokenizer");
    DIMMER_RETURN_IF_ERROR(
        TrainTokenizerOn(text.split.training, options.vocab_size, tokenizer_folder, progress));
  }
  DIMMER_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(tokenizer_folder));
  DIMMER_ASSIGN_OR_RETURN(const DocumentEnds ends, EndsOf(*tokenizer, {}));
  DIMMER_ASSIGN_OR_RETURN(const TextCorpus corpus,
                          TokenizeText(*tokenizer, ends, text.split, text.report));
  progress.Note(DescribeText(text.report));
  Gpt2Shape shape = options.shape;
  shape.vocab = static_cast<int64_t>(tokenizer->vocab_size());
  const uint64_t tokens = text.report.at("training").at("tokens");
  if (tokens < static_cast<uint64_t>(shape.positions)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {} training tokens, expected at least the context of {}",
                    options.data, tokens, shape.positions));
  }
  nlohmann::json report;
  try {
    DIMMER_ASSIGN_OR_RETURN(report, TrainStage(options, shape, corpus, stage, progress));
  } catch (const std::exception& error) {  // libtorch's, e.g. out of memory
    return absl::InternalError(fmt::format("pretrain: {}", WhatOf(error)));
  }
  const nlohmann::json pretraining = {{"tool", "dimmer-convert " DIMMER_VERSION},
                                      {"command", CommandLine(options)},
                                      {"data", text.report},
                                      {"result", report}};
  DIMMER_RETURN_IF_ERROR(
      WriteCheckpoint(options, shape, ends, tokenizer_folder, stage, pretraining));
  const auto bits = [&](const char* part) {
    return report.at(part).at("bits_per_byte").get<double>();
  };
  progress.Note(fmt::format(
      "pretrain: {} is ready; best epoch {}; bits per byte: training {:.4f}, validation {:.4f}, "
      "test {:.4f}",
      options.to, report.at("best_epoch").get<uint64_t>(), bits("training"), bits("validation"),
      bits("test")));
  return absl::OkStatus();
}

}  // namespace dimmer
