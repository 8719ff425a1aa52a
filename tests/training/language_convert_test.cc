// Language models through dimmer-convert as a user runs it: pretraining, conversion, measuring.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/training/run_convert.h"
#include "training/random.h"

namespace dimmer {
namespace {

using testing::HasSubstr;
using testing::Not;

// Stories of a few sentences that a tiny model learns: who does what with which thing.
class LanguageConvertTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteTextFile(directory_.Sub("stories.txt"), Stories(160, 1)).ok());
  }

  static std::string Stories(int count, uint64_t seed) {
    const std::vector<std::string> names = {"Lily", "Tom", "Ben", "Anna"};
    const std::vector<std::string> things = {"ball", "boat", "cake", "kite", "drum"};
    RandomStream random(seed);
    std::string text;
    for (int i = 0; i < count; ++i) {
      const std::string& name = names[random.Below(names.size())];
      const std::string& thing = things[random.Below(things.size())];
      text += "Once upon a time " + name + " found a " + thing + ".\n";
      for (uint64_t n = random.Below(4); n > 0; --n) {
        text += name + " played with the " + thing + " and " + names[random.Below(names.size())] +
                " was happy.\n";
      }
      text += "The story number " + std::to_string(i) + " ends here.\n<|endoftext|>\n";
    }
    return text;
  }

  std::vector<std::string> Pretrain(const std::string& name) const {
    return {"pretrain",
            "--data",
            directory_.Sub("stories.txt"),
            "--to",
            Dense(name),
            "--work",
            directory_.Sub(name + "-pretraining"),
            "--vocab-size",
            "320",
            "--layers",
            "2",
            "--width",
            "32",
            "--heads",
            "2",
            "--hidden",
            "64",
            "--context",
            "48",
            "--epochs",
            "6",
            "--batch-size",
            "8",
            "--learning-rate",
            "0.01",
            "--weight-decay",
            "0.1",
            "--held-out",
            "0.1",
            "--checkpoint-steps",
            "3"};
  }
  std::vector<std::string> Run(const std::string& name) const {
    return {"run",
            "--task",
            "language-model",
            "--data",
            directory_.Sub("stories.txt"),
            "--checkpoint",
            Dense(name),
            "--to",
            Package(name),
            "--work",
            directory_.Sub(name + "-work"),
            "--held-out",
            "0.1",
            "--epochs",
            "2",
            "--experts",
            "16",
            "--router-width",
            "4",
            "--checkpoint-steps",
            "3"};
  }
  std::string Dense(const std::string& name) const { return directory_.Sub(name + "-dense"); }
  std::string Package(const std::string& name) const { return directory_.Sub(name + "/model/1"); }

  const TempDirectory directory_;
};

TEST_F(LanguageConvertTest, FromTextToAPackageThatMeasures) {
  const Outcome pretrained = Convert(Pretrain("a"));
  ASSERT_EQ(pretrained.status, 0) << pretrained.err;
  const auto dense = dimmer::Package::Open(Dense("a"));
  ASSERT_TRUE(dense.ok()) << dense.status();
  EXPECT_EQ(dense->architecture, "GPT2LMHeadModel");
  const std::string path = Dense("a") + "/pretraining.json";
  const auto pretraining = ParseJson(*ReadTextFile(path), path);
  ASSERT_TRUE(pretraining.ok()) << pretraining.status();
  // Three letters a bit each would be chance; the stories are almost one pattern.
  const double test_bits = pretraining->at("result").at("test").at("bits_per_byte");
  EXPECT_LT(test_bits, 0.7);
  EXPECT_GT(test_bits, 0.05);

  const std::string ends = R"({"eos_token_id": [0, 1]})";
  ASSERT_TRUE(WriteTextFile(Dense("a") + "/generation_config.json", ends).ok());
  const Outcome run = Convert(Run("a"));
  ASSERT_EQ(run.status, 0) << run.err;
  const auto package = dimmer::Package::Open(Package("a"));
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(package->architecture, "GPT2LMHeadModel");
  EXPECT_EQ(package->config["activation_function"], "relu");
  ASSERT_TRUE(package->moe.has_value());
  const Calibration& calibration = package->moe->calibration;
  EXPECT_EQ(calibration.metric, "bits_per_byte");
  EXPECT_EQ(calibration.points.front().flop_fraction, 1);
  EXPECT_LT(calibration.points.back().flop_fraction, 0.95);
  EXPECT_GT(calibration.points.back().quality, calibration.points.front().quality);
  EXPECT_THAT(package->moe->provenance.dump(), Not(HasSubstr(directory_.path())));
  const auto kept = ReadTextFile(Package("a") + "/generation_config.json");
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(*kept, ends);
  const auto card = ReadTextFile(Package("a") + "/README.md");
  ASSERT_TRUE(card.ok());
  for (const char* part : {"bits per byte", "Pretraining, from scratch", "--task language-model",
                           "before sparsification"}) {
    EXPECT_THAT(*card, HasSubstr(part));
  }

  const Outcome table = Convert({"evaluate", "--model", directory_.Sub("a/model"), "--data",
                                 directory_.Sub("stories.txt"), "--tau", "0.5", "--json"});
  ASSERT_EQ(table.status, 0) << table.err;
  const auto json = ParseJson(table.out, "evaluate");
  ASSERT_TRUE(json.ok()) << json.status();
  ASSERT_EQ(json->at("points").size(), 2);
  const nlohmann::json& point = json->at("points")[0];
  EXPECT_EQ(point["flop_fraction"], 1.0);
  EXPECT_LT(json->at("points")[1]["flop_fraction"], 1.0);
  EXPECT_NEAR(point["bits_per_byte"]["value"], test_bits, 0.5 * test_bits);
  EXPECT_GT(point["perplexity"], 1.0);

  // The documents that were held out for the test, and no others.
  const auto part = [&](const std::string& data, const std::string& name) {
    return Convert({"evaluate", "--model", directory_.Sub("a/model"), "--data", data, "--part",
                    name, "--tau", "0", "--json"});
  };
  const Outcome test = part(directory_.Sub("stories.txt"), "test");
  ASSERT_EQ(test.status, 0) << test.err;
  const auto measured = ParseJson(test.out, "evaluate");
  ASSERT_TRUE(measured.ok()) << measured.status();
  const nlohmann::json& split = package->moe->provenance["data"];
  EXPECT_EQ(measured->at("documents"), split["test"]["documents"]);
  EXPECT_EQ(measured->at("tokens"), split["test"]["tokens"]);
  EXPECT_THAT(*card,
              HasSubstr(fmt::format(
                  "{:.4f}", measured->at("points")[0]["bits_per_byte"]["value"].get<double>())));
  ASSERT_TRUE(WriteTextFile(directory_.Sub("other.txt"), Stories(160, 2)).ok());
  EXPECT_THAT(part(directory_.Sub("other.txt"), "test").err, HasSubstr("checksum"));
  EXPECT_THAT(part(directory_.Sub("stories.txt"), "half").err, HasSubstr("--part: found \"half\""));

  // Another split would hold out what the model has seen.
  auto other = Run("a");
  other.insert(other.end(), {"--seed", "2"});
  const Outcome refused = Convert(other);
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("has seen documents"));
  // So would a text that it was not kept from; also where the base is a package.
  auto excluding = Run("a");
  excluding.insert(excluding.end(), {"--exclude", directory_.Sub("other.txt")});
  EXPECT_THAT(Convert(excluding).err, HasSubstr("--exclude: " + Dense("a") + " was not trained"));
  auto again = Run("b");
  std::replace(again.begin(), again.end(), Dense("b"), Package("a"));
  again.insert(again.end(), {"--seed", "2"});
  EXPECT_THAT(Convert(again).err, HasSubstr("has seen documents"));
  // A report that is cut short is named before hours of work, not after.
  ASSERT_TRUE(WriteTextFile(path, R"({"data": {"split_seed": 1, "held_out": 0.1}})").ok());
  EXPECT_THAT(Convert(Run("a")).err, HasSubstr(path));
}

TEST_F(LanguageConvertTest, AKilledRunEndsWithTheSameBytes) {
  ASSERT_EQ(Convert(Pretrain("whole")).status, 0);
  for (const char* moment : {"epoch 1 of", "epoch 4 of"}) {
    const Outcome killed = Convert(Pretrain("cut"), {.kill_at = moment});
    EXPECT_EQ(killed.status, -1) << moment << "\n" << killed.err;
  }
  ASSERT_EQ(Convert(Pretrain("cut")).status, 0);
  EXPECT_EQ(Checksums(Dense("cut")), Checksums(Dense("whole")));

  ASSERT_EQ(Convert(Run("whole")).status, 0);
  const Outcome killed = Convert(Run("cut"), {.kill_at = "epoch 1:"});
  EXPECT_EQ(killed.status, -1) << killed.err;
  const Outcome finished = Convert(Run("cut"));
  ASSERT_EQ(finished.status, 0) << finished.err;
  for (const char* file : {"model.safetensors", "routers.safetensors"}) {
    EXPECT_EQ(FileChecksum(Package("cut") + "/" + file).value(),
              FileChecksum(Package("whole") + "/" + file).value());
  }
}

TEST_F(LanguageConvertTest, FailuresNameTheirCause) {
  auto heads = Pretrain("a");
  *(std::find(heads.begin(), heads.end(), "--heads") + 1) = "5";
  Outcome outcome = Convert(heads);
  EXPECT_EQ(outcome.status, 2);
  EXPECT_THAT(outcome.err, HasSubstr("--heads: found 5, expected a divisor of --width 32"));

  ASSERT_TRUE(WriteTextFile(directory_.Sub("stories.txt"), "one\n<|endoftext|>\ntwo\n").ok());
  outcome = Convert(Pretrain("a"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--held-out 0.1 leaves no document"));

  std::filesystem::create_directories(Dense("a"));
  ASSERT_TRUE(WriteTextFile(Dense("a") + "/notes.txt", "mine").ok());
  outcome = Convert(Pretrain("a"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("holds files and no pretraining.json"));
  EXPECT_TRUE(std::filesystem::exists(Dense("a") + "/notes.txt"));
}

}  // namespace
}  // namespace dimmer
