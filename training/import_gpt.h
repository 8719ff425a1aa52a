// dimmer-convert import --gpt: a checkpoint of GPT-2's architecture whose linear layers are stored
// [out, in], as minGPT and nanoGPT train them, as a Hugging Face directory (Conv1D's [in, out]).
#ifndef DIMMER_TRAINING_IMPORT_GPT_H_
#define DIMMER_TRAINING_IMPORT_GPT_H_

#include <absl/status/status.h>

#include <string>

namespace dimmer {

// Reads config.json (n_layer, n_head, n_embd, vocab_size, block_size) and model.safetensors
// ("transformer.h.0.attn.c_attn.weight" and so on) of `from`; writes the two as of a
// GPT2LMHeadModel to `to`, a new or empty folder. A bias that is missing is zero; a missing
// lm_head.weight is transformer.wte.weight. InvalidArgument names the file, the tensor or key, what
// was found and expected.
absl::Status ImportGpt(const std::string& from, const std::string& to);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_IMPORT_GPT_H_
