// Log-probabilities and greedy texts against `transformers` (tests/golden/make_golden.py).
#include "engine/package/json_fields.h"
#include "tests/kernels/kernel_test_util.h"
#include "tests/models/decoder_runner.h"

namespace dimmer {
namespace {

constexpr double kTolerance = 1e-4;

class DecoderGolden : public testing::TestWithParam<std::string> {};

TEST_P(DecoderGolden, AgreesWithTransformers) {
  const std::string directory = std::string(DIMMER_SOURCE_DIR "/tests/golden/") + GetParam();
  const auto model = LoadFrom(directory);
  const nlohmann::json answers =
      *ParseJson(*ReadTextFile(directory + "/answers.json"), "answers.json");
  ASSERT_GT(answers.at("cases").size(), 5u);
  ForEachTarget([&] {
    std::vector<Call> calls;
    for (const nlohmann::json& answer : answers.at("cases")) {
      Call call;
      call.ids = answer.at("ids").get<std::vector<int32_t>>();
      call.max_new_tokens = static_cast<uint32_t>(answer.at("greedy").size());
      calls.push_back(call);
      call.task = Task::kScoring;
      if (call.ids.size() > 1) calls.push_back(call);
    }
    const std::vector<Answer> got = RunCalls(*model, calls, {.threads = 2});
    size_t next = 0;
    for (const nlohmann::json& answer : answers.at("cases")) {
      const size_t tokens = answer.at("ids").size();
      SCOPED_TRACE(testing::Message() << tokens << " tokens");
      ASSERT_TRUE(got[next].status.ok()) << got[next].status;
      EXPECT_EQ(got[next].finish_reason, FinishReason::kLength);
      EXPECT_EQ(got[next++].output, answer.at("greedy").get<std::vector<int32_t>>());
      if (tokens == 1) continue;
      const Answer& scored = got[next++];
      ASSERT_TRUE(scored.status.ok()) << scored.status;
      const nlohmann::json& want = answer.at("token_logprobs");
      ASSERT_EQ(scored.logprobs.size(), want.size());
      for (size_t i = 0; i < want.size(); ++i) {
        EXPECT_NEAR(scored.logprobs[i], want[i].get<double>(), kTolerance) << i;
      }
    }
    EXPECT_EQ(next, got.size());
  });
}

INSTANTIATE_TEST_SUITE_P(Models, DecoderGolden,
                         testing::Values("gpt2_tied", "gpt2_own_head", "llama_grouped",
                                         "llama_tied"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace dimmer
