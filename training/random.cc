#include "training/random.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

namespace dimmer {

double RandomStream::Normal() {
  const double radius = std::sqrt(-2 * std::log(1 - Uniform()));
  return radius * std::cos(2 * std::numbers::pi * Uniform());
}

std::vector<uint32_t> Permutation(uint32_t n, uint64_t key) {
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  RandomStream random(key);
  for (uint32_t i = n; i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
  return order;
}

}  // namespace dimmer
