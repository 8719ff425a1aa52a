// Logits and embeddings against `transformers` (tests/golden/make_golden.py).
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "engine/layers/workspace.h"
#include "engine/models/model.h"
#include "engine/package/json_fields.h"
#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

// Both sides compute in fp32; what is left is the order of sums. Observed: under 1e-6.
constexpr double kTolerance = 1e-5;

class Golden : public testing::TestWithParam<std::string> {};

void ExpectNear(const std::vector<float>& got, const nlohmann::json& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], want[i].get<double>(), kTolerance) << i;
  }
}

TEST_P(Golden, AgreesWithTransformers) {
  const std::string directory = std::string(DIMMER_SOURCE_DIR "/tests/golden/") + GetParam();
  const auto package = Package::Open(directory);
  ASSERT_TRUE(package.ok()) << package.status();
  const auto model = LoadModel(*package);
  ASSERT_TRUE(model.ok()) << model.status();
  const nlohmann::json answers =
      *ParseJson(*ReadTextFile(directory + "/answers.json"), "answers.json");
  ForEachTarget([&] {
    std::vector<Sequence> sequences;
    std::vector<Sequence*> batch;
    for (const nlohmann::json& answer : answers.at("cases")) {
      for (Task task : (*model)->info().tasks) {
        Sequence& sequence = sequences.emplace_back();
        sequence.task = task;
        sequence.ids = answer.at("ids").get<std::vector<int32_t>>();
        sequence.type_ids = answer.at("type_ids").get<std::vector<int32_t>>();
      }
    }
    for (Sequence& sequence : sequences) batch.push_back(&sequence);
    ThreadPool pool(2);
    Workspace workspace;
    StepContext context{pool, workspace, nullptr};
    (*model)->Forward(batch, context);
    size_t next = 0;
    for (const nlohmann::json& answer : answers.at("cases")) {
      for (Task task : (*model)->info().tasks) {
        const Sequence& sequence = sequences[next++];
        SCOPED_TRACE(testing::Message() << sequence.ids.size() << " tokens");
        ASSERT_TRUE(sequence.status.ok()) << sequence.status;
        if (task == Task::kClassification) {
          ExpectNear(sequence.logits, answer.at("logits"));
        } else {
          ExpectNear(sequence.embedding, answer.at("embedding"));
        }
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Models, Golden,
                         testing::Values("classifier_gelu", "multi_label_relu", "encoder_gelu_new",
                                         "classifier_silu"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace dimmer
