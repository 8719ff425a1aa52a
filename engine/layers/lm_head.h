// The two ends of a language model: ids to embeddings, and hidden states to logits. Where they
// share one matrix (a tied head), it is kept once.
//
// Thread safety: immutable once made.
#ifndef DIMMER_ENGINE_LAYERS_LM_HEAD_H_
#define DIMMER_ENGINE_LAYERS_LM_HEAD_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "engine/layers/embedding.h"
#include "engine/layers/linear.h"
#include "engine/util/thread_pool.h"

namespace dimmer {

class LmHead {
 public:
  LmHead() = default;
  // `head` and `words` [vocabulary, d]; without words the head is tied.
  explicit LmHead(Linear head) : head_(std::move(head)) {}
  LmHead(Linear head, Embedding words) : head_(std::move(head)), words_(std::move(words)) {}

  // out [d] += the embedding of `id`.
  void AddWord(int32_t id, float* out) const {
    const auto index = static_cast<size_t>(id);
    if (words_.rows() > 0) {
      words_.AddRow(index, out);
    } else {
      head_.AddWeights(index, out);
    }
  }

  // logits [rows, vocabulary] with stride logits_stride(); x [rows, d], stride PaddedWidth(d).
  void Apply(const float* x, size_t rows, float* logits, ThreadPool& pool) const {
    head_.Apply({x, PaddedWidth(head_.inputs()), nullptr}, rows, Activation::kNone, logits,
                logits_stride(), pool);
  }

  size_t logits_stride() const { return PaddedWidth(head_.outputs()); }
  size_t bytes() const { return head_.bytes() + words_.bytes(); }
  uint64_t flops() const { return head_.flops(); }

 private:
  Linear head_;
  Embedding words_;  // none: the head's rows are the words
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_LM_HEAD_H_
