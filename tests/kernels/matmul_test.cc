#include "engine/kernels/matmul.h"

#include <algorithm>
#include <string>

#include "engine/kernels/reference.h"
#include "engine/kernels/rowwise.h"
#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

struct Problem {
  Problem(size_t rows, size_t n, size_t k, uint32_t seed = 1) : rows(rows), n(n), k(k) {
    std::mt19937 random(seed);
    a = RandomFloats(rows * k, random);
    w = RandomFloats(n * k, random, 1.0f / std::sqrt(static_cast<float>(k + 1)));
    bias = RandomFloats(n, random);
    padded_a = Padded(a, rows, k);
    padded_bias = PadBias(bias);
    packed = Pack(w, n, k);
  }
  MatMulArgs Args(float* out) const {
    MatMulArgs args;
    args.a = {padded_a.data(), PaddedWidth(k), nullptr};
    args.rows = rows;
    args.w = &packed;
    args.panels = packed.panels();
    args.bias = padded_bias.data();
    args.out = out;
    args.out_stride = PaddedWidth(n);
    return args;
  }
  size_t rows, n, k;
  std::vector<float> a, w, bias;
  AlignedBuffer<float> padded_a, padded_bias;
  PackedMatrix packed;
};

TEST(MatMul, SixteenBitWeightsGiveTheBitsOfTheirValues) {
  ForEachTarget([] {
    for (WeightFormat format : k16BitFormats) {
      for (size_t rows : {1, 2, 7, 12, 25, 100}) {
        for (size_t n : {1, 17, 130}) {
          Problem problem(rows, n, 37);
          problem.w = Rounded(problem.w, format);
          problem.packed = Pack(problem.w, n, problem.k);
          AlignedBuffer<float> want(rows * PaddedWidth(n));
          MatMul(problem.Args(want.data()));
          const size_t fp32_bytes = problem.packed.bytes();
          problem.packed = Pack(problem.w, n, problem.k, format);
          EXPECT_EQ(2 * problem.packed.bytes(), fp32_bytes);
          AlignedBuffer<float> out(rows * PaddedWidth(n));
          MatMul(problem.Args(out.data()));
          ASSERT_TRUE(std::equal(out.data(), out.data() + out.size(), want.data()))
              << rows << "x" << n;
        }
      }
    }
  });
}

TEST(MatMul, MatchesTheReferenceOverOddShapes) {
  ForEachTarget([] {
    for (size_t rows : {1, 2, 3, 5, 7, 11, 12, 13, 22, 25, 100}) {
      for (size_t n : {1, 15, 16, 17, 33, 64, 130}) {
        for (size_t k : {1, 3, 16, 37}) {
          SCOPED_TRACE(testing::Message() << rows << "x" << n << "x" << k);
          const Problem problem(rows, n, k);
          AlignedBuffer<float> out(rows * PaddedWidth(n));
          MatMul(problem.Args(out.data()));
          const std::vector<float> want =
              reference::Linear(problem.a, rows, problem.w, n, k, problem.bias, Activation::kNone);
          for (size_t r = 0; r < rows; ++r) {
            for (size_t c = 0; c < n; ++c) {
              ASSERT_NEAR(out[r * PaddedWidth(n) + c], want[r * n + c], 1e-5) << r << "," << c;
            }
          }
        }
      }
    }
  });
}

TEST(MatMul, BitsDoNotDependOnTheSplitIntoRowsAndPanels) {
  ForEachTarget([] {
    const Problem problem(37, 150, 29);
    AlignedBuffer<float> whole(37 * PaddedWidth(150));
    MatMul(problem.Args(whole.data()));
    // One row and one panel at a time.
    AlignedBuffer<float> parts(whole.size());
    for (size_t r = 0; r < 37; ++r) {
      for (size_t p = 0; p < problem.packed.panels(); ++p) {
        MatMulArgs args = problem.Args(parts.data() + r * PaddedWidth(150));
        args.a.data += r * args.a.stride;
        args.rows = 1;
        args.first_panel = p;
        args.panels = 1;
        MatMul(args);
      }
    }
    EXPECT_TRUE(std::equal(whole.data(), whole.data() + whole.size(), parts.data()));
  });
}

TEST(MatMul, GathersRowsAndAccumulates) {
  ForEachTarget([] {
    const Problem problem(20, 40, 24);
    const std::vector<uint32_t> index = {3, 19, 3, 0};
    AlignedBuffer<float> out(index.size() * PaddedWidth(40));
    for (size_t i = 0; i < out.size(); ++i) out[i] = 2.0f;
    MatMulArgs args = problem.Args(out.data());
    args.a.index = index.data();
    args.rows = index.size();
    args.bias = nullptr;
    MatMul(args);
    const std::vector<float> want =
        reference::Linear(problem.a, 20, problem.w, 40, 24, {}, Activation::kNone);
    for (size_t r = 0; r < index.size(); ++r) {
      for (size_t c = 0; c < 40; ++c) {
        ASSERT_NEAR(out[r * PaddedWidth(40) + c], 2.0f + want[index[r] * 40 + c], 1e-5);
      }
    }
  });
}

TEST(MatMul, AppliesEveryActivation) {
  ForEachTarget([] {
    for (Activation activation : {Activation::kRelu, Activation::kGelu, Activation::kGeluTanh,
                                  Activation::kSilu, Activation::kTanh, Activation::kAbs}) {
      SCOPED_TRACE(static_cast<int>(activation));
      const Problem problem(14, 35, 20);
      AlignedBuffer<float> out(14 * PaddedWidth(35));
      MatMulArgs args = problem.Args(out.data());
      args.activation = activation;
      MatMul(args);
      const std::vector<float> want =
          reference::Linear(problem.a, 14, problem.w, 35, 20, problem.bias, activation);
      for (size_t r = 0; r < 14; ++r) {
        for (size_t c = 0; c < 35; ++c) {
          ASSERT_NEAR(out[r * PaddedWidth(35) + c], want[r * 35 + c], 5e-6);
        }
      }
    }
  });
}

TEST(Activations, AreAccurateOverTheirWholeRange) {
  ForEachTarget([] {
    for (Activation activation : {Activation::kRelu, Activation::kGelu, Activation::kGeluTanh,
                                  Activation::kSilu, Activation::kTanh, Activation::kAbs}) {
      SCOPED_TRACE(static_cast<int>(activation));
      AlignedBuffer<float> x(64000);
      std::vector<float> in(x.size());
      for (size_t i = 0; i < x.size(); ++i) {
        in[i] = x[i] = (static_cast<float>(i) - 32000.0f) / 1600.0f;  // [-20, 20]
      }
      Activate(activation, x.data(), x.size());
      for (size_t i = 0; i < x.size(); ++i) {
        const double want = reference::Activate(activation, in[i]);
        // Relative to max(1, |x|): what the next product sees.
        ASSERT_NEAR(x[i], want, 1e-6 * std::max(1.0, std::fabs(double{in[i]}))) << in[i];
      }
    }
  });
}

TEST(Activations, KeepNanAndSurviveInfinity) {
  ForEachTarget([] {
    for (Activation activation : {Activation::kRelu, Activation::kAbs, Activation::kNone}) {
      AlignedBuffer<float> x(16);
      x[3] = NAN;
      x[4] = INFINITY;
      Activate(activation, x.data(), 16);
      EXPECT_TRUE(std::isnan(x[3]));
      EXPECT_TRUE(std::isinf(x[4]));
    }
    AlignedBuffer<float> x(16);
    x[0] = 1e30f;
    x[1] = -1e30f;
    Activate(Activation::kSilu, x.data(), 16);
    EXPECT_FLOAT_EQ(x[0], 1e30f);
    EXPECT_NEAR(x[1], 0.0f, 1e-5);
  });
}

}  // namespace
}  // namespace dimmer
