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

// Moves the vector of d values of neuron order[p] to position p. A neuron is a row [d_ff, d] of the
// matrix, or a column [d, d_ff].
void PermuteVectors(const ModelLayout& layout, std::span<const uint32_t> order, bool is_row,
                    std::vector<float>& matrix) {
  const std::vector<float> old = matrix;
  const int64_t neuron_step = is_row ? layout.width : 1;
  const int64_t value_step = is_row ? 1 : layout.hidden;
  for (int64_t p = 0; p < layout.hidden; ++p) {
    const int64_t neuron = order[p];
    for (int64_t i = 0; i < layout.width; ++i) {
      matrix[p * neuron_step + i * value_step] = old[neuron * neuron_step + i * value_step];
    }
  }
}

// What neurons are compared by: the weights that decide on their activity [d_ff, d].
std::vector<float> Features(const ModelLayout& layout, int64_t layer, const WeightMap& weights) {
  const FfnLayout& ffn = layout.ffns[layer];
  const std::vector<float>& first = weights.at(ffn.first());
  if (ffn.orientation == Orientation::kOutIn) return first;
  std::vector<float> rows(first.size());
  for (int64_t i = 0; i < layout.width; ++i) {
    for (int64_t n = 0; n < layout.hidden; ++n) {
      rows[n * layout.width + i] = first[i * layout.hidden + n];
    }
  }
  return rows;
}

}  // namespace

void PermuteNeurons(const ModelLayout& layout, int64_t layer, std::span<const uint32_t> order,
                    WeightMap& weights) {
  const FfnLayout& ffn = layout.ffns[layer];
  const bool by_rows = ffn.orientation == Orientation::kOutIn;  // where a neuron is a row of `up`
  PermuteVectors(layout, order, by_rows, weights.at(ffn.up));
  if (!ffn.gate.empty()) PermuteVectors(layout, order, by_rows, weights.at(ffn.gate));
  PermuteVectors(layout, order, !by_rows, weights.at(ffn.down));
  if (ffn.up_bias.empty()) return;
  std::vector<float>& bias = weights.at(ffn.up_bias);
  const std::vector<float> old = bias;
  for (int64_t p = 0; p < layout.hidden; ++p) bias[p] = old[order[p]];
}

absl::StatusOr<SplitReport> SplitIntoExperts(const ModelLayout& layout, uint32_t experts,
                                             uint64_t seed, uint32_t workers, WeightMap& weights,
                                             const std::function<void(int64_t layer)>& on_layer) {
  if (experts == 0 || layout.hidden % experts != 0) {
    return absl::InvalidArgumentError(
        fmt::format("experts: found {}, expected a divisor of the FFN's hidden width {}", experts,
                    layout.hidden));
  }
  SplitReport report;
  report.inertia.resize(layout.layers());
  report.baseline.resize(layout.layers());
  std::vector<std::vector<uint32_t>> orders(layout.layers());
  std::vector<absl::Status> statuses(layout.layers());
  ThreadPool pool(workers);
  pool.ParallelFor(layout.layers(), [&](size_t layer, size_t) {
    std::vector<float> rows = Features(layout, static_cast<int64_t>(layer), weights);
    NormalizeRows(layout.width, rows);
    auto clustering = BalancedKMeans(rows, layout.width, experts, RandomKey({seed, layer}));
    statuses[layer] = clustering.status();
    if (!clustering.ok()) return;
    report.inertia[layer] = clustering->inertia;
    report.baseline[layer] = ConsecutiveInertia(rows, layout.width, experts);
    orders[layer] = ClusterOrder(*clustering, experts);
    if (on_layer) on_layer(static_cast<int64_t>(layer));
  });
  for (const absl::Status& status : statuses) DIMMER_RETURN_IF_ERROR(status);
  for (int64_t layer = 0; layer < layout.layers(); ++layer) {
    PermuteNeurons(layout, layer, orders[layer], weights);
  }
  return report;
}

}  // namespace dimmer
