#include "engine/tau_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "tests/models/test_packages.h"

namespace dimmer {
namespace {

using absl::StatusCode;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using TimePoint = std::chrono::system_clock::time_point;

ModelInfo Converted() {
  ModelInfo info;
  info.converted = true;
  info.cost.moe = {{.layer = 0, .experts = 4, .pair_flops = 1},
                   {.layer = 1, .experts = 4, .pair_flops = 1}};
  info.calibration = {.metric = "accuracy",
                      .points = {{0, 1, 0.9, 0.8, 0.95, {4, 4}}, {1, 0.5, 0.5, 0.4, 0.6, {1, 1}}}};
  return info;
}

class TauControlTest : public testing::Test {
 protected:
  TauControlTest() { Restart(); }

  void Restart(const TauSettings& initial = {.default_tau = 0.1}) {
    Reopen([this] { return now_; });
    control_->Register("m", initial, Converted());
  }
  void Reopen(TauControl::Clock clock = std::chrono::system_clock::now) {
    const TauStore store(temp_.path());
    auto records = store.Read();
    ASSERT_TRUE(records.ok()) << records.status();
    control_.emplace(store, *std::move(records), std::move(clock));
  }
  TauState Set(const TauChange& change) {
    const auto answer = control_->Set("m", change);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? answer->state : TauState{};
  }
  absl::Status SetFails(const TauChange& change) {
    const TauState before = Get();
    const absl::Status status = control_->Set("m", change).status();
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(Get().settings.revision, before.settings.revision);
    EXPECT_EQ(Get().settings.default_tau, before.settings.default_tau);
    return status;
  }
  TauState Get() { return control_->Get("m")->state; }

  TempDirectory temp_;
  TimePoint now_{seconds(1000000)};
  std::optional<TauControl> control_;
};

TEST(InitialTauTest, ConfigOverThePackage) {
  const GateSpec gate{.default_tau = 0.4};
  EXPECT_EQ(InitialTau({}, gate)->default_tau, 0.4);
  EXPECT_EQ(InitialTau({}, gate)->min_tau, 0);
  EXPECT_EQ(InitialTau({}, gate)->max_tau, 1);
  EXPECT_EQ(InitialTau({.default_tau = 0.2}, gate)->default_tau, 0.2);
  EXPECT_EQ(InitialTau({.max_tau = 0.3}, gate)->default_tau, 0.3) << "moved into the bounds";
  EXPECT_EQ(InitialTau({.min_tau = 0.5}, gate)->default_tau, 0.5);
  for (const ServingConfig& bad : std::initializer_list<ServingConfig>{
           {.default_tau = 0.5, .max_tau = 0.4},
           {.min_tau = 0.5, .max_tau = 0.4},
           {.min_tau = -1},
           {.max_tau = 1.5},
           {.default_tau = std::numeric_limits<double>::quiet_NaN()}}) {
    EXPECT_EQ(InitialTau(bad, gate).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST_F(TauControlTest, StartsWithTheModelsOwn) {
  EXPECT_EQ(Get().settings.default_tau, 0.1);
  EXPECT_EQ(Get().settings.revision, 1u);
  EXPECT_THAT(Get().settings.layer_tau, IsEmpty());
  EXPECT_FALSE(Get().expires.has_value());
  EXPECT_EQ(control_->Get("x").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(control_->Set("x", {}).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(control_->Settings("x").status().code(), StatusCode::kNotFound);
}

TEST_F(TauControlTest, ChangesOnlyWhatIsSet) {
  TauState state = Set({.default_tau = 0.3, .layers = {{1, Module::kFfn, 0.6}}});
  EXPECT_EQ(state.settings.default_tau, 0.3);
  EXPECT_EQ(state.settings.max_tau, 1);
  EXPECT_THAT(state.settings.layer_tau, ElementsAre(-1, 0.6));
  EXPECT_EQ(state.settings.revision, 2u);
  state = Set({.max_tau = 0.8, .layers = {{0, Module::kFfn, 0.7}}});
  EXPECT_EQ(state.settings.default_tau, 0.3);
  EXPECT_THAT(state.settings.layer_tau, ElementsAre(0.7, 0.6));
  EXPECT_EQ(state.settings.revision, 3u);
  EXPECT_EQ(control_->Settings("m")->max_tau, 0.8);
  EXPECT_EQ(control_->Settings("m")->revision, 3u);
}

TEST_F(TauControlTest, AnEmptyChangeIsNone) {
  EXPECT_EQ(Set({}).settings.revision, 1u);
  EXPECT_EQ(Set({.if_revision = 1}).settings.revision, 1u);
  EXPECT_EQ(SetFails({.if_revision = 5}).code(), StatusCode::kAborted);
}

TEST_F(TauControlTest, PredictsFromTheCalibration) {
  const auto answer = control_->Set("m", {.default_tau = 0.5});
  ASSERT_TRUE(answer.ok());
  ASSERT_TRUE(answer->predicted.has_value());
  EXPECT_DOUBLE_EQ(answer->predicted->flop_fraction, 0.75);
  EXPECT_DOUBLE_EQ(answer->predicted->quality, 0.7);
  EXPECT_DOUBLE_EQ(answer->predicted->quality_low, 0.6);
  EXPECT_DOUBLE_EQ(answer->predicted->quality_high, 0.775);
  EXPECT_EQ(answer->predicted->metric, "accuracy");
}

TEST_F(TauControlTest, NamesTheFieldThatIsWrong) {
  struct Case {
    TauChange change;
    const char* message;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Case& c : std::initializer_list<Case>{
           {{.default_tau = -0.1}, "default_tau: found -0.1, expected a number in [0, 1]"},
           {{.default_tau = nan}, "default_tau: found nan"},
           {{.min_tau = 1.5}, "min_tau: found 1.5"},
           {{.max_tau = -1}, "max_tau: found -1"},
           {{.min_tau = 0.6, .max_tau = 0.5}, "min_tau: found 0.6, expected at most max_tau 0.5"},
           {{.min_tau = 0.2},
            "default_tau: found 0.1, expected a number in [min_tau 0.2, max_tau 1]"},
           {{.default_tau = 0.6, .max_tau = 0.5}, "default_tau: found 0.6"},
           {{.max_tau = 0.5, .layers = {{1, Module::kFfn, 0.6}}},
            "layers[layer 1, ffn].tau: found 0.6"},
           {{.layers = {{1, Module::kFfn, 7}}}, "layers[layer 1, ffn].tau: found 7"},
           {{.layers = {{2, Module::kFfn, 0.5}}},
            "found layer 2, ffn: model m has no experts there"},
           {{.layers = {{1, Module::kQ, 0.5}}}, "found layer 1, q"},
           {{.default_tau = 0.5, .ttl = seconds(-1)}, "ttl: found -1 s"},
           {{.default_tau = 0.5, .ttl = std::chrono::hours(24 * 36500)}, "ttl: found"},
           {{.ttl = seconds(1)}, "ttl: found a ttl, but nothing to change"}}) {
    const absl::Status status = SetFails(c.change);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST_F(TauControlTest, BoundsAndDefaultMoveTogether) {
  EXPECT_EQ(Set({.default_tau = 0.4, .min_tau = 0.3, .max_tau = 0.5}).settings.min_tau, 0.3);
}

TEST_F(TauControlTest, ComparesAndSets) {
  EXPECT_EQ(Set({.default_tau = 0.2, .if_revision = 1}).settings.revision, 2u);
  const absl::Status status = SetFails({.default_tau = 0.3, .if_revision = 1});
  EXPECT_EQ(status.code(), StatusCode::kAborted);
  EXPECT_EQ(status.message(),
            "if_revision: found 1, but the settings of model m are at revision 2");
}

TEST_F(TauControlTest, DryRunOnlyTells) {
  const TauState state = Set({.default_tau = 0.9, .ttl = seconds(5), .dry_run = true});
  EXPECT_EQ(state.settings.default_tau, 0.9);
  EXPECT_EQ(state.settings.revision, 2u);
  EXPECT_EQ(state.expires, now_ + seconds(5));
  EXPECT_EQ(Get().settings.default_tau, 0.1);
  EXPECT_EQ(Get().settings.revision, 1u);
  EXPECT_FALSE(std::filesystem::exists(temp_.Sub("tau.json")));
}

TEST_F(TauControlTest, ATtlEnds) {
  Set({.default_tau = 0.2});
  const TauState state = Set({.default_tau = 0.5, .max_tau = 0.6, .ttl = seconds(10)});
  EXPECT_EQ(state.expires, now_ + seconds(10));
  EXPECT_EQ(state.settings.revision, 3u);
  now_ += seconds(10) - milliseconds(1);
  EXPECT_EQ(Get().settings.default_tau, 0.5);
  EXPECT_EQ(control_->Settings("m")->max_tau, 0.6);
  now_ += milliseconds(1);
  EXPECT_EQ(Get().settings.default_tau, 0.2);
  EXPECT_EQ(Get().settings.max_tau, 1);
  EXPECT_EQ(Get().settings.revision, 4u);
  EXPECT_FALSE(Get().expires.has_value());
  EXPECT_EQ(SetFails({.default_tau = 0.3, .if_revision = 3}).code(), StatusCode::kAborted);
  EXPECT_EQ(Set({.default_tau = 0.3, .if_revision = 4}).settings.revision, 5u);
}

TEST_F(TauControlTest, AnotherTtlSaysWhoseEndItMoves) {
  const auto set = [&](const TauChange& change) {
    const auto answer = control_->Set("m", change);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.ok() ? *answer : TauAnswer{};
  };
  EXPECT_FALSE(set({.max_tau = 0.6, .ttl = seconds(10)}).moved_expiry.has_value());
  const TimePoint first = now_ + seconds(10);
  now_ += seconds(5);
  EXPECT_FALSE(set({.max_tau = 0.7, .ttl = seconds(5)}).moved_expiry.has_value()) << "the same end";
  EXPECT_FALSE(set({.max_tau = 0.7, .ttl = seconds(6)}).moved_expiry.has_value()) << "its own";
  set({.max_tau = 0.7, .ttl = seconds(5)});
  TauAnswer answer = set({.default_tau = 0.5, .ttl = seconds(60), .dry_run = true});
  EXPECT_EQ(answer.moved_expiry, first);
  answer = set({.default_tau = 0.5, .ttl = seconds(60)});
  EXPECT_EQ(answer.moved_expiry, first);
  EXPECT_EQ(answer.state.expires, now_ + seconds(60));
  EXPECT_FALSE(set({.min_tau = 0.1}).moved_expiry.has_value()) << "for good: nothing is moved";
  now_ += seconds(59);
  EXPECT_EQ(Get().settings.max_tau, 0.7) << "one end for all";
  now_ += seconds(1);
  EXPECT_EQ(Get().settings.max_tau, 1);
  EXPECT_FALSE(set({.default_tau = 0.5, .ttl = seconds(60)}).moved_expiry.has_value());
}

TEST_F(TauControlTest, AChangeForGoodEndsTheTemporaryValueOfItsField) {
  Set({.default_tau = 0.5, .max_tau = 0.6, .ttl = seconds(10)});
  TauState state = Set({.default_tau = 0.3});
  EXPECT_EQ(state.settings.default_tau, 0.3);
  EXPECT_EQ(state.settings.max_tau, 0.6) << "still temporary";
  EXPECT_EQ(state.expires, now_ + seconds(10));
  state = Set({.max_tau = 0.7});
  EXPECT_FALSE(state.expires.has_value()) << "nothing temporary is left";
  now_ += seconds(11);
  EXPECT_EQ(Get().settings.default_tau, 0.3);
  EXPECT_EQ(Get().settings.max_tau, 0.7);
  EXPECT_EQ(Get().settings.revision, 4u);
}

TEST_F(TauControlTest, AChangeForGoodMustHoldAfterTheTtlToo) {
  Set({.default_tau = 0.5, .ttl = seconds(10)});
  EXPECT_THAT(std::string(SetFails({.min_tau = 0.4}).message()),
              HasSubstr("default_tau: found 0.1"));
  EXPECT_THAT(std::string(SetFails({.default_tau = 0.2, .min_tau = 0.3}).message()),
              HasSubstr("default_tau: found 0.2"));
}

TEST_F(TauControlTest, SurvivesARestart) {
  Set({.default_tau = 0.2, .layers = {{0, Module::kFfn, 0.25}}});
  Set({.default_tau = 0.5, .ttl = seconds(10)});
  Restart({.default_tau = 0.15, .max_tau = 0.9});
  EXPECT_EQ(Get().settings.default_tau, 0.5);
  EXPECT_EQ(Get().settings.max_tau, 0.9) << "never set: as configured";
  EXPECT_THAT(Get().settings.layer_tau, ElementsAre(0.25, -1));
  EXPECT_EQ(Get().settings.revision, 3u);
  EXPECT_EQ(Get().expires, now_ + seconds(10));
  now_ += seconds(20);
  Restart();
  EXPECT_EQ(Get().settings.default_tau, 0.2);
  EXPECT_EQ(Get().settings.revision, 4u);
}

TEST_F(TauControlTest, ModelsThatAreNotLoadedKeepTheirs) {
  Set({.default_tau = 0.2});
  Reopen();
  control_->Register("other", {}, Converted());
  ASSERT_TRUE(control_->Set("other", {.default_tau = 0.6}).ok());
  Restart();
  EXPECT_EQ(Get().settings.default_tau, 0.2);
}

TEST_F(TauControlTest, KeptSettingsThatNoLongerFitAreFitted) {
  Set({.default_tau = 0.8, .layers = {{0, Module::kFfn, 0.9}, {1, Module::kFfn, 0.2}}});
  ModelInfo smaller = Converted();
  smaller.cost.moe.pop_back();
  Reopen();
  control_->Register("m", {.default_tau = 0.1, .max_tau = 0.5}, smaller);
  EXPECT_EQ(Get().settings.default_tau, 0.5);
  EXPECT_THAT(Get().settings.layer_tau, ElementsAre(0.5));
  Set({.default_tau = 0.4, .min_tau = 0.4, .layers = {{0, Module::kFfn, 0.4}}});
  Restart({.default_tau = 0.1, .max_tau = 0.3});  // the kept min_tau is above it
  EXPECT_EQ(Get().settings.min_tau, 0);
  EXPECT_EQ(Get().settings.default_tau, 0.3);
}

TEST_F(TauControlTest, ANewVersionKeepsWhatWasSet) {
  Set({.default_tau = 0.2});
  control_->Register("m", {.default_tau = 0.4}, Converted());
  EXPECT_EQ(Get().settings.default_tau, 0.2);
  EXPECT_EQ(Get().settings.revision, 2u) << "nothing changed";
  control_->Register("m", {.default_tau = 0.4, .max_tau = 0.9}, Converted());
  EXPECT_EQ(Get().settings.max_tau, 0.9);
  EXPECT_EQ(Get().settings.revision, 3u);
}

TEST_F(TauControlTest, AFailedWriteChangesNothing) {
  Set({.default_tau = 0.2});
  // A directory in the file's place: it can neither be replaced nor, for root, be forbidden.
  std::filesystem::remove(temp_.Sub("tau.json"));
  std::filesystem::create_directories(temp_.Sub("tau.json/occupied"));
  EXPECT_FALSE(SetFails({.default_tau = 0.3}).ok());
  EXPECT_EQ(Get().settings.default_tau, 0.2);
  std::filesystem::remove_all(temp_.Sub("tau.json"));
  EXPECT_EQ(Set({.default_tau = 0.3}).settings.revision, 3u);
}

TEST_F(TauControlTest, ANameThatCannotBeKeptIsAnError) {
  control_->Register("caf\xe9", {}, Converted());
  EXPECT_EQ(control_->Set("caf\xe9", {.default_tau = 0.3}).status().code(), StatusCode::kInternal);
  EXPECT_EQ(control_->Get("caf\xe9")->state.settings.revision, 1u);
}

TEST_F(TauControlTest, APlainCheckpointHasNoTau) {
  control_->Register("plain", {}, {});
  const auto state = control_->Get("plain");
  ASSERT_TRUE(state.ok());
  EXPECT_FALSE(state->predicted.has_value());
  const auto set = control_->Set("plain", {.default_tau = 0.1});
  EXPECT_EQ(set.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(set.status().message()), HasSubstr("model plain has no experts"));
}

TEST_F(TauControlTest, ConcurrentChangesEachGetARevision) {
  std::vector<std::thread> threads;
  std::atomic<int> won = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        EXPECT_TRUE(control_->Set("m", {.default_tau = 0.01 * t}).ok());
        const uint64_t seen = control_->Settings("m")->revision;
        won += control_->Set("m", {.max_tau = 0.9, .if_revision = seen}).ok();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Get().settings.revision, 1 + 100 + static_cast<uint64_t>(won));
  EXPECT_GT(won, 0);
}

}  // namespace
}  // namespace dimmer
