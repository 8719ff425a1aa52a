// Random numbers without state: every draw is a function of a key and an index, so that a resumed
// run draws what an uninterrupted one would have, and threads share nothing.
#ifndef DIMMER_TRAINING_RANDOM_H_
#define DIMMER_TRAINING_RANDOM_H_

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace dimmer {

// SplitMix64's finalizer (Steele, Lea, Flood 2014).
inline uint64_t MixBits(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// A key for one purpose, e.g. RandomKey({seed, step, worker, site}).
inline uint64_t RandomKey(std::initializer_list<uint64_t> parts) {
  uint64_t key = 0;
  for (uint64_t part : parts) key = MixBits(key ^ MixBits(part));
  return key;
}

// A stream of draws under one key. Not thread-safe; cheap to make.
class RandomStream {
 public:
  explicit RandomStream(uint64_t key) : key_(key) {}
  uint64_t Next() { return MixBits(key_ + 0x9E3779B97F4A7C15u * ++index_); }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }  // [0, 1)
  uint64_t Below(uint64_t n) {  // [0, n); the bias of 2^-64 * n does not matter here
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * n) >> 64);
  }
  double Normal();  // mean 0, deviation 1

 private:
  uint64_t key_;
  uint64_t index_ = 0;
};

// A random order of 0 .. n-1. Our own, because std::shuffle differs between libraries.
std::vector<uint32_t> Permutation(uint32_t n, uint64_t key);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_RANDOM_H_
