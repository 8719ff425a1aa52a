// What an engine answers. How it behaves under load: engine_lifecycle_test.cc.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "tests/engine/engine_fixture.h"
#include "tests/util/thread_limit.h"

namespace dimmer {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST_F(EngineTest, ClassifiesTexts) {
  Start();
  Load(Converted(), "m");
  const Response response = Ask({.model = "m", .texts = {"word57 a b", ""}});
  ASSERT_TRUE(response.status.ok()) << response.status;
  EXPECT_EQ(response.model, "m");
  EXPECT_EQ(response.version, "1");
  ASSERT_THAT(response.results, SizeIs(2));
  for (const Result& result : response.results) {
    EXPECT_THAT(result.logits, SizeIs(3));
    EXPECT_NEAR(std::accumulate(result.scores.begin(), result.scores.end(), 0.0), 1, 1e-5);
    EXPECT_EQ(result.usage.flops, result.usage.dense_flops);
    EXPECT_THAT(result.usage.layers, SizeIs(2));
  }
  EXPECT_EQ(response.results[0].usage.prompt_tokens, 5u);
  EXPECT_EQ(response.results[1].usage.prompt_tokens, 2u) << "an empty text: special tokens only";
  EXPECT_EQ(response.usage.prompt_tokens, 7u);
  EXPECT_EQ(response.usage.flops,
            response.results[0].usage.flops + response.results[1].usage.flops);
}

TEST_F(EngineTest, EmbedsWithoutAHead) {
  TestBert bert = Converted();
  bert.labels = 0;
  Start();
  Load(bert, "m");
  const Response response = Ask({.model = "m", .task = Task::kEmbedding, .texts = {"a b c"}});
  ASSERT_TRUE(response.status.ok()) << response.status;
  const std::vector<float>& embedding = response.results.at(0).embedding;
  EXPECT_THAT(embedding, SizeIs(24));
  EXPECT_NEAR(std::inner_product(embedding.begin(), embedding.end(), embedding.begin(), 0.0), 1,
              1e-5);
  EXPECT_THAT(response.results[0].scores, IsEmpty());
  const Response refused = Ask({.model = "m", .texts = {"a"}});
  EXPECT_EQ(refused.status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("cannot classify"));
}

TEST_F(EngineTest, AnEmbeddingIsPlannedWithoutTheHeadThatItDoesNotRun) {
  Start();
  Load(Converted(), "m");  // a classifier
  const CostModel& cost = (*engine_->Find("m", ""))->model->info().cost;
  ASSERT_GT(cost.sequence_flops, 0u);
  const uint64_t floor = cost.FloorFlops(5) - cost.sequence_flops;
  const auto ask = [&](Budget budget) {
    return Ask({.model = "m", .task = Task::kEmbedding, .texts = {"a b c"}, .budget = budget});
  };
  const Response least = ask({Budget::Kind::kMaxFlops, 0, floor});
  ASSERT_TRUE(least.status.ok()) << least.status;
  EXPECT_EQ(least.usage.flops, floor);
  const absl::Status below = ask({Budget::Kind::kMaxFlops, 0, floor - 1}).status;
  EXPECT_EQ(below.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(below.message()), HasSubstr(std::to_string(floor) + " FLOPs"));
  // With exactly the FLOPs of so many expert runs more, that many more run: none is lost to a head.
  const uint64_t pair = cost.moe[0].pair_flops;
  const Response more = ask({Budget::Kind::kMaxFlops, 0, floor + 6 * pair});
  ASSERT_TRUE(more.status.ok()) << more.status;
  EXPECT_EQ(more.usage.flops, floor + 6 * pair);
  const uint64_t dense = cost.DenseFlops(5) - cost.sequence_flops;
  const Response all = ask({Budget::Kind::kFlopFraction, 1});
  EXPECT_EQ(all.usage.flops, dense);
  EXPECT_EQ(all.usage.dense_flops, dense);
}

TEST_F(EngineTest, BitsDoNotDependOnTheOtherTextsOfACall) {
  Start();
  Load(Converted(), "m");
  const std::vector<std::string> texts = {"a", "word57 word58 b c d e", "", "z y x"};
  const Budget budget{Budget::Kind::kTau, 0.4};
  const Response together = Ask({.model = "m", .texts = texts, .budget = budget});
  ASSERT_TRUE(together.status.ok()) << together.status;
  for (size_t i = 0; i < texts.size(); ++i) {
    const Response alone = Ask({.model = "m", .texts = {texts[i]}, .budget = budget});
    ASSERT_TRUE(alone.status.ok());
    EXPECT_EQ(alone.results[0].logits, together.results[i].logits);
    EXPECT_EQ(alone.results[0].usage.flops, together.results[i].usage.flops);
  }
}

TEST_F(EngineTest, TokenIdsAnswerAsTheirTextDoes) {
  Start();
  Load(Converted(), "m");
  const auto tokens = Tokenize("m", {"word57 ab"}, true);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_THAT(tokens->at(0).tokens, ElementsAre("[CLS]", "word57", "a", "##b", "[SEP]"));
  const Response by_text = Ask({.model = "m", .texts = {"word57 ab"}});
  const Response by_ids = Ask({.model = "m", .token_ids = {tokens->at(0).ids}});
  ASSERT_TRUE(by_ids.status.ok()) << by_ids.status;
  EXPECT_EQ(by_ids.results.at(0).logits, by_text.results.at(0).logits);
  EXPECT_THAT(Tokenize("m", {"a"}, false)->at(0).tokens, ElementsAre("a"));
}

TEST_F(EngineTest, TokenizeEndsBetweenTextsWhenItIsNotWanted) {
  Start();
  Load(Converted(), "m");
  int asked = 0;
  const auto tokens = engine_->Tokenize("m", {"a", "\xff", "b"}, true, [&] {
    return ++asked == 2 ? absl::CancelledError("enough") : absl::OkStatus();
  });
  EXPECT_EQ(tokens.status().code(), StatusCode::kCancelled) << "before the text that is not UTF-8";
  EXPECT_EQ(asked, 2);
}

TEST_F(EngineTest, TokenizeBoundsTheWholeCall) {
  Start();
  Load(Converted(), "m");
  std::vector<std::string> texts(4, std::string(1 << 18, 'a'));
  EXPECT_TRUE(Tokenize("m", texts, true).ok());
  texts.emplace_back("a");
  const absl::Status large = Tokenize("m", texts, true).status();
  EXPECT_EQ(large.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(large.message(),
            "texts have 1048577 bytes in all, at most 1048576 are taken in one call");
}

TEST_F(EngineTest, TokenizeNamesWhatIsWrong) {
  Start();
  Load(Converted(), "m");
  EXPECT_EQ(Tokenize("x", {"a"}, true).status().code(), StatusCode::kNotFound);
  const absl::Status invalid = Tokenize("m", {"a", "\xff"}, true).status();
  EXPECT_EQ(invalid.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(invalid.message()), HasSubstr("text 1"));
  EXPECT_EQ(Tokenize("m", {std::string(2 << 20, 'a')}, true).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(EngineTest, RefusesBadRequestsAndServesOn) {
  Start();
  Load(Converted(), "m");
  struct Case {
    Request request;
    StatusCode code;
    const char* message;
  };
  const auto invalid = StatusCode::kInvalidArgument;
  std::string long_text;
  for (int i = 0; i < 50; ++i) long_text += "a ";
  for (const Case& c : std::initializer_list<Case>{
           {{.model = "x", .texts = {"a"}},
            StatusCode::kNotFound,
            "Request for unknown model: 'x' is not found"},
           {{.model = "m", .version = "7", .texts = {"a"}}, StatusCode::kNotFound, "version '7'"},
           {{.model = "m"}, invalid, "texts: found none"},
           {{.model = "m", .texts = {"\xc3("}}, invalid, "text 0"},
           {{.model = "m", .texts = {"a", long_text}},
            invalid,
            "text 1 has 52 tokens, the model takes 40; set truncate"},
           {{.model = "m", .token_ids = {{60}}}, invalid, "found 60, expected 0 to 59"},
           {{.model = "m", .texts = {"a"}, .budget = {Budget::Kind::kTau, 2}},
            invalid,
            "budget.tau"},
           {{.model = "m", .texts = {"a"}, .budget = {Budget::Kind::kMaxFlops, 0, 1}},
            StatusCode::kFailedPrecondition,
            "below the floor"}}) {
    const Response response = Ask(c.request);
    EXPECT_EQ(response.status.code(), c.code) << response.status;
    EXPECT_THAT(std::string(response.status.message()), HasSubstr(c.message));
    EXPECT_THAT(response.results, IsEmpty());
  }
  EXPECT_TRUE(Ask({.model = "m", .version = "1", .texts = {"a"}}).status.ok());
  const Response cut = Ask({.model = "m", .texts = {long_text}, .truncate = true});
  ASSERT_TRUE(cut.status.ok()) << cut.status;
  EXPECT_TRUE(cut.usage.truncated);
  EXPECT_EQ(cut.usage.prompt_tokens, 40u);
}

TEST_F(EngineTest, ALargeTextIsCutOrRefused) {
  Start();
  Load(Converted(), "m");
  const std::string text(100000, 'a');  // one word: a single [UNK]
  EXPECT_TRUE(Ask({.model = "m", .texts = {text}}).status.ok());
  std::string words;
  while (words.size() < 100000) words += "word57 ";
  EXPECT_EQ(Ask({.model = "m", .texts = {words}}).status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Ask({.model = "m", .texts = {words}, .truncate = true}).usage.truncated);
}

TEST_F(EngineTest, SetTauActsAtOnce) {
  Start();
  TestBert bert = Converted();
  bert.calibration = {.metric = "accuracy",
                      .points = {{0, 1, 0.9, 0.9, 0.9, {8, 8}}, {1, 0.7, 0.5, 0.5, 0.5, {1, 1}}}};
  Load(bert, "m");
  const Request request{.model = "m", .texts = {"word57 a b c"}};
  const Response dense = Ask(request);
  EXPECT_EQ(dense.usage.tau, 0);
  const auto answer = engine_->SetTau("m", {.default_tau = 1.0});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->state.settings.revision, 2u);
  EXPECT_EQ(answer->predicted->flop_fraction, 0.7);
  EXPECT_EQ(engine_->GetTau("m")->state.settings.default_tau, 1);
  const Response dim = Ask(request);
  EXPECT_DOUBLE_EQ(dim.usage.tau, 1);
  EXPECT_LT(dim.usage.flops, dense.usage.flops);
  for (const LayerUsage& layer : dim.usage.layers) EXPECT_EQ(layer.expert_runs, 6u);
  ASSERT_TRUE(engine_->SetTau("m", {.max_tau = 1.0, .layers = {{1, Module::kFfn, 0}}}).ok());
  EXPECT_EQ(Ask(request).usage.layers.at(1).expert_runs, 6u * 8);
  EXPECT_EQ(engine_->SetTau("x", {}).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(engine_->GetTau("x").status().code(), StatusCode::kNotFound);
}

TEST_F(EngineTest, BudgetsAreKept) {
  Start();
  Load(Converted(), "m");
  const CostModel cost = (*engine_->Find("m", ""))->model->info().cost;
  const std::vector<std::string> texts = {"word57 a b c d e f g h i j k", "b", "c d e f"};
  const uint64_t dense = Ask({.model = "m", .texts = texts}).usage.flops;
  for (double fraction : {0.75, 0.8, 0.9, 0.95}) {
    const Response response =
        Ask({.model = "m", .texts = texts, .budget = {Budget::Kind::kFlopFraction, fraction}});
    ASSERT_TRUE(response.status.ok()) << response.status;
    for (const Result& result : response.results) {
      const uint64_t asked = std::llround(fraction * double(result.usage.dense_flops));
      const uint64_t floor = cost.FloorFlops(result.usage.prompt_tokens);
      EXPECT_NEAR(double(result.usage.flops), double(std::max(asked, floor)),
                  double(cost.moe[0].pair_flops));
      EXPECT_EQ(result.usage.budget_clamped, asked < floor);
    }
    const uint64_t cap = uint64_t(fraction * double(dense));
    const Response capped =
        Ask({.model = "m", .texts = texts, .budget = {Budget::Kind::kMaxFlops, 0, cap}});
    if (!capped.status.ok()) {
      EXPECT_EQ(capped.status.code(), StatusCode::kFailedPrecondition) << capped.status;
      continue;
    }
    EXPECT_LE(capped.usage.flops, cap);
    EXPECT_GE(capped.usage.flops + 3 * cost.moe[0].pair_flops, cap);
  }
}

TEST_F(EngineTest, AnOperatorsBoundsClampAndFlag) {
  Start();
  Load(Converted(), "m");
  ASSERT_TRUE(engine_->SetTau("m", {.default_tau = 0.3, .min_tau = 0.2, .max_tau = 0.5}).ok());
  const auto ask = [&](double tau) {
    return Ask({.model = "m", .texts = {"a b"}, .budget = {Budget::Kind::kTau, tau}}).usage;
  };
  EXPECT_DOUBLE_EQ(ask(0).tau, 0.2);
  EXPECT_TRUE(ask(0).budget_clamped);
  EXPECT_DOUBLE_EQ(ask(0.4).tau, 0.4);
  EXPECT_FALSE(ask(0.4).budget_clamped);
}

TEST_F(EngineTest, AFailedLoadIsRememberedAndDisturbsNothing) {
  Start();
  const RepositoryEntry missing{.model = "gone", .version = "1", .directory = temp_.Sub("gone/1")};
  EXPECT_FALSE(engine_->Load(missing).ok());
  EXPECT_EQ(engine_
                ->Load({.model = "bad",
                        .version = "2",
                        .directory = temp_.path(),
                        .serving = {},
                        .status = absl::InvalidArgumentError("config.yaml:3: nonsense")})
                .code(),
            StatusCode::kInvalidArgument);
  Load(Converted(), "m");
  RepositoryEntry broken = Write(Converted(), "m", "2");
  std::filesystem::resize_file(broken.directory + "/model.safetensors", 1000);
  EXPECT_FALSE(engine_->Load(broken).ok());

  const std::vector<ModelStatus> models = engine_->Models();
  ASSERT_THAT(models, SizeIs(3));
  EXPECT_EQ(models[0].name, "bad");
  EXPECT_FALSE(models[0].ready);
  EXPECT_EQ(models[0].served, nullptr);
  EXPECT_EQ(models[0].status.message(), "config.yaml:3: nonsense");
  EXPECT_EQ(models[1].name, "gone");
  EXPECT_FALSE(models[1].status.ok());
  EXPECT_TRUE(models[2].ready);
  EXPECT_EQ(models[2].version, "1");
  EXPECT_FALSE(models[2].status.ok()) << "of version 2";
  EXPECT_GT(models[2].load_seconds, 0);
  EXPECT_TRUE(Ask({.model = "m", .texts = {"a"}}).status.ok());
  const Response unready = Ask({.model = "bad", .texts = {"a"}});
  EXPECT_EQ(unready.status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(unready.status.message()),
              HasSubstr("model bad is not ready: config.yaml:3"));
}

TEST_F(EngineTest, ANewVersionReplacesTheOld) {
  Start();
  Load(Converted(), "m");
  const Response old = Ask({.model = "m", .texts = {"a b"}});
  TestBert other = Converted();
  other.seed = 99;
  Load(other, "m", "2");
  const Response now = Ask({.model = "m", .texts = {"a b"}});
  EXPECT_EQ(now.version, "2");
  EXPECT_NE(now.results.at(0).logits, old.results.at(0).logits);
  EXPECT_EQ(engine_->Find("m", "1").status().code(), StatusCode::kNotFound);
  EXPECT_EQ((*engine_->Find("m", "2"))->version, "2");
}

TEST_F(EngineTest, APlainCheckpointRunsDense) {
  TestBert plain = Converted();
  plain.experts = 0;
  Start();
  Load(plain, "plain");
  Load(Converted(), "converted");
  const Response dense = Ask({.model = "plain", .texts = {"a b"}});
  EXPECT_EQ(Ask({.model = "converted", .texts = {"a b"}}).results.at(0).logits,
            dense.results.at(0).logits);
  const Response asked =
      Ask({.model = "plain", .texts = {"a b"}, .budget = {Budget::Kind::kTau, 0.5}});
  EXPECT_TRUE(asked.usage.budget_clamped);
  EXPECT_EQ(asked.results.at(0).logits, dense.results.at(0).logits);
  EXPECT_EQ(engine_->SetTau("plain", {.default_tau = 0.1}).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(EngineTest, ACheckpointWithoutATokenizerServesTokenIds) {
  TestBert bert = Converted();
  bert.vocabulary = false;
  Start();
  Load(bert, "m");
  EXPECT_TRUE(Ask({.model = "m", .token_ids = {{2, 7, 3}}}).status.ok());
  EXPECT_EQ(Ask({.model = "m", .texts = {"a"}}).status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Tokenize("m", {"a"}, true).status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(EngineTest, ATokenizerLargerThanTheEmbeddingIsRefused) {
  TestBert bert = Converted();
  bert.experts = 0;
  const RepositoryEntry entry = Write(bert, "m");
  bert.vocab_size = 50;
  bert.vocabulary = false;
  WriteTestBert(bert, entry.directory);  // beside the vocabulary of 60
  Start();
  const absl::Status status = engine_->Load(entry);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("the tokenizer has 60 tokens"));
}

TEST_F(EngineTest, ServingLimitsApply) {
  Start();
  RepositoryEntry entry = Write(Converted(), "m");
  entry.serving = {
      .default_tau = 0.5, .max_tau = 0.6, .max_batch_size = 2, .max_sequence_tokens = 4};
  ASSERT_TRUE(engine_->Load(entry).ok());
  EXPECT_EQ((*engine_->Find("m", ""))->limits.max_batch_size, 2u);
  EXPECT_EQ(engine_->GetTau("m")->state.settings.max_tau, 0.6);
  EXPECT_DOUBLE_EQ(Ask({.model = "m", .texts = {"a"}}).usage.tau, 0.5);
  EXPECT_THAT(std::string(Ask({.model = "m", .texts = {"a b c"}}).status.message()),
              HasSubstr("has 5 tokens, the model takes 4"));
  entry.serving.default_tau = 0.9;
  EXPECT_EQ(engine_->Load(entry).code(), StatusCode::kInvalidArgument);
}

TEST_F(EngineTest, SetTauSurvivesARestart) {
  const std::string state = temp_.Sub("state");
  Start({.threads = 1, .state_dir = state});
  Load(Converted(), "m");
  ASSERT_TRUE(engine_->SetTau("m", {.default_tau = 0.35}).ok());
  engine_ = nullptr;
  Start({.threads = 1, .state_dir = state});
  Load(Converted(), "m");
  EXPECT_EQ(engine_->GetTau("m")->state.settings.default_tau, 0.35);
  EXPECT_EQ(engine_->GetTau("m")->state.settings.revision, 2u);
}

TEST(EngineCreateTest, RefusesAnEmptyQueue) {
  EXPECT_EQ(Engine::Create({.max_queue_size = 0}, nullptr).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(EngineCreateTest, RefusesAStateItCannotRead) {
  const TempDirectory temp;
  std::filesystem::create_directories(temp.Sub("tau.json"));
  const auto engine = Engine::Create({.threads = 1, .state_dir = temp.path()}, nullptr);
  ASSERT_FALSE(engine.ok());
  EXPECT_THAT(std::string(engine.status().message()), HasSubstr(temp.Sub("tau.json")));
}

TEST(EngineCreateTest, WithoutThreadsItSaysSo) {
  const EngineOptions options{.threads = 4, .workers = 2};
  int room = 0;
  for (;; ++room) {
    const ThreadLimit limit(room);
    const auto engine = Engine::Create(options, nullptr);
    if (engine.ok()) break;
    EXPECT_EQ(engine.status().code(), StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(engine.status().message()), HasSubstr("the engine could not start"));
  }
  EXPECT_EQ(room, 7) << "one more in each of 2 pools, 2 workers, the clerk, 2 front threads";
}

}  // namespace
}  // namespace dimmer
