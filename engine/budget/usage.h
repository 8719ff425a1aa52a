// What a request used. One multiply-accumulate is 2 FLOPs, everywhere.
#ifndef DIMMER_ENGINE_BUDGET_USAGE_H_
#define DIMMER_ENGINE_BUDGET_USAGE_H_

#include <cstdint>
#include <string_view>
#include <vector>

namespace dimmer {

// The parts of a transformer block that can be split into experts.
enum class Module : uint8_t { kFfn, kQ, kK, kV, kO };
std::string_view ModuleName(Module module);  // "ffn", "q", "k", "v", "o"

struct LayerUsage {
  uint32_t layer = 0;
  Module module = Module::kFfn;
  uint32_t experts = 0;      // in this module
  uint64_t expert_runs = 0;  // (token, expert) pairs that ran
};

struct Usage {
  uint64_t flops = 0;
  uint64_t dense_flops = 0;  // what this server would run for the same tokens at tau = 0
  double tau = 0;            // mean effective tau over tokens and MoE modules
  uint32_t prompt_tokens = 0;
  uint32_t output_tokens = 0;
  std::vector<LayerUsage> layers;  // MoE modules only, ascending (layer, module)
  uint64_t queue_us = 0;
  uint64_t compute_us = 0;
  bool budget_clamped = false;
  bool degraded = false;
  bool truncated = false;
  uint64_t layer_tokens = 0;  // that ran through the layers; 0: all of prompt and output

  // What expert_runs are over: a generation's last token is not run.
  uint64_t LayerTokens() const {
    return layer_tokens > 0 ? layer_tokens : uint64_t{prompt_tokens} + output_tokens;
  }
  // Sums counts, takes tau as the mean weighted by tokens, the longest times, and the union of
  // flags.
  void Add(const Usage& other);
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_BUDGET_USAGE_H_
