#include "training/trainee.h"

#include <stdexcept>
#include <utility>

#include "training/bert_trainee.h"
#include "training/gpt2_trainee.h"
#include "training/llama_trainee.h"

namespace dimmer {

Trainee::Trainee(ModelLayout layout, WeightMap weights, const Sparsity& sparsity)
    : layout_(std::move(layout)), sparsity_(sparsity) {
  for (const NamedShape& tensor : layout_.tensors) {
    const auto found = weights.find(tensor.name);
    if (found == weights.end()) throw std::invalid_argument("no weights for " + tensor.name);
    Parameter parameter{.name = tensor.name,
                        .value = torch::tensor(at::ArrayRef<float>(found->second), torch::kFloat32)
                                     .reshape(tensor.shape)};
    parameter.decayed = tensor.shape.size() > 1;
    parameter.value.set_requires_grad(true);
    index_[tensor.name] = parameters_.size();
    parameters_.push_back(std::move(parameter));
    weights.erase(found);
  }
}

void Trainee::Freeze(const std::string& prefix) {
  for (Parameter& parameter : parameters_) {
    if (!parameter.name.starts_with(prefix)) continue;
    parameter.trained = false;
    parameter.value.set_requires_grad(false);
  }
}

const torch::Tensor& Trainee::At(const std::string& name) const {
  return parameters_[index_.at(name)].value;
}

std::unique_ptr<Trainee> MakeTrainee(const ModelShape& shape, WeightMap weights,
                                     const Sparsity& sparsity) {
  struct Make {
    WeightMap& weights;
    const Sparsity& sparsity;
    std::unique_ptr<Trainee> operator()(const BertShape& sizes) const {
      return std::make_unique<BertTrainee>(sizes, std::move(weights), sparsity);
    }
    std::unique_ptr<Trainee> operator()(const Gpt2Shape& sizes) const {
      return std::make_unique<Gpt2Trainee>(sizes, std::move(weights), sparsity);
    }
    std::unique_ptr<Trainee> operator()(const LlamaShape& sizes) const {
      return std::make_unique<LlamaTrainee>(sizes, std::move(weights), sparsity);
    }
  };
  return std::visit(Make{weights, sparsity}, shape);
}

WeightMap WeightsOf(const Trainee& model) {
  WeightMap weights;
  for (const Parameter& parameter : model.parameters()) {
    const torch::Tensor value = parameter.value.detach().contiguous();
    const float* data = value.data_ptr<float>();
    weights[parameter.name].assign(data, data + value.numel());
  }
  return weights;
}

}  // namespace dimmer
