// dimmer-convert pretrain: a GPT-2 language model from scratch, out of plain text.
#ifndef DIMMER_TRAINING_PRETRAIN_H_
#define DIMMER_TRAINING_PRETRAIN_H_

#include <absl/status/status.h>

#include <cstdint>
#include <string>

#include "training/gpt2_shape.h"
#include "training/options.h"
#include "training/progress.h"
#include "training/text_corpus.h"

namespace dimmer {

// The file of a pretrained checkpoint that says how it was made.
inline constexpr const char* kPretrainingFile = "pretraining.json";

struct PretrainOptions {
  std::string data;       // plain text
  std::string exclude;    // documents never to be seen; may be empty
  std::string tokenizer;  // folder with tokenizer files; empty: trained on the training documents
  uint64_t vocab_size = 2048;  // of a tokenizer that is trained
  std::string to;              // folder of the checkpoint
  std::string work;            // intermediate results
  double held_out = 0.04;
  Gpt2Shape shape{.width = 256,
                  .layers = 4,
                  .heads = 8,
                  .hidden = 1024,
                  .vocab = 0,  // the tokenizer's
                  .positions = 512,
                  .embedding_dropout = 0.1,
                  .attention_dropout = 0.1,
                  .residual_dropout = 0.15};
  TrainOptions train{.stage = "pretrain",
                     .epochs = 40,
                     .batch_size = 8,  // blocks of the context's length
                     .learning_rate = 3e-3,
                     .weight_decay = 1,
                     .beta2 = 0.98,
                     .alpha = 0,
                     .checkpoint_steps = 50,
                     .keep_best = true,
                     .patience = 4};

  // InvalidArgument names the option, what was found and what was expected.
  absl::Status Validate() const;
};

// Trains, and leaves a checkpoint in options.to: a GPT2LMHeadModel in F32 with a ReLU, its
// tokenizer and pretraining.json. A killed run goes on where it was, with the same result.
absl::Status Pretrain(const PretrainOptions& options, Progress& progress);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_PRETRAIN_H_
