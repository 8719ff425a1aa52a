// Everything a conversion depends on, as given on the command line.
#ifndef DIMMER_TRAINING_OPTIONS_H_
#define DIMMER_TRAINING_OPTIONS_H_

#include <absl/status/status.h>

#include <cstdint>
#include <string>

#include "engine/package/safetensors.h"
#include "training/sparsity.h"

namespace dimmer {

// Fine-tuning for sparse activations, and pretraining (training/trainer.h).
struct TrainOptions {
  std::string stage = "sparsify";  // for messages
  uint64_t seed = 1;
  uint32_t workers = 2;      // threads, each with a part of every batch
  uint32_t epochs = 4;       // 0: the weights stay as they are
  uint32_t batch_size = 32;  // rows
  double learning_rate = 1e-4;
  double weight_decay = 0.01;
  double warmup = 0.06;    // share of all steps; then cosine to final_rate
  double final_rate = 0;   // share of learning_rate at the end
  double beta2 = 0.999;    // of AdamW
  double clip_norm = 1.0;  // of the whole gradient
  Penalty penalty = Penalty::kSquareHoyer;
  double alpha = 1e-3;      // its strength
  double alpha_ramp = 0.5;  // share of all steps over which alpha grows from zero
  uint32_t checkpoint_steps = 200;
  bool keep_best = false;  // end with the weights of the best epoch
  uint32_t patience = 0;   // with keep_best: epochs without a better one that end training; 0: none

  // InvalidArgument names the option, what was found and what was expected.
  absl::Status Validate() const;
};

// Router training (training/route.h).
struct RouteOptions {
  uint64_t seed = 1;
  uint32_t experts = 96;
  uint32_t width = 0;  // of the router's hidden layer; 0: RouterWidthFor(the model's width)
  uint32_t epochs = 5;
  uint32_t refine_epochs = 0;  // more, on what a gated model gives the routers
  uint32_t batch_tokens = 128;
  double learning_rate = 1e-3;   // Adam, cosine to zero
  uint64_t max_tokens = 400000;  // training tokens kept in memory; rows beyond are left out
};

// A sixth of the model's width, the paper's 128 at 768, to a multiple of 8; at least 16.
uint32_t RouterWidthFor(int64_t model_width);

struct ConvertOptions {
  std::string checkpoint;  // Hugging Face directory
  std::string data;        // labelled rows, or plain text
  std::string exclude;     // rows never to be seen, e.g. the validation file; may be empty
  std::string format = "auto";
  std::string task = "classification";
  std::string to;     // the package's directory
  std::string name;   // title of card and plot; empty: the folder above `to`
  std::string work;   // intermediate results
  std::string notes;  // Markdown for the model card; may be empty
  std::string dtype = "f16";
  std::string activation = "relu";  // or "keep": the checkpoint's own
  uint32_t max_tokens = 128;
  uint64_t calibration_rows = 1500;
  double keep_quality = 0.995;  // default tau: the largest that keeps this share of the quality
  // Language models.
  double held_out = 0.04;       // share of each of validation, calibration and test documents
  double loss_increase = 0.01;  // default tau: the largest that loses at most this share
  TrainOptions sparsify;
  RouteOptions route;

  // InvalidArgument names the option, what was found and what was expected.
  absl::Status Validate() const;
  DType weight_dtype() const { return dtype == "f32" ? DType::kF32 : DType::kF16; }
};

// InvalidArgument unless `value` is in [low, high].
absl::Status CheckRange(const char* option, double value, double low, double high);

// The last part of a path, without its folder; of "a/b/" it is "b".
std::string BaseName(const std::string& path);

// The command that repeats the conversion: no directories but the names of the inputs, every option
// that its result depends on.
std::string CommandLine(const ConvertOptions& options);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_OPTIONS_H_
