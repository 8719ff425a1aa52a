#include "server/health_probe.h"

#include <gtest/gtest.h>

namespace dimmer {
namespace {

TEST(HealthProbeTest, EveryInterfaceIsReachedOverLoopback) {
  EXPECT_EQ(ProbeAddress("0.0.0.0"), "127.0.0.1");
  EXPECT_EQ(ProbeAddress("::"), "::1");
  EXPECT_EQ(ProbeAddress("192.0.2.7"), "192.0.2.7");
}

}  // namespace
}  // namespace dimmer
