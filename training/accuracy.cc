#include "training/accuracy.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/util/thread_pool.h"

namespace dimmer {

using torch::Tensor;

double Accuracy(const Trainee& model, std::span<const Example> examples, uint32_t workers) {
  constexpr size_t kChunk = 32;
  const size_t chunks = (examples.size() + kChunk - 1) / kChunk;
  std::vector<uint64_t> correct(chunks, 0);
  ThreadPool pool(workers);
  pool.ParallelFor(chunks, [&](size_t chunk, size_t) {
    const at::NoGradGuard frozen;
    PackedBatch batch;
    const size_t end = std::min(examples.size(), (chunk + 1) * kChunk);
    for (size_t i = chunk * kChunk; i < end; ++i) batch.Add(examples[i]);
    const Tensor best = model.Forward(batch, std::nullopt).logits.argmax(1);
    for (int64_t i = 0; i < batch.sequences(); ++i) {
      correct[chunk] += best[i].item<int64_t>() == batch.labels[i] ? 1 : 0;
    }
  });
  const uint64_t sum = std::accumulate(correct.begin(), correct.end(), uint64_t{0});
  return static_cast<double>(sum) / static_cast<double>(examples.size());
}

}  // namespace dimmer
