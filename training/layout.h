// What the stages need to know of a model's checkpoint: the tensors it has, and where its FFNs are.
#ifndef DIMMER_TRAINING_LAYOUT_H_
#define DIMMER_TRAINING_LAYOUT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace dimmer {

struct NamedShape {
  std::string name;  // as in the checkpoint
  std::vector<int64_t> shape;
};

// How a checkpoint stores the matrix of a linear layer from `in` to `out` values.
enum class Orientation : uint8_t {
  kOutIn,  // [out, in], PyTorch's Linear
  kInOut,  // [in, out], the Conv1D of GPT-2
};

// The tensors of one FFN, `down(act(up(z)))` or `down(act(gate(z)) * up(z))`, by name.
struct FfnLayout {
  std::string gate = {};         // d -> d_ff; empty: not a gated FFN
  std::string up, up_bias = {};  // d -> d_ff; no bias: empty
  std::string down;              // d_ff -> d; its bias belongs to no neuron

  // What decides whether a neuron is active, and what neurons are compared by.
  const std::string& first() const { return gate.empty() ? up : gate; }

  Orientation orientation = Orientation::kOutIn;
};

struct ModelLayout {
  int64_t width = 0;   // d
  int64_t hidden = 0;  // d_ff
  int64_t vocab = 0;
  int64_t positions = 0;
  std::string activation_key = "hidden_act";  // in config.json
  std::vector<NamedShape> tensors;            // all of a checkpoint, in a fixed order
  std::vector<FfnLayout> ffns;                // by layer

  int64_t layers() const { return static_cast<int64_t>(ffns.size()); }
};

using WeightMap = std::map<std::string, std::vector<float>>;  // by name

}  // namespace dimmer

#endif  // DIMMER_TRAINING_LAYOUT_H_
