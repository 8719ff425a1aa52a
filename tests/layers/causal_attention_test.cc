#include "engine/layers/causal_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/kernels/reference.h"
#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

struct Shape {
  size_t d, heads, kv_heads, head_dim;
  bool rotary;
};
// As GPT-2; grouped; one key for all; heads that are wider together than the model.
constexpr Shape kShapes[] = {{24, 3, 3, 8, false},
                             {40, 4, 2, 10, true},
                             {36, 6, 1, 6, true},
                             {20, 4, 4, 16, true},
                             {64, 8, 4, 8, true}};

struct Problem {
  explicit Problem(const Shape& s) : shape(s) {
    std::mt19937 random(static_cast<uint32_t>(s.d));
    const size_t outputs = (s.heads + 2 * s.kv_heads) * s.head_dim;
    const float scale = 1.5f / std::sqrt(static_cast<float>(s.d));
    qkv = RandomFloats(outputs * s.d, random, scale);
    qkv_bias = RandomFloats(outputs, random, 0.3f);
    output = RandomFloats(s.d * s.heads * s.head_dim, random, scale);
    output_bias = RandomFloats(s.d, random, 0.3f);
    std::optional<Rotary> rotary;
    if (s.rotary) rotary.emplace(s.head_dim, 10000.0);
    attention = CausalAttention(s.heads, s.kv_heads, s.head_dim, rotary);
    attention.qkv() = Linear(outputs, s.d, WeightFormat::kF32);
    attention.qkv().Set(0, qkv, qkv_bias);
    attention.output() = Linear(s.d, s.heads * s.head_dim, WeightFormat::kF32);
    attention.output().Set(0, output, output_bias);
  }
  size_t stride() const { return PaddedWidth(shape.d); }
  KvShape kv_shape() const {
    return {kLayers, static_cast<uint32_t>(shape.kv_heads), static_cast<uint32_t>(shape.head_dim)};
  }
  std::vector<float> Inputs(size_t tokens, uint32_t seed) const {
    std::mt19937 random(seed);
    return RandomFloats(tokens * shape.d, random);
  }
  // The dense way, in double: all scores of a token, those of later ones left out.
  std::vector<float> Reference(const std::vector<float>& z) const;

  static constexpr uint32_t kLayers = 2;
  static constexpr size_t kLayer = 1;
  Shape shape;
  std::vector<float> qkv, qkv_bias, output, output_bias;
  CausalAttention attention;
};

void TurnReference(size_t position, size_t head_dim, float* head) {
  for (size_t i = 0; i < head_dim / 2; ++i) {
    const double angle =
        static_cast<double>(position) *
        std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    const double low = head[i], high = head[i + head_dim / 2];
    head[i] = static_cast<float>(low * std::cos(angle) - high * std::sin(angle));
    head[i + head_dim / 2] = static_cast<float>(high * std::cos(angle) + low * std::sin(angle));
  }
}

std::vector<float> Problem::Reference(const std::vector<float>& z) const {
  const auto& [d, heads, kv_heads, head_dim, rotary] = shape;
  const size_t tokens = z.size() / d;
  const size_t outputs = (heads + 2 * kv_heads) * head_dim;
  auto rows = reference::Linear(z, tokens, qkv, outputs, d, qkv_bias, Activation::kNone);
  for (size_t t = 0; rotary && t < tokens; ++t) {
    for (size_t h = 0; h < heads + kv_heads; ++h) {
      TurnReference(t, head_dim, rows.data() + t * outputs + h * head_dim);
    }
  }
  std::vector<float> context(tokens * heads * head_dim);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t h = 0; h < heads; ++h) {
      const size_t group = h / (heads / kv_heads);
      std::vector<float> k, v;
      for (size_t s = 0; s <= t; ++s) {
        const float* key = rows.data() + s * outputs + (heads + group) * head_dim;
        const float* value = key + kv_heads * head_dim;
        k.insert(k.end(), key, key + head_dim);
        v.insert(v.end(), value, value + head_dim);
      }
      const auto got =
          reference::AttentionOfQuery(std::span(rows).subspan(t * outputs + h * head_dim, head_dim),
                                      k, v, 1.0 / std::sqrt(static_cast<double>(head_dim)));
      std::copy(got.begin(), got.end(), context.data() + (t * heads + h) * head_dim);
    }
  }
  return reference::Linear(context, tokens, output, d, heads * head_dim, output_bias,
                           Activation::kNone);
}

// One sequence while it runs.
struct Running {
  Running(const Problem& problem, KvPool& pool, size_t tokens, uint32_t seed)
      : z(problem.Inputs(tokens, seed)), kv(*pool.Reserve(tokens)) {}
  size_t left(size_t d) const { return z.size() / d - done; }

  std::vector<float> z;
  KvPages kv;
  size_t done = 0;
  std::vector<float> out;
};

// The next counts[i] tokens of every sequence, in one batch.
void Step(const Problem& problem, std::vector<Running>& sequences,
          const std::vector<size_t>& counts, size_t threads) {
  const size_t d = problem.shape.d;
  const size_t stride = problem.stride();
  std::vector<CausalRows> rows;
  std::vector<float> z;
  size_t tokens = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Running& s = sequences[i];
    if (counts[i] == 0) continue;
    rows.push_back({{tokens, counts[i]}, s.done, &s.kv});
    const auto first = s.z.begin() + static_cast<std::ptrdiff_t>(s.done * d);
    z.insert(z.end(), first, first + static_cast<std::ptrdiff_t>(counts[i] * d));
    tokens += counts[i];
  }
  const AlignedBuffer<float> padded = Padded(z, tokens, d);
  AlignedBuffer<float> out(tokens * stride);  // the residual: 1
  std::fill(out.data(), out.data() + out.size(), 1.0f);
  ThreadPool pool(threads);
  Workspace workspace;
  problem.attention.Apply(padded.data(), out.data(), rows, Problem::kLayer, out.data(), pool,
                          workspace);
  size_t row = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (size_t r = 0; r < counts[i]; ++r, ++row) {
      const float* from = out.data() + row * stride;
      sequences[i].out.insert(sequences[i].out.end(), from, from + d);
    }
    sequences[i].done += counts[i];
  }
}

// All in one step.
std::vector<float> Whole(const Problem& problem, size_t tokens, uint32_t seed) {
  KvPool pool(problem.kv_shape(), KvPool::PagesFor(tokens));
  std::vector<Running> one;
  one.emplace_back(problem, pool, tokens, seed);
  Step(problem, one, {tokens}, 1);
  return one[0].out;
}

TEST(CausalAttention, MatchesTheDenseReference) {
  ForEachTarget([] {
    for (const Shape& s : kShapes) {
      const Problem problem(s);
      for (size_t tokens : {1, 2, 16, 17, 65, 90}) {
        SCOPED_TRACE(testing::Message() << s.heads << "/" << s.kv_heads << " heads of "
                                        << s.head_dim << ", " << tokens);
        const auto got = Whole(problem, tokens, 5);
        const auto want = problem.Reference(problem.Inputs(tokens, 5));
        for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i] + 1, 3e-5) << i;
      }
    }
  });
}

// However prompts are cut, whatever else is in the step, on however many threads.
TEST(CausalAttention, BitsDoNotDependOnChunksNeighboursOrThreads) {
  ForEachTarget([] {
    for (const Shape& s : kShapes) {
      const Problem problem(s);
      const std::vector<size_t> lengths = {1, 70, 33, 128, 17};
      std::vector<std::vector<float>> want;
      for (size_t i = 0; i < lengths.size(); ++i) {
        want.push_back(Whole(problem, lengths[i], static_cast<uint32_t>(i)));
      }
      for (size_t threads : {1, 2, 3}) {
        std::mt19937 random(static_cast<uint32_t>(threads));
        size_t pages = 0;
        for (size_t length : lengths) pages += KvPool::PagesFor(length);
        KvPool pool(problem.kv_shape(), pages);
        std::vector<Running> sequences;
        for (size_t i = 0; i < lengths.size(); ++i) {
          sequences.emplace_back(problem, pool, lengths[i], static_cast<uint32_t>(i));
        }
        for (bool more = true; more;) {
          std::vector<size_t> counts;
          for (const Running& sequence : sequences) {
            const size_t most = random() % 3 == 0 ? 64 : 3;  // sometimes nothing
            counts.push_back(std::min<size_t>(random() % (most + 1), sequence.left(s.d)));
          }
          if (std::count(counts.begin(), counts.end(), 0u) < std::ptrdiff_t(counts.size())) {
            Step(problem, sequences, counts, threads);
          }
          more = std::any_of(sequences.begin(), sequences.end(),
                             [&](const Running& running) { return running.left(s.d) > 0; });
        }
        for (size_t i = 0; i < lengths.size(); ++i) {
          ASSERT_EQ(sequences[i].out, want[i]) << lengths[i] << " tokens, threads " << threads;
        }
      }
    }
  });
}

TEST(CausalAttention, CountsFlops) {
  const Problem problem({40, 4, 2, 10, true});
  EXPECT_EQ(problem.attention.token_flops(), 2u * (40 * (40 + 2 * 20) + 40 * 40));
  EXPECT_EQ(problem.attention.pair_flops(), 4u * 40);
}

}  // namespace
}  // namespace dimmer
