// dimmer-convert: a Hugging Face checkpoint and labelled rows or text in, a package to serve out.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <exception>

#include "engine/util/status.h"
#include "training/conversion.h"
#include "training/evaluate.h"
#include "training/import_gpt.h"
#include "training/import_llama2c.h"
#include "training/options.h"
#include "training/pretrain.h"
#include "training/runtime.h"
#include "training/train_tokenizer.h"

namespace dimmer {
namespace {

constexpr int kFailed = 1, kUsage = 2;

void AddConversionOptions(CLI::App& app, ConvertOptions& o) {
  app.option_defaults()->always_capture_default();
  app.add_option("--checkpoint", o.checkpoint,
                 "Hugging Face folder: BertModel, BertForSequenceClassification, "
                 "GPT2LMHeadModel or LlamaForCausalLM")
      ->required();
  app.add_option("--data", o.data, "labelled rows: text;label or tab-separated; or plain text")
      ->required();
  app.add_option("--exclude", o.exclude,
                 "file of rows or documents that must not be used (held-out data)");
  app.add_option("--format", o.format, "of the data: auto, semicolon or tsv");
  app.add_option("--task", o.task, "classification or language-model");
  app.add_option("--to", o.to, "folder of the package, e.g. models/emotion/1")->required();
  app.add_option("--name", o.name, "title of card and plot; default: the folder above --to");
  app.add_option("--work", o.work, "folder for intermediate results; a killed run goes on there")
      ->required();
  app.add_option("--notes", o.notes, "Markdown for the model card: data, licences, intended use");
  app.add_option("--seed", o.sparsify.seed, "the same seed gives the same package");
  app.add_option("--workers", o.sparsify.workers, "threads; part of what the result depends on");
  app.add_option("--epochs", o.sparsify.epochs, "of fine-tuning; 0: none, the checkpoint as it is");
  app.add_option("--batch-size", o.sparsify.batch_size, "rows, or blocks of the context's length");
  app.add_option("--learning-rate", o.sparsify.learning_rate,
                 "of AdamW, by a cosine to --final-rate");
  app.add_option("--weight-decay", o.sparsify.weight_decay, "of matrices");
  CLI::Option* hoyer =
      app.add_option("--hoyer", o.sparsify.alpha, "strength of the square Hoyer penalty");
  app.add_option_function<double>(
         "--l1",
         [&o](double strength) {
           o.sparsify.penalty = Penalty::kL1;
           o.sparsify.alpha = strength;
         },
         "strength of an L1 penalty in its place, e.g. 1e-4")
      ->excludes(hoyer);
  app.add_option("--hoyer-ramp", o.sparsify.alpha_ramp,
                 "share of the steps over which either grows");
  app.add_option("--activation", o.activation,
                 "of the FFNs: relu in place of the checkpoint's, or keep");
  app.add_option("--warm-up", o.sparsify.warmup, "share of the steps");
  app.add_option("--final-rate", o.sparsify.final_rate, "share of the learning rate at the end");
  app.add_option("--beta2", o.sparsify.beta2, "of AdamW");
  app.add_option("--checkpoint-steps", o.sparsify.checkpoint_steps, "steps between saved states");
  app.add_option("--max-tokens", o.max_tokens, "longer texts are cut");
  app.add_option("--calibration-rows", o.calibration_rows, "kept out of training");
  app.add_option("--experts", o.route.experts, "per FFN layer; a divisor of its hidden width");
  app.add_option("--router-width", o.route.width,
                 "of the routers' hidden layer; 0: a sixth of the model's width");
  app.add_option("--router-epochs", o.route.epochs, "of router training");
  app.add_option("--refine-epochs", o.route.refine_epochs,
                 "of more training, on what a model gives its routers that these gate");
  app.add_option("--router-tokens", o.route.max_tokens, "most tokens kept in memory for it");
  app.add_option("--keep-quality", o.keep_quality,
                 "share of the dense accuracy that the default tau must keep");
  app.add_option("--held-out", o.held_out,
                 "language models: share of each of validation, calibration and test documents");
  app.add_option("--loss-increase", o.loss_increase,
                 "language models: share of the loss that the default tau may add");
  app.add_option("--dtype", o.dtype, "of the package's weights: f16 or f32");
}

// What fits language models where the user has given nothing.
void SetLanguageDefaults(const CLI::App& app, ConvertOptions& o) {
  const auto fill = [&](const char* option, auto& field, auto value) {
    if (app.count(option) == 0) field = value;
  };
  fill("--batch-size", o.sparsify.batch_size, 8u);
  fill("--learning-rate", o.sparsify.learning_rate, 3e-4);
  fill("--weight-decay", o.sparsify.weight_decay, 0.1);
  fill("--beta2", o.sparsify.beta2, 0.98);
  fill("--checkpoint-steps", o.sparsify.checkpoint_steps, 50u);
  fill("--max-tokens", o.max_tokens, uint32_t{1} << 20);
  fill("--experts", o.route.experts, 64u);
}

void AddPretrainOptions(CLI::App& app, PretrainOptions& o) {
  app.option_defaults()->always_capture_default();
  app.add_option("--data", o.data, "plain text; documents between <|endoftext|> lines")->required();
  app.add_option("--exclude", o.exclude, "file of documents that must not be used");
  app.add_option("--tokenizer", o.tokenizer,
                 "folder with tokenizer files; default: trained on the training documents");
  app.add_option("--vocab-size", o.vocab_size, "of a tokenizer that is trained");
  app.add_option("--to", o.to, "folder of the checkpoint")->required();
  app.add_option("--work", o.work, "folder for intermediate results; a killed run goes on there")
      ->required();
  app.add_option("--held-out", o.held_out,
                 "share of each of validation, calibration and test documents");
  app.add_option("--layers", o.shape.layers, "blocks");
  app.add_option("--width", o.shape.width, "of the residual stream");
  app.add_option("--heads", o.shape.heads, "a divisor of --width");
  app.add_option("--hidden", o.shape.hidden, "neurons of an FFN");
  app.add_option("--context", o.shape.positions, "tokens");
  app.add_option("--dropout", o.shape.residual_dropout, "of the blocks' outputs");
  app.add_option("--attention-dropout", o.shape.attention_dropout, "of attention probabilities");
  app.add_option("--embedding-dropout", o.shape.embedding_dropout, "of the embeddings");
  app.add_option("--seed", o.train.seed, "the same seed gives the same checkpoint");
  app.add_option("--workers", o.train.workers, "threads; part of what the result depends on");
  app.add_option("--epochs", o.train.epochs, "over the training documents");
  app.add_option("--batch-size", o.train.batch_size, "blocks of the context's length");
  app.add_option("--learning-rate", o.train.learning_rate, "of AdamW, by a cosine to --final-rate");
  app.add_option("--final-rate", o.train.final_rate, "share of the learning rate at the end");
  app.add_option("--warm-up", o.train.warmup, "share of the steps");
  app.add_option("--weight-decay", o.train.weight_decay, "of matrices");
  app.add_option("--beta2", o.train.beta2, "of AdamW");
  app.add_option("--patience", o.train.patience,
                 "epochs without a lower validation loss that end training; 0: none");
  app.add_option("--checkpoint-steps", o.train.checkpoint_steps, "steps between saved states");
}

void AddEvaluateOptions(CLI::App& app, EvaluateOptions& o) {
  app.option_defaults()->always_capture_default();
  app.add_option("--model", o.model, "package, or a model's folder with versions")->required();
  app.add_option("--data", o.data, "labelled rows, or plain text")->required();
  app.add_option("--format", o.format, "of the data: auto, semicolon or tsv");
  app.add_option("--exclude", o.exclude,
                 "with --part: the file that the conversion had excluded, if it had");
  app.add_option("--part", o.part,
                 "training, validation, calibration or test: that part of the text a language "
                 "model was made from");
  app.add_option("--tau", o.taus, "taus to measure; default: the calibration's")->delimiter(',');
  app.add_option("--workers", o.workers, "threads")->check(CLI::Range(1, 256));
  app.add_option("--max-tokens", o.max_tokens, "cut longer texts; 0: the model's limit");
  app.add_flag("--json", o.json, "print JSON");
}

struct ImportOptions {
  std::string llama2c, tokenizer, gpt, to;
};

CLI::App* AddTokenizerCommand(CLI::App& app, TrainTokenizerOptions& o) {
  CLI::App* command =
      app.add_subcommand("tokenizer", "Train a byte-level BPE tokenizer on files of text");
  command->option_defaults()->always_capture_default();
  command->add_option("--data", o.data, "text files; <|endoftext|> ends a text")->required();
  command->add_option("--vocab-size", o.vocab_size, "tokens, the 256 bytes and <|endoftext|> too")
      ->check(CLI::Range(257, 1 << 20));
  command->add_option("--min-count", o.min_count, "a pair that is rarer becomes no token")
      ->check(CLI::PositiveNumber);
  command->add_option("--to", o.to, "new folder for tokenizer.json, vocab.json, merges.txt")
      ->required();
  return command;
}

CLI::App* AddImportCommand(CLI::App& app, ImportOptions& o) {
  CLI::App* command =
      app.add_subcommand("import", "Other projects' checkpoints as Hugging Face folders");
  CLI::Option_group* from = command->add_option_group("from");
  CLI::Option* llama2c = from->add_option("--llama2c", o.llama2c, "model file of llama2.c");
  from->add_option("--gpt", o.gpt,
                   "folder of a GPT-2 with config.json (n_layer, block_size ...) and "
                   "model.safetensors, linear layers stored [out, in]");
  from->require_option(1);
  CLI::Option* tokenizer =
      command->add_option("--tokenizer", o.tokenizer, "tokenizer file of llama2.c, tok512.bin");
  tokenizer->needs(llama2c);
  llama2c->needs(tokenizer);
  command->add_option("--to", o.to, "new folder for the checkpoint")->required();
  return command;
}

absl::Status Import(const ImportOptions& o) {
  return o.gpt.empty() ? ImportLlama2c(o.llama2c, o.tokenizer, o.to) : ImportGpt(o.gpt, o.to);
}

struct StageCommand {
  const char* name;
  const char* help;
  absl::Status (Conversion::*run)();
};

constexpr StageCommand kStages[] = {
    {"run", "All stages, from the checkpoint to the package", &Conversion::Run},
    {"sparsify", "Stage 1: fine-tuning for sparse activations", &Conversion::Sparsify},
    {"split", "Stage 2: neurons into experts by balanced k-means", &Conversion::Split},
    {"route", "Stage 3: routers that predict the experts' output norms", &Conversion::Route},
    {"calibrate", "Stage 4: accuracy, or loss, and FLOPs for every tau, through the engine",
     &Conversion::Calibrate},
    {"pack", "Stage 5: write the package", &Conversion::Pack}};

int Report(const absl::Status& status) {
  if (status.ok()) return 0;
  fmt::print(stderr, "dimmer-convert: {}\n", Message(status));
  return kFailed;
}

int ReportUsage(const absl::Status& status) {
  fmt::print(stderr, "dimmer-convert: {}\nRun with --help for more information.\n",
             Message(status));
  return kUsage;
}

absl::Status RunStage(const StageCommand& stage, const ConvertOptions& options,
                      Progress& progress) {
  DIMMER_ASSIGN_OR_RETURN(const auto conversion, Conversion::Create(options, progress));
  return ((*conversion).*stage.run)();
}

int Main(int argc, char** argv) {
  CLI::App app("Converts a dense transformer into one whose compute can be turned down.",
               "dimmer-convert");
  app.set_version_flag("--version", "dimmer-convert " DIMMER_VERSION);
  app.require_subcommand(1);
  ConvertOptions options;
  EvaluateOptions evaluate;
  PretrainOptions pretrain;
  std::vector<std::pair<CLI::App*, const StageCommand*>> commands;
  for (const StageCommand& stage : kStages) {
    CLI::App* command = app.add_subcommand(stage.name, stage.help);
    AddConversionOptions(*command, options);
    commands.emplace_back(command, &stage);
  }
  CLI::App* measure =
      app.add_subcommand("evaluate", "Accuracy, or bits per byte, and FLOPs of a package");
  AddEvaluateOptions(*measure, evaluate);
  TrainTokenizerOptions tokenizer;
  ImportOptions import;
  const CLI::App* train_tokenizer = AddTokenizerCommand(app, tokenizer);
  const CLI::App* importing = AddImportCommand(app, import);
  CLI::App* from_scratch =
      app.add_subcommand("pretrain", "A GPT-2 language model from scratch, out of plain text");
  AddPretrainOptions(*from_scratch, pretrain);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  options.route.seed = options.sparsify.seed;
  Progress progress(stderr, isatty(STDERR_FILENO) != 0);
  if (measure->parsed()) {
    if (const absl::Status valid = evaluate.Validate(); !valid.ok()) return ReportUsage(valid);
    return Report(Evaluate(evaluate, stdout, progress));
  }
  if (train_tokenizer->parsed()) return Report(TrainTokenizer(tokenizer, progress));
  if (importing->parsed()) return Report(Import(import));
  if (from_scratch->parsed()) {
    if (const absl::Status valid = pretrain.Validate(); !valid.ok()) return ReportUsage(valid);
    return Report(Pretrain(pretrain, progress));
  }
  for (const auto& [command, stage] : commands) {
    if (!command->parsed()) continue;
    if (options.task == "language-model") SetLanguageDefaults(*command, options);
    if (const absl::Status valid = options.Validate(); !valid.ok()) return ReportUsage(valid);
    return Report(RunStage(*stage, options, progress));
  }
  return kUsage;
}

}  // namespace
}  // namespace dimmer

int main(int argc, char** argv) {
  dimmer::EnsureEnvironment(argv);
  try {
    return dimmer::Main(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "dimmer-convert: {}\n", dimmer::WhatOf(error));
    return dimmer::kFailed;
  }
}
