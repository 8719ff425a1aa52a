// dimmer-convert as a user runs it: exit codes, the whole way to a package, kills and full disks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "tests/models/test_packages.h"
#include "tests/training/run_convert.h"
#include "training/random.h"

namespace dimmer {
namespace {

using testing::HasSubstr;
using testing::Not;

// A tiny checkpoint and a task that it can learn: does the text contain an x?
class ConvertTest : public testing::Test {
 protected:
  void SetUp() override {
    TestBert bert;
    bert.labels = 0;
    bert.vocabulary = true;
    WriteTestBert(bert, directory_.Sub("base"));
    std::string rows;
    RandomStream random(5);
    for (int i = 0; i < 240; ++i) {
      std::string text;
      for (uint64_t t = 3 + random.Below(5); t > 0; --t) {
        text += static_cast<char>('a' + random.Below(23));
        text += ' ';
      }
      if (i % 2 == 1) text[2 * random.Below(text.size() / 2)] = 'x';
      rows += text + ";" + (i % 2 == 1 ? "with x" : "without") + "\n";
    }
    ASSERT_TRUE(WriteTextFile(directory_.Sub("rows.txt"), rows).ok());
  }

  std::vector<std::string> Arguments(const std::string& command, const std::string& name) const {
    return {command,
            "--checkpoint",
            directory_.Sub("base"),
            "--data",
            directory_.Sub("rows.txt"),
            "--to",
            directory_.Sub(name + "/model/1"),
            "--work",
            directory_.Sub(name + "-work"),
            "--epochs",
            "8",
            "--batch-size",
            "16",
            "--learning-rate",
            "0.003",
            "--calibration-rows",
            "60",
            "--checkpoint-steps",
            "3",
            "--experts",
            "12",
            "--router-width",
            "4"};
  }
  std::string Package(const std::string& name) const { return directory_.Sub(name + "/model/1"); }

  const TempDirectory directory_;
};

TEST_F(ConvertTest, ExitCodesAndHelp) {
  EXPECT_EQ(Convert({"--version"}).status, 0);
  EXPECT_THAT(Convert({"--version"}).out, HasSubstr("dimmer-convert "));
  for (const char* command :
       {"run", "sparsify", "split", "route", "calibrate", "pack", "evaluate"}) {
    const Outcome help = Convert({command, "--help"});
    EXPECT_EQ(help.status, 0) << command;
    EXPECT_THAT(help.out, HasSubstr("--data")) << command;
  }
  EXPECT_EQ(Convert({}).status, 2);
  EXPECT_EQ(Convert({"unknown"}).status, 2);
  EXPECT_EQ(Convert({"run"}).status, 2);
  auto bad = Arguments("run", "a");
  bad.insert(bad.end(), {"--dtype", "f8"});
  const Outcome usage = Convert(bad);
  EXPECT_EQ(usage.status, 2);
  EXPECT_THAT(usage.err, HasSubstr("--dtype: found \"f8\""));
}

TEST_F(ConvertTest, FailuresNameTheirCause) {
  auto arguments = Arguments("run", "a");
  arguments[4] = directory_.Sub("absent.txt");
  Outcome outcome = Convert(arguments);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("absent.txt"));

  ASSERT_TRUE(WriteTextFile(directory_.Sub("bad.txt"), "a;x\nno label\n").ok());
  arguments[4] = directory_.Sub("bad.txt");
  outcome = Convert(arguments);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("bad.txt:2:"));

  outcome = Convert(Arguments("route", "a"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("dimmer-convert sparsify"));

  auto uneven = Arguments("run", "a");
  *(std::find(uneven.begin(), uneven.end(), "--experts") + 1) = "7";
  outcome = Convert(uneven);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--experts: found 7, expected a divisor of"));

  auto few = Arguments("run", "a");
  few.insert(few.end(), {"--router-tokens", "2"});
  outcome = Convert(few);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--router-tokens: found 2, expected at least"));
}

TEST_F(ConvertTest, ChecksNotesAndTargetBeforeAnyStage) {
  auto notes = Arguments("run", "a");
  notes.insert(notes.end(), {"--notes", directory_.Sub("absent.md")});
  Outcome outcome = Convert(notes);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("--notes: "));
  EXPECT_THAT(outcome.err, HasSubstr("absent.md"));
  EXPECT_FALSE(std::filesystem::exists(directory_.Sub("a-work/sparsify/done.json")));

  auto onto = Arguments("run", "a");
  *(std::find(onto.begin(), onto.end(), "--to") + 1) = directory_.Sub("base");
  outcome = Convert(onto);
  EXPECT_EQ(outcome.status, 2);
  EXPECT_THAT(outcome.err, HasSubstr("--checkpoint"));
  EXPECT_TRUE(std::filesystem::exists(directory_.Sub("base/config.json")));

  std::filesystem::create_directories(Package("a"));
  ASSERT_TRUE(WriteTextFile(Package("a") + "/config.json", "{}").ok());
  outcome = Convert(Arguments("run", "a"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("holds files and no dimmer.json"));
  EXPECT_FALSE(std::filesystem::exists(directory_.Sub("a-work/sparsify/done.json")));
}

TEST_F(ConvertTest, WithoutTrainingTheWeightsStay) {
  auto untrained = Arguments("run", "untrained");
  const auto set = [&](const std::string& option, const std::string& value) {
    *(std::find(untrained.begin(), untrained.end(), option) + 1) = value;
  };
  set("--epochs", "0");
  const Outcome fresh = Convert(untrained);
  EXPECT_EQ(fresh.status, 1);
  EXPECT_THAT(fresh.err, HasSubstr("has no classifier for these labels"));

  const Outcome trained = Convert(Arguments("run", "trained"));
  ASSERT_EQ(trained.status, 0) << trained.err;
  set("--checkpoint", Package("trained"));
  const Outcome run = Convert(untrained);
  ASSERT_EQ(run.status, 0) << run.err;
  const auto before = Package::Open(Package("trained"));
  const auto after = Package::Open(Package("untrained"));
  ASSERT_TRUE(before.ok() && after.ok()) << before.status() << after.status();
  EXPECT_EQ(after->moe->calibration.points.front().quality,
            before->moe->calibration.points.front().quality);
  EXPECT_LT(after->moe->calibration.points.back().flop_fraction, 1);
  const std::vector<int64_t> shape = {24, 24};
  const std::string query = "bert.encoder.layer.0.attention.self.query.weight";
  EXPECT_EQ(*after->weights.Floats(query, shape), *before->weights.Floats(query, shape));
  EXPECT_THAT(*ReadTextFile(Package("untrained") + "/README.md"), HasSubstr("was not fine-tuned"));
}

TEST_F(ConvertTest, KeepsTheActivationAndTakesL1WhereAsked) {
  auto arguments = Arguments("run", "kept");
  arguments.insert(arguments.end(),
                   {"--activation", "keep", "--l1", "1e-3", "--refine-epochs", "2"});
  const Outcome run = Convert(arguments);
  ASSERT_EQ(run.status, 0) << run.err;
  const auto package = Package::Open(Package("kept"));
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(package->config["hidden_act"], "gelu");
  EXPECT_THAT(package->moe->provenance.at("command").get<std::string>(),
              HasSubstr("--l1 0.001 --max-tokens 128 --activation keep"));
  const std::string reports = package->moe->provenance.dump();
  EXPECT_THAT(reports, HasSubstr("explained_variance_when_gated"));
  const auto card = ReadTextFile(Package("kept") + "/README.md");
  ASSERT_TRUE(card.ok()) << card.status();
  EXPECT_THAT(*card, HasSubstr("| L1 |"));

  auto both = Arguments("run", "kept");
  both.insert(both.end(), {"--hoyer", "1e-3", "--l1", "1e-3"});
  EXPECT_EQ(Convert(both).status, 2);
  auto unknown = Arguments("run", "kept");
  unknown.insert(unknown.end(), {"--activation", "mish"});
  EXPECT_THAT(Convert(unknown).err, HasSubstr("--activation: found \"mish\""));
}

TEST_F(ConvertTest, MakesAPackageThatServesAndMeasures) {
  const Outcome run = Convert(Arguments("run", "a"));
  ASSERT_EQ(run.status, 0) << run.err;
  EXPECT_THAT(run.err, Not(HasSubstr("\r")));
  const auto package = Package::Open(Package("a"));
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(package->architecture, "BertForSequenceClassification");
  EXPECT_EQ(package->config["hidden_act"], "relu");
  EXPECT_EQ(package->config["id2label"]["0"], "with x");
  ASSERT_TRUE(package->moe.has_value());
  EXPECT_EQ(package->moe->calibration.points.front().tau, 0);
  EXPECT_EQ(package->moe->calibration.rows, 60);
  const std::string provenance = package->moe->provenance.dump();
  EXPECT_THAT(run.err, HasSubstr("labels: with x "));
  EXPECT_THAT(provenance, Not(HasSubstr(directory_.path())));  // no directory of this machine
  for (const char* file : {"README.md", "tradeoff.svg", "vocab.txt", "routers.safetensors"}) {
    EXPECT_TRUE(std::filesystem::exists(Package("a") + "/" + file)) << file;
  }
  const auto left = std::filesystem::directory_iterator(directory_.Sub("a/model"));
  EXPECT_EQ(std::distance(begin(left), end(left)), 1);  // nothing beside the package

  const Outcome table = Convert({"evaluate", "--model", directory_.Sub("a/model"), "--data",
                                 directory_.Sub("rows.txt"), "--tau", "0.5", "--json"});
  ASSERT_EQ(table.status, 0) << table.err;
  const auto json = ParseJson(table.out, "evaluate");
  ASSERT_TRUE(json.ok()) << json.status();
  ASSERT_EQ(json->at("points").size(), 2);
  EXPECT_EQ(json->at("points")[0]["flop_fraction"], 1.0);
  EXPECT_LT(json->at("points")[1]["flop_fraction"], 1.0);
  EXPECT_GT(json->at("points")[0]["accuracy"]["value"], 0.8);  // it did learn; chance is a half
  EXPECT_EQ(Convert({"evaluate", "--model", directory_.Sub("a/model"), "--data",
                     directory_.Sub("rows.txt"), "--tau", "2"})
                .status,
            2);
  EXPECT_EQ(Convert({"evaluate", "--model", directory_.Sub("a/model"), "--data",
                     directory_.Sub("rows.txt"), "--format", "csv"})
                .status,
            2);
}

TEST_F(ConvertTest, TheSameSeedGivesTheSamePackageHoweverOftenItIsKilled) {
  ASSERT_EQ(Convert(Arguments("run", "whole")).status, 0);
  const auto want = Checksums(Package("whole"));
  ASSERT_EQ(want.size(), 8);
  for (const char* moment : {"epoch 1:", "epoch 5:", "layer 0: its router", "calibrate ["}) {
    const Outcome killed = Convert(Arguments("run", "cut"), {.kill_at = moment});
    EXPECT_THAT(killed.err, HasSubstr(moment));
    // Fine-tuning has seconds to go at these moments; the last stages may outrun the signal.
    if (moment[0] == 'e') {
      EXPECT_EQ(killed.status, -1) << moment << "\n" << killed.err;
    }
  }
  const Outcome finished = Convert(Arguments("run", "cut"));
  ASSERT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("sparsify: done before"));
  EXPECT_EQ(Checksums(Package("cut")), want);

  // Stage by stage it is the same again.
  for (const char* stage : {"sparsify", "split", "route", "calibrate", "pack"}) {
    const Outcome outcome = Convert(Arguments(stage, "staged"));
    ASSERT_EQ(outcome.status, 0) << outcome.err;
  }
  EXPECT_EQ(Checksums(Package("staged")), want);

  auto other = Arguments("run", "cut");
  other.insert(other.end(), {"--seed", "2"});
  ASSERT_EQ(Convert(other).status, 0);  // stale work is not used again
  EXPECT_NE(Checksums(Package("cut")), want);
}

// What a card says of a run in which OPENBLAS_VERBOSE was set outside for the training alone.
TEST_F(ConvertTest, TheCardNamesTheSurroundingsOfTheTraining) {
  setenv("OPENBLAS_VERBOSE", "0", 1);
  const Outcome trained = Convert(Arguments("sparsify", "a"));
  unsetenv("OPENBLAS_VERBOSE");
  ASSERT_EQ(trained.status, 0) << trained.err;
  ASSERT_EQ(Convert(Arguments("run", "a")).status, 0);
  const auto card = ReadTextFile(Package("a") + "/README.md");
  ASSERT_TRUE(card.ok());
  EXPECT_THAT(*card, HasSubstr("OPENBLAS_VERBOSE=0 dimmer-convert run"));
  EXPECT_THAT(*card, HasSubstr("--to PACKAGE_DIR --work WORK_DIR"));
  EXPECT_THAT(*card, HasSubstr("# model\n"));
  const auto package = Package::Open(Package("a"));
  ASSERT_TRUE(package.ok());
  const auto& stages = package->moe->provenance.at("stages_made_on");
  EXPECT_THAT(stages.at("sparsify").at("environment").get<std::string>(),
              HasSubstr("OPENBLAS_VERBOSE=0"));
  EXPECT_THAT(stages.at("route").at("environment").get<std::string>(),
              Not(HasSubstr("OPENBLAS_VERBOSE")));
}

TEST_F(ConvertTest, AChangedConfigIsNotDone) {
  ASSERT_EQ(Convert(Arguments("sparsify", "a")).status, 0);
  const std::string path = directory_.Sub("base/config.json");
  auto config = ParseJson(*ReadTextFile(path), path);
  ASSERT_TRUE(config.ok());
  (*config)["layer_norm_eps"] = 1e-3;
  ASSERT_TRUE(WriteTextFile(path, config->dump()).ok());
  const Outcome outcome = Convert(Arguments("split", "a"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("dimmer-convert sparsify"));
}

TEST_F(ConvertTest, AFullDiskIsReportedAndNothingIsLost) {
  ASSERT_EQ(Convert(Arguments("run", "whole")).status, 0);
  const Outcome full = Convert(Arguments("run", "full"), {.file_size_limit = 20000});
  EXPECT_EQ(full.status, 1);
  EXPECT_THAT(full.err, HasSubstr("state.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(Package("full")));
  ASSERT_EQ(Convert(Arguments("run", "full")).status, 0);
  EXPECT_EQ(Checksums(Package("full")), Checksums(Package("whole")));
}

}  // namespace
}  // namespace dimmer
