// Real weights through the importers and the engine: what they were seen to compute elsewhere.
#include <algorithm>
#include <filesystem>

#include "engine/package/json_fields.h"
#include "engine/text/tokenizer.h"
#include "tests/models/decoder_runner.h"
#include "training/import_gpt.h"
#include "training/import_llama2c.h"

namespace dimmer {
namespace {

#define DIMMER_HAS_SHARED_DATA (sizeof(DIMMER_SHARED_DATA) > 1)

std::vector<const char*> IfThere(const char* path) {
  return DIMMER_HAS_SHARED_DATA ? std::vector<const char*>{path} : std::vector<const char*>{};
}

class NanoSort : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const absl::Status status = ImportGpt(GetParam(), directory_.Sub("imported"));
    ASSERT_TRUE(status.ok()) << status;
    model_ = LoadFrom(directory_.Sub("imported"));
  }

  // The same weights as they are stored, [outputs, inputs], without an importer.
  std::unique_ptr<Model> LoadStored() const {
    const std::string stored = directory_.Sub("stored");
    std::filesystem::create_directory(stored);
    std::filesystem::copy_file(std::string(GetParam()) + "/model.safetensors",
                               stored + "/model.safetensors");
    nlohmann::json config =
        *ParseJson(*ReadTextFile(std::string(GetParam()) + "/config.json"), "config.json");
    config["architectures"] = {"GPT2LMHeadModel"};
    config["n_positions"] = config.at("block_size");
    config["tie_word_embeddings"] = false;
    CheckOk(WriteTextFile(stored + "/config.json", config.dump()));
    return LoadFrom(stored);
  }

  TempDirectory directory_;
  std::unique_ptr<Model> model_;
};

// What the importer turns and what the loader turns are the same numbers. (Its recorded activations
// were made with biases that the weights lack: tests/python/test_decoder_parity_live.py.)
TEST_P(NanoSort, ImportedAndStoredOrientationAgree) {
  std::vector<Call> calls;
  for (uint32_t seed = 0; seed < 5; ++seed) {
    std::mt19937 random(seed);
    Call call{.task = Task::kScoring, .ids = std::vector<int32_t>(11)};
    for (int32_t& id : call.ids) id = static_cast<int32_t>(random() % 3);
    calls.push_back(call);
  }
  EXPECT_EQ(RunCalls(*model_, calls), RunCalls(*LoadStored(), calls));
}

// What it was trained for, through the whole context of 11: six digits of 0 to 2, and then the same
// in order.
TEST_P(NanoSort, Sorts) {
  std::vector<Call> calls;
  for (int number = 0; number < 729; ++number) {
    Call call{.ids = std::vector<int32_t>(6), .max_new_tokens = 6};
    int rest = number;
    for (int32_t& digit : call.ids) {
      digit = rest % 3;
      rest /= 3;
    }
    calls.push_back(call);
  }
  const std::vector<Answer> answers = RunCalls(*model_, calls, {.threads = 2});
  size_t sorted = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    ASSERT_TRUE(answers[i].status.ok()) << answers[i].status;
    std::vector<int32_t> want = calls[i].ids;
    std::sort(want.begin(), want.end());
    sorted += answers[i].output == want;
  }
  EXPECT_EQ(sorted, calls.size());
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(NanoSort);
// Registered only where the public data is.
INSTANTIATE_TEST_SUITE_P(Shared, NanoSort,
                         testing::ValuesIn(IfThere(DIMMER_SHARED_DATA "/weights/gpt_nano_sort")),
                         [](const auto&) { return std::string("GptNanoSort"); });

class Stories260K : public testing::TestWithParam<const char*> {};

// The recorded text of the greedy run, after its command line.
std::string RecordedText(const std::string& path) {
  const std::string page = *ReadTextFile(path);
  const std::string command = "-t 0.0\n";
  const size_t begin = page.find(command) + command.size();
  return page.substr(begin, page.find("\n```", begin) - begin);
}

TEST_P(Stories260K, GeneratesItsRecordedText) {
  const std::string from = GetParam();
  const std::string want = RecordedText(from + "/stories260K.md");
  ASSERT_GT(want.size(), 500u);
  const TempDirectory directory;
  const std::string to = directory.Sub("imported");
  const absl::Status status = ImportLlama2c(from + "/stories260K.bin", from + "/tok512.bin", to);
  ASSERT_TRUE(status.ok()) << status;
  const auto model = LoadFrom(to);
  const auto tokenizer = LoadTokenizer(to);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_TRUE((*tokenizer)->bos_id().has_value());
  const Call call{.ids = {*(*tokenizer)->bos_id()}, .max_new_tokens = 256};
  for (size_t threads : {1, 2}) {
    const Answer answer = RunCall(*model, call, {.threads = threads});
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    std::string text;
    for (int32_t id : answer.output) text += (*tokenizer)->BytesOf(id);
    EXPECT_EQ(text.substr(text.starts_with(' ') ? 1 : 0), want);
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Stories260K);
INSTANTIATE_TEST_SUITE_P(Shared, Stories260K,
                         testing::ValuesIn(IfThere(DIMMER_SHARED_DATA "/weights/stories260K")),
                         [](const auto&) { return std::string("Stories260K"); });

}  // namespace
}  // namespace dimmer
