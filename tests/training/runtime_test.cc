#include "training/runtime.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <stdexcept>

namespace dimmer {
namespace {

TEST(OpenBlasVariablesTest, AreSortedAndQuotedForAShell) {
  const char* const environment[] = {
      "PATH=/bin",         "OPENBLAS_L2_SIZE=512",      "OPENBLAS_A=it's a",
      "OMP_NUM_THREADS=1", "OPENBLAS_CORETYPE=Haswell", nullptr};
  EXPECT_EQ(OpenBlasVariables(environment),
            "OPENBLAS_A='it'\\''s a' OPENBLAS_CORETYPE=Haswell OPENBLAS_L2_SIZE=512");
  const char* const none[] = {"PATH=/bin", nullptr};
  EXPECT_EQ(OpenBlasVariables(none), "");
}

TEST(WhatOfTest, LeavesLibtorchsBacktraceOut) {
  try {
    torch::zeros({2, 3}).matmul(torch::zeros({2, 3}));
    FAIL() << "libtorch multiplied matrices that do not fit";
  } catch (const c10::Error& error) {
    EXPECT_THAT(WhatOf(error), testing::HasSubstr("mat1 and mat2"));
    EXPECT_THAT(WhatOf(error), testing::Not(testing::HasSubstr("frame #")));
  }
  EXPECT_EQ(WhatOf(std::runtime_error("plain")), "plain");
}

}  // namespace
}  // namespace dimmer
