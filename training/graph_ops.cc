#include "training/graph_ops.h"

#include <torch/csrc/autograd/custom_function.h>

namespace dimmer {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::tensor_list;

// {relu(pre), sum of h over tokens}.
class ReluHoyer : public torch::autograd::Function<ReluHoyer> {
 public:
  static tensor_list forward(AutogradContext* context, const Tensor& pre, int64_t* active) {
    const int64_t tokens = pre.size(0);
    Tensor act = torch::empty_like(pre);
    Tensor sums = torch::empty({tokens, 2}, pre.options());
    auto* per_token = reinterpret_cast<HoyerSums*>(sums.data_ptr<float>());
    *active = ReluHoyerForward(pre.data_ptr<float>(), tokens, pre.size(1), act.data_ptr<float>(),
                               per_token);
    double total = 0;
    for (int64_t t = 0; t < tokens; ++t) total += per_token[t].Value();
    context->save_for_backward({act, sums});
    return {act, torch::full({}, total, pre.options())};
  }

  static tensor_list backward(AutogradContext* context, const tensor_list& gradients) {
    const tensor_list saved = context->get_saved_variables();
    const Tensor& act = saved[0];
    const Tensor dact = gradients[0].contiguous();
    Tensor dpre = torch::empty_like(act);
    ReluHoyerBackward(act.data_ptr<float>(),
                      reinterpret_cast<const HoyerSums*>(saved[1].data_ptr<float>()),
                      dact.data_ptr<float>(), gradients[1].item<float>(), act.size(0), act.size(1),
                      dpre.data_ptr<float>());
    return {dpre, Tensor()};
  }
};
static_assert(sizeof(HoyerSums) == 2 * sizeof(float));

}  // namespace

Tensor IndexTensor(const std::vector<int64_t>& values) {
  return torch::tensor(at::ArrayRef<int64_t>(values), torch::kInt64);
}

Tensor ApplyDropout(const Tensor& x, const Dropout& dropout) {
  if (dropout.rate == 0) return x;
  Tensor mask = torch::empty(x.sizes(), torch::kFloat32);
  DropoutMask(dropout, {mask.data_ptr<float>(), static_cast<size_t>(mask.numel())});
  return x * mask;
}

SparseActivation ReluWithHoyer(const Tensor& pre) {
  SparseActivation result;
  const tensor_list outputs = ReluHoyer::apply(pre, &result.active);
  result.values = outputs[0];
  result.hoyer = outputs[1];
  return result;
}

}  // namespace dimmer
