#include "training/balanced_kmeans.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "training/random.h"

namespace dimmer {
namespace {

// `groups` blobs of `size` points, in a shuffled order.
struct Blobs {
  std::vector<float> points;
  std::vector<uint32_t> group_of;
};

Blobs MakeBlobs(uint32_t groups, uint32_t size, int64_t width, double spread, uint64_t seed) {
  RandomStream random(RandomKey({seed}));
  std::vector<float> centers(groups * width);
  for (float& x : centers) x = static_cast<float>(random.Normal());
  Blobs blobs;
  for (uint32_t i : Permutation(groups * size, seed)) {
    const uint32_t group = i % groups;
    blobs.group_of.push_back(group);
    for (int64_t d = 0; d < width; ++d) {
      blobs.points.push_back(
          static_cast<float>(centers[group * width + d] + spread * random.Normal()));
    }
  }
  return blobs;
}

double InertiaOf(const std::vector<float>& points, int64_t width,
                 const std::vector<uint32_t>& cluster_of, uint32_t clusters) {
  std::vector<double> sums(clusters * width, 0);
  std::vector<double> counts(clusters, 0);
  double squares = 0;
  for (size_t i = 0; i < cluster_of.size(); ++i) {
    counts[cluster_of[i]] += 1;
    for (int64_t d = 0; d < width; ++d) {
      const double x = points[i * width + d];
      sums[cluster_of[i] * width + d] += x;
      squares += x * x;
    }
  }
  for (uint32_t c = 0; c < clusters; ++c) {
    for (int64_t d = 0; d < width; ++d) {
      squares -= sums[c * width + d] * sums[c * width + d] / counts[c];
    }
  }
  return squares;
}

TEST(BalancedKMeansTest, EveryClusterHasExactlyItsShare) {
  for (const auto& [count, clusters] : {std::pair(96u, 8u), {96u, 96u}, {96u, 1u}, {60u, 12u}}) {
    const Blobs blobs = MakeBlobs(count, 1, 7, 1.0, count + clusters);
    const auto result = BalancedKMeans(blobs.points, 7, clusters, 1);
    ASSERT_TRUE(result.ok());
    std::map<uint32_t, uint32_t> sizes;
    for (uint32_t cluster : result->cluster_of) ++sizes[cluster];
    EXPECT_EQ(sizes.size(), clusters);
    for (const auto& [cluster, size] : sizes) EXPECT_EQ(size, count / clusters) << cluster;
  }
}

TEST(BalancedKMeansTest, FindsWellSeparatedGroups) {
  const Blobs blobs = MakeBlobs(6, 10, 16, 0.02, 3);
  const auto result = BalancedKMeans(blobs.points, 16, 6, 1);
  ASSERT_TRUE(result.ok());
  std::map<uint32_t, uint32_t> cluster_of_group;
  for (size_t i = 0; i < blobs.group_of.size(); ++i) {
    const auto [found, inserted] =
        cluster_of_group.emplace(blobs.group_of[i], result->cluster_of[i]);
    EXPECT_EQ(found->second, result->cluster_of[i]);
  }
}

TEST(BalancedKMeansTest, BeatsRandomClustersAndReportsItsInertia) {
  const Blobs blobs = MakeBlobs(20, 16, 24, 1.0, 5);
  const auto result = BalancedKMeans(blobs.points, 24, 20, 1);
  ASSERT_TRUE(result.ok());
  EXPECT_NEAR(result->inertia, InertiaOf(blobs.points, 24, result->cluster_of, 20),
              1e-3 * result->inertia);
  std::vector<uint32_t> random = Permutation(320, 9);
  for (uint32_t& cluster : random) cluster %= 20;
  EXPECT_LT(result->inertia, 0.75 * InertiaOf(blobs.points, 24, random, 20));
}

TEST(BalancedKMeansTest, NoSwapOfTwoPointsLowersTheCostToTheCenters) {
  const Blobs blobs = MakeBlobs(8, 8, 5, 1.0, 6);
  const auto result = BalancedKMeans(blobs.points, 5, 8, 1);
  ASSERT_TRUE(result.ok());
  const double inertia = InertiaOf(blobs.points, 5, result->cluster_of, 8);
  // With the centers moved along, a single swap of a converged clustering can still gain a little;
  // it must not gain much.
  double best = inertia;
  std::vector<uint32_t> cluster_of = result->cluster_of;
  for (size_t i = 0; i < cluster_of.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      std::swap(cluster_of[i], cluster_of[j]);
      best = std::min(best, InertiaOf(blobs.points, 5, cluster_of, 8));
      std::swap(cluster_of[i], cluster_of[j]);
    }
  }
  EXPECT_GT(best, 0.97 * inertia);
}

TEST(BalancedKMeansTest, IsDeterministicAndSeeded) {
  const Blobs blobs = MakeBlobs(64, 4, 12, 1.0, 7);
  const auto a = BalancedKMeans(blobs.points, 12, 16, 1);
  const auto b = BalancedKMeans(blobs.points, 12, 16, 1);
  const auto c = BalancedKMeans(blobs.points, 12, 16, 2);
  EXPECT_EQ(a->cluster_of, b->cluster_of);
  EXPECT_NE(a->cluster_of, c->cluster_of);
}

TEST(BalancedKMeansTest, SurvivesEqualPoints) {
  const std::vector<float> points(32 * 3, 1.0F);
  const auto result = BalancedKMeans(points, 3, 8, 1);
  ASSERT_TRUE(result.ok());
  EXPECT_NEAR(result->inertia, 0, 1e-6);
}

TEST(BalancedKMeansTest, RefusesAnUnevenDivision) {
  const std::vector<float> points(10 * 3, 1.0F);
  EXPECT_EQ(BalancedKMeans(points, 3, 4, 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(BalancedKMeans(points, 3, 0, 1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ClusterOrderTest, IsAPermutationWithContiguousClusters) {
  const std::vector<uint32_t> order = ClusterOrder({.cluster_of = {1, 0, 2, 1, 0, 2}}, 3);
  EXPECT_EQ(order, (std::vector<uint32_t>{1, 4, 0, 3, 2, 5}));
}

TEST(NormalizeRowsTest, GivesUnitRowsAndLeavesZeroRows) {
  std::vector<float> rows = {3, 4, 0, 0};
  NormalizeRows(2, rows);
  EXPECT_FLOAT_EQ(rows[0], 0.6F);
  EXPECT_FLOAT_EQ(rows[1], 0.8F);
  EXPECT_EQ(rows[2], 0);
  EXPECT_EQ(rows[3], 0);
}

}  // namespace
}  // namespace dimmer
