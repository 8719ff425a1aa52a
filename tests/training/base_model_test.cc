#include "training/base_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/package/json_fields.h"
#include "engine/util/status.h"
#include "tests/models/test_packages.h"

namespace dimmer {
namespace {

using testing::HasSubstr;

class BaseModelTest : public testing::Test {
 protected:
  absl::StatusOr<BaseModel> Load(const TestBert& bert, const std::vector<std::string>& labels) {
    WriteTestBert(bert, directory_.path());
    return LoadBaseClassifier(directory_.path(), labels, 5);
  }
  const TempDirectory directory_;
};

TEST_F(BaseModelTest, GivesABertModelASeededClassifier) {
  TestBert bert;
  bert.labels = 0;
  bert.prefix = false;
  const auto model = Load(bert, {"a", "b"});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->fresh_classifier);
  EXPECT_FALSE(model->fresh_pooler);
  const auto weights = bert.Weights();
  EXPECT_EQ(model->weights.at("bert.pooler.dense.weight"),
            weights.at("pooler.dense.weight").values);
  EXPECT_EQ(model->weights.at("classifier.weight").size(), 2 * bert.hidden_size);
  EXPECT_EQ(model->weights.at("classifier.bias"), std::vector<float>(2, 0.0F));
  EXPECT_EQ(LoadBaseClassifier(directory_.path(), std::vector<std::string>{"a", "b"}, 5)->weights,
            model->weights);
  EXPECT_NE(LoadBaseClassifier(directory_.path(), std::vector<std::string>{"a", "b"}, 6)->weights,
            model->weights);
}

TEST_F(BaseModelTest, KeepsAClassifierOfTheSameLabelsInTheirOrder) {
  TestBert bert;
  bert.labels = 3;
  const auto model = Load(bert, {"class 2", "class 0", "class 1"});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_FALSE(model->fresh_classifier);
  const auto stored = bert.Weights().at("classifier.bias").values;
  EXPECT_EQ(model->weights.at("classifier.bias"),
            (std::vector<float>{stored[2], stored[0], stored[1]}));
  EXPECT_TRUE(Load(bert, {"class 0", "class 1", "other"})->fresh_classifier);
  EXPECT_TRUE(Load(bert, {"class 0", "class 1"})->fresh_classifier);
}

TEST_F(BaseModelTest, ReadsOldNormNames) {
  TestBert bert;
  const auto now = Load(bert, {"a", "b"});
  bert.old_norms = true;
  const auto before = Load(bert, {"a", "b"});
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_EQ(now->weights, before->weights);
}

TEST_F(BaseModelTest, ReadsEveryDropoutRate) {
  const TestBert bert;
  WriteTestBert(bert, directory_.path());
  const std::string path = directory_.Sub("config.json");
  const std::vector<std::string> labels = {"a", "b"};
  nlohmann::json config = *ParseJson(*ReadTextFile(path), path);
  config["hidden_dropout_prob"] = 0.2;
  config["attention_probs_dropout_prob"] = 0.3;
  config["classifier_dropout"] = nullptr;  // as transformers writes it: that of the outputs
  ASSERT_TRUE(WriteTextFile(path, config.dump()).ok());
  auto model = LoadBaseClassifier(directory_.path(), labels, 5);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(std::get<BertShape>(model->shape).dropout, 0.2);
  EXPECT_EQ(std::get<BertShape>(model->shape).attention_dropout, 0.3);
  EXPECT_EQ(std::get<BertShape>(model->shape).classifier_dropout, 0.2);
  config["classifier_dropout"] = 0.4;
  ASSERT_TRUE(WriteTextFile(path, config.dump()).ok());
  model = LoadBaseClassifier(directory_.path(), labels, 5);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(std::get<BertShape>(model->shape).classifier_dropout, 0.4);
}

TEST_F(BaseModelTest, NamesWhatItCannotRead) {
  const auto absent =
      LoadBaseClassifier(directory_.Sub("absent"), std::vector<std::string>{"a"}, 1);
  EXPECT_FALSE(absent.ok());
  EXPECT_THAT(std::string(Message(absent.status())), HasSubstr("absent"));
}

}  // namespace
}  // namespace dimmer
