// The loss of a language model's head, fused with its gradient.
//
// Thread safety: pure function. Results are fixed on one machine type.
#ifndef DIMMER_TRAINING_CROSS_ENTROPY_H_
#define DIMMER_TRAINING_CROSS_ENTROPY_H_

#include <cstdint>
#include <span>

namespace dimmer {

// logits [targets, vocab] in; out: the gradient of the summed cross-entropy by them, softmax minus
// one at the target. `losses` [targets] takes each -log p(target), in nats.
void CrossEntropy(std::span<const int64_t> targets, int64_t vocab, float* logits, float* losses);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_CROSS_ENTROPY_H_
