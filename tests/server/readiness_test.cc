#include "server/readiness.h"

#include <gtest/gtest.h>

namespace dimmer {
namespace {

TEST(ReadinessTest, ReachableOnlyOnceThePortsListen) {
  auto engine = Engine::Create({.threads = 1}, nullptr);
  ASSERT_TRUE(engine.ok()) << engine.status();
  Readiness readiness(engine->get());
  EXPECT_FALSE(readiness.ServerReady());
  EXPECT_EQ(readiness.Admit().code(), absl::StatusCode::kUnavailable);
  // The models are there and the ports are about to be bound.
  readiness.SetPhase(Readiness::Phase::kServing);
  EXPECT_TRUE(readiness.ServerReady());
  EXPECT_TRUE(readiness.Admit().ok()) << "whoever gets through is served";
  EXPECT_FALSE(readiness.Reachable()) << "but a probe must not send anyone yet";
  readiness.SetListening();
  EXPECT_TRUE(readiness.Reachable());
  readiness.SetPhase(Readiness::Phase::kDraining);
  EXPECT_FALSE(readiness.Reachable());
  EXPECT_FALSE(readiness.ServerReady());
}

}  // namespace
}  // namespace dimmer
