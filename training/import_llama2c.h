// dimmer-convert import --llama2c: a checkpoint of llama2.c (github.com/karpathy/llama2.c, run.c
// and export.py, "legacy" version 0) as a Hugging Face directory.
//
//   int32 dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len | fp32 weights
//
// A negative vocab_size means that the head has weights of its own.
#ifndef DIMMER_TRAINING_IMPORT_LLAMA2C_H_
#define DIMMER_TRAINING_IMPORT_LLAMA2C_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace dimmer {

struct Llama2cShape {
  uint64_t d = 0, d_ff = 0, layers = 0, heads = 0, kv_heads = 0, vocab = 0, context = 0;
  bool shared_head = true;

  uint64_t head_dim() const { return d / heads; }
  uint64_t kv_width() const { return head_dim() * kv_heads; }
  uint64_t floats() const;  // of the weights
};

// InvalidArgument: a number out of range, numbers that do not fit together, or a file that has not
// exactly `bytes` (all of it, header included).
absl::StatusOr<Llama2cShape> ReadLlama2cShape(std::span<const int32_t> header, uint64_t bytes,
                                              const std::string& path);

// The rows of a query or key projection [heads * head_dim, in], for RoPE on the pairs (2i, 2i + 1)
// of a head, in the order for RoPE on (i, i + head_dim / 2), as Hugging Face has it.
std::vector<float> PermuteForRotateHalf(std::span<const float> weights, uint64_t heads,
                                        uint64_t head_dim, uint64_t in);

// Writes config.json, generation_config.json, model.safetensors, tokenizer.json and
// tokenizer_config.json to `to`, a new or empty folder. InvalidArgument names the file, what was
// found and what was expected.
absl::Status ImportLlama2c(const std::string& model, const std::string& tokenizer,
                           const std::string& to);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_IMPORT_LLAMA2C_H_
