// k-means whose clusters all have the same size: how neurons become experts (ALGORITHM.md, section
// 2; Zhang et al. 2022, "MoEfication").
#ifndef DIMMER_TRAINING_BALANCED_KMEANS_H_
#define DIMMER_TRAINING_BALANCED_KMEANS_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace dimmer {

struct Clustering {
  std::vector<uint32_t> cluster_of;  // [points]
  double inertia = 0;                // sum of squared distances to the cluster's mean
  uint32_t iterations = 0;
};

// Clusters `points` [count, width] into `clusters` of exactly count / clusters members.
// Seeded k-means++ start; then Lloyd iterations whose assignment step is greedy (nearest pairs
// first) and improved by swaps until none lowers the cost. Deterministic. Pure function.
// InvalidArgument: `clusters` does not divide the number of points.
absl::StatusOr<Clustering> BalancedKMeans(std::span<const float> points, int64_t width,
                                          uint32_t clusters, uint64_t seed);

// The order that makes every cluster contiguous: position p holds point order[p]. Clusters in
// ascending order, members too.
std::vector<uint32_t> ClusterOrder(const Clustering& clustering, uint32_t clusters);

// Divides each row of [rows, width] by its Euclidean norm; a zero row stays.
void NormalizeRows(int64_t width, std::span<float> rows);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_BALANCED_KMEANS_H_
