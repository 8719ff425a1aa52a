// Tokenizer files as Hugging Face's libraries read them.
#ifndef DIMMER_TRAINING_TOKENIZER_WRITER_H_
#define DIMMER_TRAINING_TOKENIZER_WRITER_H_

#include <absl/status/status.h>

#include <string>

#include "engine/text/bpe_tokenizer.h"
#include "training/bpe_trainer.h"

namespace dimmer {

// tokenizer.json, vocab.json, merges.txt and tokenizer_config.json of a GPT2Tokenizer.
absl::Status WriteGpt2Tokenizer(const std::string& folder, const BpeTraining& training);

// tokenizer.json and tokenizer_config.json of a LlamaTokenizer, from what ParseLlama2cTokenizer()
// read. It gives the same ids, but finds "<s>" and the like in a text, as every such tokenizer
// does.
absl::Status WriteLlamaTokenizer(const std::string& folder, const BpeOptions& tokenizer);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_TOKENIZER_WRITER_H_
