#include "training/split.h"

#include <algorithm>

#include "engine/util/status.h"
#include "engine/util/thread_pool.h"
#include "training/balanced_kmeans.h"
#include "training/random.h"

namespace dimmer {
namespace {

// Inertia of the clusters that the stored order gives.
double ConsecutiveInertia(std::span<const float> rows, int64_t width, uint32_t clusters) {
  const size_t size = rows.size() / width / clusters;
  double total = 0;
  for (uint32_t c = 0; c < clusters; ++c) {
    const float* first = rows.data() + c * size * width;
    for (int64_t d = 0; d < width; ++d) {
      double sum = 0;
      double squares = 0;
      for (size_t i = 0; i < size; ++i) {
        const double x = first[i * width + d];
        sum += x;
        squares += x * x;
      }
      total += squares - sum * sum / static_cast<double>(size);
    }
  }
  return total;
}

}  // namespace

void PermuteNeurons(const BertShape& shape, int64_t layer, std::span<const uint32_t> order,
                    WeightMap& weights) {
  const std::string prefix = fmt::format("bert.encoder.layer.{}.", layer);
  std::vector<float>& up = weights.at(prefix + "intermediate.dense.weight");  // [d_ff, d]
  std::vector<float>& up_bias = weights.at(prefix + "intermediate.dense.bias");
  std::vector<float>& down = weights.at(prefix + "output.dense.weight");  // [d, d_ff]
  const std::vector<float> old_up = up;
  const std::vector<float> old_bias = up_bias;
  const std::vector<float> old_down = down;
  for (int64_t p = 0; p < shape.hidden; ++p) {
    const int64_t neuron = order[p];
    std::copy_n(old_up.begin() + neuron * shape.width, shape.width, up.begin() + p * shape.width);
    up_bias[p] = old_bias[neuron];
    for (int64_t d = 0; d < shape.width; ++d) {
      down[d * shape.hidden + p] = old_down[d * shape.hidden + neuron];
    }
  }
}

absl::StatusOr<SplitReport> SplitIntoExperts(const BertShape& shape, uint32_t experts,
                                             uint64_t seed, uint32_t workers, WeightMap& weights,
                                             const std::function<void(int64_t layer)>& on_layer) {
  if (experts == 0 || shape.hidden % experts != 0) {
    return absl::InvalidArgumentError(
        fmt::format("experts: found {}, expected a divisor of the FFN's hidden width {}", experts,
                    shape.hidden));
  }
  SplitReport report;
  report.inertia.resize(shape.layers);
  report.baseline.resize(shape.layers);
  std::vector<std::vector<uint32_t>> orders(shape.layers);
  std::vector<absl::Status> statuses(shape.layers);
  ThreadPool pool(workers);
  pool.ParallelFor(shape.layers, [&](size_t layer, size_t) {
    std::vector<float> rows =
        weights.at(fmt::format("bert.encoder.layer.{}.intermediate.dense.weight", layer));
    NormalizeRows(shape.width, rows);
    auto clustering = BalancedKMeans(rows, shape.width, experts, RandomKey({seed, layer}));
    statuses[layer] = clustering.status();
    if (!clustering.ok()) return;
    report.inertia[layer] = clustering->inertia;
    report.baseline[layer] = ConsecutiveInertia(rows, shape.width, experts);
    orders[layer] = ClusterOrder(*clustering, experts);
    if (on_layer) on_layer(static_cast<int64_t>(layer));
  });
  for (const absl::Status& status : statuses) DIMMER_RETURN_IF_ERROR(status);
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    PermuteNeurons(shape, layer, orders[layer], weights);
  }
  return report;
}

}  // namespace dimmer
