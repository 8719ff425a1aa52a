#include "training/language_trainee.h"

#include <algorithm>
#include <span>

#include "training/cross_entropy.h"
#include "training/graph_ops.h"

namespace dimmer {

using torch::Tensor;

TrainForward LanguageTrainee::Forward(const PackedBatch& batch,
                                      std::optional<uint64_t> dropout_key) const {
  TrainForward result;
  const Tensor hidden = Hidden(batch, dropout_key, result);
  result.loss = NextTokenLoss(hidden, head(), batch.next_ids);
  return result;
}

std::vector<float> LanguageTrainee::TokenLosses(const PackedBatch& batch) const {
  const at::NoGradGuard frozen;
  TrainForward unused;
  const Tensor hidden = Hidden(batch, std::nullopt, unused);
  std::vector<float> losses(batch.tokens());
  for (int64_t begin = 0; begin < batch.tokens(); begin += kHeadTokens) {
    const int64_t count = std::min(kHeadTokens, batch.tokens() - begin);
    const Tensor logits = at::mm(hidden.narrow(0, begin, count), head().t());
    CrossEntropy(std::span(batch.next_ids).subspan(begin, count), head().size(0),
                 logits.data_ptr<float>(), losses.data() + begin);
  }
  return losses;
}

Tensor LanguageTrainee::Logits(const PackedBatch& batch) const {
  const at::NoGradGuard frozen;
  TrainForward unused;
  return at::mm(Hidden(batch, std::nullopt, unused), head().t());
}

}  // namespace dimmer
