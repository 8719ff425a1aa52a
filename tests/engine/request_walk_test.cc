#include "engine/request_walk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/util/status.h"

namespace dimmer {
namespace {

using absl::StatusCode;
using testing::Each;
using testing::ElementsAre;
using testing::FloatNear;
using testing::HasSubstr;

class StubModel : public Model {
 public:
  StubModel() {
    info_.architecture = "Stub";
    info_.tasks = {Task::kClassification, Task::kEmbedding};
    info_.vocab_size = 100;
    info_.max_tokens = 8;
    info_.cost = {.token_flops = 100,
                  .moe = {{.layer = 0, .experts = 4, .pair_flops = 10, .router_flops = 2}}};
  }
  const ModelInfo& info() const override { return info_; }
  void Forward(std::span<Sequence* const>, StepContext&) const override {}
  ModelInfo info_;
};

// One token per character, between two special ones; '!' is not UTF-8.
class StubTokenizer : public Tokenizer {
 public:
  absl::StatusOr<Encoding> Encode(std::string_view text, std::optional<std::string_view> pair,
                                  const EncodeOptions& options) const override {
    if (text.find('!') != std::string_view::npos) {
      return absl::InvalidArgumentError("not UTF-8 at byte 0");
    }
    Encoding encoding{.ids = {1}, .type_ids = {0}};
    for (const char c : std::string(text) + std::string(pair.value_or(""))) {
      encoding.ids.push_back(c);
    }
    encoding.ids.push_back(2);
    if (options.max_tokens > 0 && encoding.ids.size() > options.max_tokens) {
      encoding.ids.resize(options.max_tokens);
      encoding.truncated = true;
    }
    encoding.type_ids.assign(encoding.ids.size(), pair.has_value() ? 1 : 0);
    return encoding;
  }
  std::string_view TokenOf(int32_t) const override { return ""; }
  std::string_view BytesOf(int32_t) const override { return ""; }
  size_t vocab_size() const override { return 100; }
};

class RequestWalkTest : public testing::Test {
 protected:
  RequestWalkTest() {
    auto served = std::make_shared<ServedModel>();
    served->name = "m";
    served->version = "3";
    served->model = stub_;
    model_.served = served;
    model_.tokenizer = std::make_shared<StubTokenizer>();
    model_.max_tokens = 6;
  }
  absl::StatusOr<Prepared> Run(const Request& request) {
    DIMMER_RETURN_IF_ERROR(CheckRequest(request, model_));
    return Prepare(request, model_, settings_, [this] {
      return checks_left_-- > 0 ? absl::OkStatus() : absl::CancelledError("enough");
    });
  }

  std::shared_ptr<StubModel> stub_ = std::make_shared<StubModel>();
  LoadedModel model_;
  TauSettings settings_{.default_tau = 0.25};
  int checks_left_ = 1000;
};

TEST_F(RequestWalkTest, PreparesTexts) {
  const auto prepared = Run({.texts = {"ab", ""}});
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  ASSERT_EQ(prepared->sequences.size(), 2u);
  EXPECT_THAT(prepared->sequences[0].ids, ElementsAre(1, 'a', 'b', 2));
  EXPECT_THAT(prepared->sequences[0].type_ids, ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(prepared->sequences[1].ids, ElementsAre(1, 2));
  EXPECT_THAT(prepared->sequences[0].plan.module_tau, ElementsAre(0.25));
  EXPECT_THAT(prepared->truncated, Each(false));
}

TEST_F(RequestWalkTest, PreparesPairsAndTokenIds) {
  const auto pairs = Run({.task = Task::kEmbedding, .texts = {"a"}, .text_pairs = {"b"}});
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  EXPECT_EQ(pairs->sequences[0].task, Task::kEmbedding);
  EXPECT_THAT(pairs->sequences[0].ids, ElementsAre(1, 'a', 'b', 2));
  EXPECT_THAT(pairs->sequences[0].type_ids, Each(1));
  const auto ids = Run({.token_ids = {{5, 6}, {99}}});
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_THAT(ids->sequences[0].ids, ElementsAre(5, 6));
  EXPECT_THAT(ids->sequences[0].type_ids, ElementsAre(0, 0));
  EXPECT_THAT(ids->sequences[1].ids, ElementsAre(99));
}

TEST_F(RequestWalkTest, CutsOnlyWhereAsked) {
  const auto cut = Run({.texts = {"abcdefg", "ab"}, .truncate = true});
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->sequences[0].ids.size(), 6u);
  EXPECT_THAT(cut->truncated, ElementsAre(true, false));
}

TEST_F(RequestWalkTest, NamesWhatIsWrong) {
  struct Case {
    Request request;
    StatusCode code;
    const char* message;
  };
  const auto invalid = StatusCode::kInvalidArgument;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Case& c : std::initializer_list<Case>{
           {{}, invalid, "texts: found none"},
           {{.texts = {"a"}, .token_ids = {{1}}}, invalid, "token_ids: cannot be combined"},
           {{.texts = {"a", "b"}, .text_pairs = {"c"}}, invalid, "text_pairs: found 1 for 2 texts"},
           {{.text_pairs = {"c"}, .token_ids = {{1}}}, invalid, "text_pairs: cannot be combined"},
           {{.texts = {"a", "!"}}, invalid, "text 1: not UTF-8 at byte 0"},
           {{.texts = {"ok", "abcde"}},
            invalid,
            "text 1 has 7 tokens, the model takes 6; set truncate"},
           {{.texts = {std::string(kMaxTextBytes + 1, 'a')}, .truncate = true},
            invalid,
            "texts[0] has 1048577 bytes, at most 1048576"},
           {{.texts = {"a"}, .text_pairs = {std::string(kMaxTextBytes + 1, 'a')}},
            invalid,
            "text_pairs[0] has 1048577 bytes"},
           {{.token_ids = {{1}, {}}}, invalid, "token_ids[1] is empty"},
           {{.token_ids = {{1, 100}}}, invalid, "token_ids[0][1]: found 100, expected 0 to 99"},
           {{.token_ids = {{-1}}}, invalid, "token_ids[0][0]: found -1"},
           {{.token_ids = {{1, 1, 1, 1, 1, 1, 1}}, .truncate = true},
            invalid,
            "token_ids[0] has 7 tokens, the model takes 6"},
           {{.texts = {"a"}, .budget = {Budget::Kind::kTau, nan}}, invalid, "budget.tau"},
           {{.texts = {"a"}, .budget = {Budget::Kind::kMaxFlops, 0, 1}},
            StatusCode::kFailedPrecondition,
            "max_flops 1 is below the floor"},
           {{.texts = {"a"}, .budget = {Budget::Kind::kMinQuality, 1}},
            StatusCode::kUnimplemented,
            "min_quality"}}) {
    const absl::Status status = Run(c.request).status();
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST_F(RequestWalkTest, NamesATaskThatTheModelCannotDo) {
  stub_->info_.tasks = {Task::kEmbedding};
  const absl::Status status = Run({.texts = {"a"}}).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model m (Stub) cannot classify"));
  EXPECT_TRUE(Run({.task = Task::kEmbedding, .texts = {"a"}}).ok());
}

TEST_F(RequestWalkTest, WithoutATokenizerOnlyIdsAreTaken) {
  model_.tokenizer = nullptr;
  EXPECT_THAT(std::string(Run({.texts = {"a"}}).status().message()),
              HasSubstr("model m has no tokenizer"));
  EXPECT_TRUE(Run({.token_ids = {{1}}}).ok());
}

TEST_F(RequestWalkTest, StopsBetweenTexts) {
  for (checks_left_ = 0; checks_left_ < 3;) {
    const int allowed = checks_left_;
    EXPECT_EQ(Run({.texts = {"a", "!"}}).status().code(),
              allowed < 2 ? StatusCode::kCancelled : StatusCode::kInvalidArgument);
    checks_left_ = allowed + 1;
  }
  checks_left_ = 2;
  EXPECT_EQ(Run({.texts = {"a", "b"}}).status().code(), StatusCode::kCancelled);
}

TEST(ScoresTest, SoftmaxAndSigmoid) {
  const auto near = [](double value) { return FloatNear(static_cast<float>(value), 1e-6f); };
  const std::vector<float> logits = {1, 2, -1};
  const double sum = std::exp(1) + std::exp(2) + std::exp(-1);
  EXPECT_THAT(Scores(logits, false), ElementsAre(near(std::exp(1) / sum), near(std::exp(2) / sum),
                                                 near(std::exp(-1) / sum)));
  EXPECT_THAT(Scores(logits, true), ElementsAre(near(0.7310586), near(0.8807971), near(0.2689414)));
  const std::vector<float> extreme = {1e30f, -1e30f};
  EXPECT_THAT(Scores(extreme, false), ElementsAre(1, 0));
  EXPECT_THAT(Scores(extreme, true), ElementsAre(1, 0));
  EXPECT_TRUE(Scores({}, false).empty());
}

TEST_F(RequestWalkTest, AnswersInOrderAndSumsUsage) {
  std::vector<Sequence> sequences(2);
  for (size_t i = 0; i < 2; ++i) {
    sequences[i].logits = {float(i), 0};
    sequences[i].embedding = {float(i)};
    sequences[i].usage = {.flops = 10 + i, .tau = 0.5, .prompt_tokens = 2};
  }
  sequences[1].task = Task::kEmbedding;
  sequences[1].plan.clamped = true;
  const Response response = MakeResponse(model_, sequences, {true, false});
  EXPECT_TRUE(response.status.ok());
  EXPECT_EQ(response.model, "m");
  EXPECT_EQ(response.version, "3");
  ASSERT_EQ(response.results.size(), 2u);
  EXPECT_THAT(response.results[0].logits, ElementsAre(0, 0));
  EXPECT_THAT(response.results[0].scores, ElementsAre(0.5, 0.5));
  EXPECT_TRUE(response.results[0].usage.truncated);
  EXPECT_FALSE(response.results[0].usage.budget_clamped);
  EXPECT_TRUE(response.results[1].logits.empty());
  EXPECT_THAT(response.results[1].embedding, ElementsAre(1));
  EXPECT_TRUE(response.results[1].usage.budget_clamped);
  EXPECT_EQ(response.usage.flops, 21u);
  EXPECT_EQ(response.usage.prompt_tokens, 4u);
  EXPECT_TRUE(response.usage.truncated && response.usage.budget_clamped);
}

TEST_F(RequestWalkTest, OneFailedTextFailsTheCall) {
  std::vector<Sequence> sequences(3);
  sequences[1].status = absl::FailedPreconditionError("floor");
  sequences[2].status = absl::InternalError("later");
  const Response response = MakeResponse(model_, sequences, {false, false, false});
  EXPECT_EQ(response.status, absl::FailedPreconditionError("text 1: floor"));
  EXPECT_TRUE(response.results.empty());
  EXPECT_EQ(response.model, "m");
  EXPECT_EQ(MakeResponse(model_, std::span(sequences).subspan(1, 1), {false}).status,
            absl::FailedPreconditionError("floor"));
  sequences[0].status = absl::CancelledError("Request was cancelled");
  EXPECT_EQ(MakeResponse(model_, sequences, {false, false, false}).status, sequences[0].status);
}

}  // namespace
}  // namespace dimmer
