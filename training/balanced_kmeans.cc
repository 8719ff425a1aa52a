#include "training/balanced_kmeans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/util/status.h"
#include "training/kernels.h"
#include "training/random.h"

namespace dimmer {
namespace {

constexpr uint32_t kMaxIterations = 50;
constexpr int kMaxSwapPasses = 100;

class BalancedLloyd {
 public:
  BalancedLloyd(std::span<const float> points, int64_t width, uint32_t clusters)
      : points_(points),
        width_(width),
        count_(static_cast<uint32_t>(points.size() / width)),
        clusters_(clusters),
        size_(count_ / clusters),
        centers_(clusters * width),
        cost_(static_cast<size_t>(count_) * clusters) {}

  Clustering Run(uint64_t seed) {
    Seed(seed);
    Clustering best;
    best.inertia = std::numeric_limits<double>::infinity();
    std::vector<uint32_t> assignment;
    for (uint32_t iteration = 1; iteration <= kMaxIterations; ++iteration) {
      ComputeCosts();
      // The previous assignment is a second start for the swaps: taking the cheaper of the two
      // keeps the cost from ever rising.
      std::vector<uint32_t> next = Greedy();
      ImproveBySwaps(next);
      if (!assignment.empty()) {
        std::vector<uint32_t> kept = assignment;
        ImproveBySwaps(kept);
        if (Cost(kept) <= Cost(next)) next = std::move(kept);
      }
      const bool settled = next == assignment;
      assignment = std::move(next);
      MoveCenters(assignment);
      const double inertia = Inertia(assignment);
      if (inertia < best.inertia) best = {assignment, inertia, iteration};
      if (settled) break;
    }
    return best;
  }

 private:
  const float* Point(uint32_t i) const { return points_.data() + i * width_; }

  double SquaredDistance(const float* a, const float* b) const {
    double sum = 0;
    for (int64_t d = 0; d < width_; ++d) {
      const double difference = static_cast<double>(a[d]) - b[d];
      sum += difference * difference;
    }
    return sum;
  }

  // k-means++ (Arthur and Vassilvitskii 2007): far points are likelier centers.
  void Seed(uint64_t seed) {
    RandomStream random(RandomKey({seed, 0x5EED}));
    std::vector<double> distance(count_, std::numeric_limits<double>::infinity());
    auto chosen = static_cast<uint32_t>(random.Below(count_));
    for (uint32_t c = 0; c < clusters_; ++c) {
      std::copy_n(Point(chosen), width_, centers_.begin() + c * width_);
      double total = 0;
      for (uint32_t i = 0; i < count_; ++i) {
        distance[i] = std::min(distance[i], SquaredDistance(Point(i), Point(chosen)));
        total += distance[i];
      }
      double left = random.Uniform() * total;
      chosen = 0;
      while (chosen + 1 < count_ && left >= distance[chosen]) left -= distance[chosen++];
    }
  }

  // cost = |x - c|^2 - |x|^2: what the assignment can change.
  void ComputeCosts() {
    std::vector<float> transposed(centers_.size());
    std::vector<float> squares(clusters_, 0.0F);
    for (uint32_t c = 0; c < clusters_; ++c) {
      for (int64_t d = 0; d < width_; ++d) {
        const float x = centers_[c * width_ + d];
        transposed[d * clusters_ + c] = -2 * x;
        squares[c] += x * x;
      }
    }
    MatrixProduct(points_.data(), transposed.data(), count_, width_, clusters_, cost_.data());
    for (uint32_t i = 0; i < count_; ++i) {
      for (uint32_t c = 0; c < clusters_; ++c) cost_[Cell(i, c)] += squares[c];
    }
  }

  size_t Cell(uint32_t point, uint32_t cluster) const {
    return static_cast<size_t>(point) * clusters_ + cluster;
  }

  double Cost(const std::vector<uint32_t>& assignment) const {
    double sum = 0;
    for (uint32_t i = 0; i < count_; ++i) sum += cost_[Cell(i, assignment[i])];
    return sum;
  }

  std::vector<uint32_t> Greedy() const {
    std::vector<uint32_t> cells(cost_.size());
    std::iota(cells.begin(), cells.end(), 0u);
    std::sort(cells.begin(), cells.end(), [&](uint32_t a, uint32_t b) {
      return cost_[a] < cost_[b] || (cost_[a] == cost_[b] && a < b);
    });
    std::vector<uint32_t> assignment(count_, clusters_);
    std::vector<uint32_t> room(clusters_, size_);
    for (uint32_t cell : cells) {
      const uint32_t point = cell / clusters_;
      const uint32_t cluster = cell % clusters_;
      if (assignment[point] != clusters_ || room[cluster] == 0) continue;
      assignment[point] = cluster;
      --room[cluster];
    }
    return assignment;
  }

  void ImproveBySwaps(std::vector<uint32_t>& assignment) const {
    constexpr float kGain = 1e-6F;  // rounding must not make two swaps chase each other
    for (int pass = 0; pass < kMaxSwapPasses; ++pass) {
      bool swapped = false;
      for (uint32_t i = 0; i + 1 < count_; ++i) {
        for (uint32_t j = i + 1; j < count_; ++j) {
          const uint32_t a = assignment[i];
          const uint32_t b = assignment[j];
          const float now = cost_[Cell(i, a)] + cost_[Cell(j, b)];
          if (a != b && cost_[Cell(i, b)] + cost_[Cell(j, a)] < now - kGain) {
            std::swap(assignment[i], assignment[j]);
            swapped = true;
          }
        }
      }
      if (!swapped) return;
    }
  }

  void MoveCenters(const std::vector<uint32_t>& assignment) {
    std::fill(centers_.begin(), centers_.end(), 0.0F);
    for (uint32_t i = 0; i < count_; ++i) {
      float* center = centers_.data() + assignment[i] * width_;
      for (int64_t d = 0; d < width_; ++d) center[d] += Point(i)[d] / static_cast<float>(size_);
    }
  }

  double Inertia(const std::vector<uint32_t>& assignment) const {
    double sum = 0;
    for (uint32_t i = 0; i < count_; ++i) {
      sum += SquaredDistance(Point(i), centers_.data() + assignment[i] * width_);
    }
    return sum;
  }

  std::span<const float> points_;
  const int64_t width_;
  const uint32_t count_, clusters_, size_;
  std::vector<float> centers_;  // [clusters, width]
  std::vector<float> cost_;     // [points, clusters]
};

}  // namespace

absl::StatusOr<Clustering> BalancedKMeans(std::span<const float> points, int64_t width,
                                          uint32_t clusters, uint64_t seed) {
  const size_t count = width > 0 ? points.size() / width : 0;
  if (clusters == 0 || count == 0 || count % clusters != 0) {
    return absl::InvalidArgumentError(
        fmt::format("clusters: found {}, expected a divisor of the {} points", clusters, count));
  }
  if (count * clusters > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(
        fmt::format("{} points in {} clusters: more than 2^32 pairs", count, clusters));
  }
  return BalancedLloyd(points, width, clusters).Run(seed);
}

std::vector<uint32_t> ClusterOrder(const Clustering& clustering, uint32_t clusters) {
  std::vector<std::vector<uint32_t>> members(clusters);
  for (uint32_t i = 0; i < clustering.cluster_of.size(); ++i) {
    members[clustering.cluster_of[i]].push_back(i);
  }
  std::vector<uint32_t> order;
  for (const auto& cluster : members) order.insert(order.end(), cluster.begin(), cluster.end());
  return order;
}

void NormalizeRows(int64_t width, std::span<float> rows) {
  for (size_t begin = 0; begin + width <= rows.size(); begin += width) {
    double squares = 0;
    for (int64_t d = 0; d < width; ++d) {
      squares += static_cast<double>(rows[begin + d]) * rows[begin + d];
    }
    if (squares == 0) continue;
    const auto scale = static_cast<float>(1 / std::sqrt(squares));
    for (int64_t d = 0; d < width; ++d) rows[begin + d] *= scale;
  }
}

}  // namespace dimmer
