#include "engine/generate_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "engine/layers/kv_cache.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

class StubDecoder : public Model {
 public:
  StubDecoder() {
    info_.architecture = "Stub";
    info_.tasks = {Task::kGeneration, Task::kScoring};
    info_.vocab_size = 200;
    info_.max_tokens = 50;
    info_.default_max_tokens = 20;
    info_.end_ids = {199};
    info_.kv = {.layers = 1, .heads = 1, .head_dim = 1};
    info_.cost = {.token_flops = 100,
                  .attention_flops = 1,
                  .sequence_flops = 10,
                  .moe = {{.layer = 0, .experts = 4, .pair_flops = 10, .router_flops = 2}},
                  .causal = true};
  }
  const ModelInfo& info() const override { return info_; }
  void Forward(std::span<Sequence* const>, StepContext&) const override {}
  ModelInfo info_;
};

// One token per character.
class StubTokenizer : public Tokenizer {
 public:
  absl::StatusOr<Encoding> Encode(std::string_view text, std::optional<std::string_view>,
                                  const EncodeOptions&) const override {
    Encoding encoding;
    encoding.ids.assign(text.begin(), text.end());
    encoding.type_ids.assign(text.size(), 0);
    return encoding;
  }
  std::string_view TokenOf(int32_t) const override { return ""; }
  std::string_view BytesOf(int32_t) const override { return ""; }
  size_t vocab_size() const override { return 128; }
  std::optional<int32_t> bos_id() const override { return bos; }
  std::optional<int32_t> bos;
};

class GenerateRequestTest : public testing::Test {
 protected:
  GenerateRequestTest() {
    served_->name = "m";
    served_->version = "1";
    served_->model = stub_;
    model_.served = served_;
    model_.tokenizer = tokenizer_;
    model_.max_tokens = 50;
  }
  absl::StatusOr<Prepared> Run(const Request& request) {
    DIMMER_RETURN_IF_ERROR(CheckRequest(request, model_));
    return Prepare(request, model_, {}, [] { return absl::OkStatus(); });
  }
  absl::StatusOr<Prepared> Generate(const std::string& prompt, GenerateOptions options,
                                    Budget budget = {}) {
    return Run({.task = Task::kGeneration,
                .texts = {prompt},
                .budget = budget,
                .generate = std::move(options)});
  }
  void ExpectRefused(const absl::StatusOr<Prepared>& prepared, const std::string& message,
                     StatusCode code = StatusCode::kInvalidArgument) {
    EXPECT_EQ(prepared.status().code(), code) << message;
    EXPECT_THAT(std::string(prepared.status().message()), HasSubstr(message));
  }

  std::shared_ptr<StubDecoder> stub_ = std::make_shared<StubDecoder>();
  std::shared_ptr<ServedModel> served_ = std::make_shared<ServedModel>();
  std::shared_ptr<StubTokenizer> tokenizer_ = std::make_shared<StubTokenizer>();
  LoadedModel model_;
};

TEST_F(GenerateRequestTest, PreparesAPrompt) {
  const auto prepared =
      Generate("abc", {.max_tokens = 7, .sampling = {.temperature = 0.5f, .top_k = 4, .seed = 9}});
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  const Sequence& sequence = prepared->sequences.at(0);
  EXPECT_EQ(sequence.task, Task::kGeneration);
  EXPECT_THAT(sequence.ids, ElementsAre('a', 'b', 'c'));
  ASSERT_NE(sequence.generation, nullptr);
  EXPECT_EQ(sequence.generation->prompt_tokens, 3u);
  EXPECT_EQ(sequence.generation->max_new_tokens, 7u);
  EXPECT_EQ(sequence.generation->sampling.temperature, 0.5f);
  EXPECT_EQ(sequence.generation->sampling.top_k, 4u);
  EXPECT_EQ(sequence.generation->sampling.seed, 9u);
  EXPECT_TRUE(sequence.plan.dense());
}

TEST_F(GenerateRequestTest, ZeroTokensMeansTheModelsDefaultOrWhatIsLeft) {
  const auto tokens = [&](size_t prompt) {
    return Generate(std::string(prompt, 'a'), {})->sequences.at(0).generation->max_new_tokens;
  };
  EXPECT_EQ(tokens(1), 20u);
  EXPECT_EQ(tokens(30), 20u);
  EXPECT_EQ(tokens(45), 5u);
  stub_->info_.default_max_tokens = 0;
  EXPECT_EQ(tokens(1), 49u);
  served_->kv = std::make_shared<KvPool>(stub_->info_.kv, 2);
  EXPECT_EQ(tokens(1), 32u);
}

TEST_F(GenerateRequestTest, AFreshSeedIsDrawnForZero) {
  std::set<uint64_t> seeds;
  for (int i = 0; i < 4; ++i) {
    seeds.insert(Generate("a", {})->sequences.at(0).generation->sampling.seed);
  }
  EXPECT_EQ(seeds.size(), 4u);
  EXPECT_FALSE(seeds.contains(0));
  EXPECT_LT(*seeds.rbegin(), uint64_t{1} << 53);  // a double holds it
}

TEST_F(GenerateRequestTest, LengthsBeyondTheContextAreNamed) {
  ExpectRefused(Generate(std::string(50, 'a'), {}),
                "the prompt has 50 tokens, the model's context 50");
  ExpectRefused(Generate(std::string(80, 'a'), {}),
                "the prompt has 80 tokens, the model's context 50");
  ExpectRefused(
      Generate(std::string(40, 'a'), {.max_tokens = 11}),
      "the prompt has 40 tokens and max_tokens is 11: 51 in all, the model's context is 50");
  EXPECT_TRUE(Generate(std::string(40, 'a'), {.max_tokens = 10}).ok());
}

TEST_F(GenerateRequestTest, WrongFieldsAreNamed) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {-0.1f, nan, infinity}) {
    ExpectRefused(Generate("a", {.sampling = {.temperature = bad}}), "temperature: found ");
  }
  for (const float bad : {-0.1f, 1.1f, nan}) {
    ExpectRefused(Generate("a", {.sampling = {.top_p = bad}}), "top_p: found ");
  }
  ExpectRefused(Generate("a", {.stop = {"x", ""}}), "stop[1]: found 0 bytes, expected 1 to 1024");
  ExpectRefused(Generate("a", {.stop = {std::string(1025, 'x')}}), "stop[0]: found 1025 bytes");
  ExpectRefused(Generate("a", {.stop = {"\xff"}}), "stop[0] is not UTF-8");
  ExpectRefused(Generate("a", {.stop = std::vector<std::string>(17, "x")}),
                "stop: found 17 strings, at most 16 are taken");
  ExpectRefused(Run({.task = Task::kGeneration, .texts = {"a", "b"}}),
                "texts: found 2, expected one, the prompt");
  ExpectRefused(Run({.task = Task::kGeneration, .token_ids = {{1}, {2}}}),
                "token_ids: found 2, expected one");
  ExpectRefused(Run({.task = Task::kGeneration, .texts = {"a"}, .truncate = true}), "truncate: ");
  ExpectRefused(Run({.task = Task::kScoring, .texts = {"a"}, .text_pairs = {"b"}}), "text_pairs: ");
  ExpectRefused(Run({.task = Task::kClassification, .texts = {"a"}}), "cannot classify");
  model_.tokenizer = nullptr;
  ExpectRefused(Run({.task = Task::kGeneration,
                     .token_ids = {{1}},
                     .generate = GenerateOptions{.stop = {"x"}}}),
                "stop: model m has no tokenizer");
  EXPECT_TRUE(Run({.task = Task::kGeneration, .token_ids = {{1}}}).ok());
}

TEST_F(GenerateRequestTest, AnEmptyPromptStartsFromTheModelsOwnToken) {
  EXPECT_THAT(Generate("", {})->sequences.at(0).ids, ElementsAre(199));
  tokenizer_->bos = 1;
  EXPECT_THAT(Generate("", {})->sequences.at(0).ids, ElementsAre(1));
  tokenizer_->bos.reset();
  stub_->info_.end_ids.clear();
  ExpectRefused(Generate("", {}), "the prompt is empty");
}

TEST_F(GenerateRequestTest, BudgetsCoverPromptAndOutput) {
  const auto steered =
      Generate("abc", {.max_tokens = 5}, {.kind = Budget::Kind::kFlopFraction, .value = 0.95});
  ASSERT_TRUE(steered.ok()) << steered.status();
  EXPECT_EQ(steered->sequences[0].plan.kind, ComputePlan::Kind::kSteered);
  // 3 tokens: 300 + 6 + a head + 3 x 12.
  ExpectRefused(
      Generate("abc", {.max_tokens = 5}, {.kind = Budget::Kind::kMaxFlops, .max_flops = 351}),
      "max_flops 351 is below the floor of this call: 352 FLOPs for a prompt of 3 tokens",
      StatusCode::kFailedPrecondition);
}

TEST_F(GenerateRequestTest, ScoringSharesMaxFlopsOutByTokens) {
  const auto plain = Run({.task = Task::kScoring, .texts = {"abcdef", "ab", "a"}});
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->sequences[0].generation, nullptr);
  const CostModel& cost = stub_->info_.cost;
  const std::vector<uint32_t> tokens = {6, 2, 1};
  uint64_t floor = 0;
  const CostBounds bounds(cost, 0, 1);
  for (const uint32_t count : tokens) {
    floor += bounds.FloorFlops(cost, GenerationSize{.prompt_tokens = count}.Least());
  }
  const auto refused =
      PlanScoring({.kind = Budget::Kind::kMaxFlops, .max_flops = floor - 1}, {}, cost, tokens);
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition);
  const auto plans =
      PlanScoring({.kind = Budget::Kind::kMaxFlops, .max_flops = floor + 90}, {}, cost, tokens);
  ASSERT_TRUE(plans.ok()) << plans.status();
  uint64_t sum = 0;
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE((*plans)[i].hard);
    const GenerationSize size{.prompt_tokens = tokens[i]};
    EXPECT_GE((*plans)[i].target_flops, bounds.FloorFlops(cost, size.Least()));
    sum += (*plans)[i].target_flops;
  }
  EXPECT_LE(sum, floor + 90);
}

}  // namespace
}  // namespace dimmer
