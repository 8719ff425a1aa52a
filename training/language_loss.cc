#include "training/language_loss.h"

#include <algorithm>
#include <numbers>
#include <numeric>
#include <string>
#include <vector>

#include "engine/util/thread_pool.h"
#include "training/language_measure.h"

namespace dimmer {

double TotalNats(const Trainee& model, std::span<const Example> examples, uint32_t workers) {
  constexpr size_t kChunk = 8;
  const size_t chunks = (examples.size() + kChunk - 1) / kChunk;
  std::vector<double> nats(chunks, 0);
  ThreadPool pool(workers);
  pool.ParallelFor(chunks, [&](size_t chunk, size_t) {
    const at::NoGradGuard frozen;
    PackedBatch batch;
    const size_t end = std::min(examples.size(), (chunk + 1) * kChunk);
    for (size_t i = chunk * kChunk; i < end; ++i) batch.Add(examples[i]);
    nats[chunk] = model.Forward(batch, std::nullopt).loss.item<float>();
  });
  return std::accumulate(nats.begin(), nats.end(), 0.0);
}

EpochCheck ValidationCheck(std::span<const TokenizedDocument> documents,
                           std::span<const Example> rows, uint32_t workers) {
  uint64_t bytes = 0;
  for (const TokenizedDocument& document : documents) bytes += document.bytes;
  return {.metric = std::string(kBitsPerByte),
          .lower_is_better = true,
          .measure = [rows, workers, bytes](const Trainee& model) {
            return TotalNats(model, rows, workers) / std::numbers::ln2 / static_cast<double>(bytes);
          }};
}

}  // namespace dimmer
