#include "engine/kernels/packed_matrix.h"

#include "tests/kernels/kernel_test_util.h"

namespace dimmer {
namespace {

constexpr WeightFormat kAllFormats[] = {WeightFormat::kF32, WeightFormat::kF16,
                                        WeightFormat::kBF16};

// A matrix that is an embedding table too gives back the rows it was packed from.
TEST(PackedMatrix, AddColumnAddsTheRowThatWasPacked) {
  for (WeightFormat format : kAllFormats) {
    for (size_t n : {1, 15, 16, 17, 50}) {
      for (size_t k : {1, 16, 37}) {
        SCOPED_TRACE(testing::Message() << int(format) << " " << n << "x" << k);
        std::mt19937 random(static_cast<uint32_t>(n * 100 + k));
        const auto weights = Rounded(RandomFloats(n * k, random), format);
        const auto start = RandomFloats(k + 1, random);
        const PackedMatrix packed = Pack(weights, n, k, format);
        for (size_t column = 0; column < n; ++column) {
          std::vector<float> out = start;
          packed.AddColumn(column, out.data());
          for (size_t i = 0; i < k; ++i) {
            ASSERT_EQ(out[i], start[i] + weights[column * k + i]) << column << "," << i;
          }
          ASSERT_EQ(out[k], start[k]);  // and nothing past it
        }
      }
    }
  }
}

// Q, K and V are packed one after the other; their widths need not be whole panels.
TEST(PackedMatrix, PartsPackAsTheWhole) {
  for (WeightFormat format : kAllFormats) {
    const size_t n = 45, k = 11;
    std::mt19937 random(7);
    const auto weights = RandomFloats(n * k, random);
    const PackedMatrix whole = Pack(weights, n, k, format);
    PackedMatrix parts(n, k, format);
    size_t first = 0;
    for (size_t count : {3, 1, 20, 21}) {
      parts.PackColumns(first, std::span(weights).subspan(first * k, count * k));
      first += count;
    }
    ASSERT_EQ(first, n);
    ASSERT_EQ(parts.bytes(), whole.bytes());
    const auto* a = static_cast<const std::byte*>(whole.panel(0));
    const auto* b = static_cast<const std::byte*>(parts.panel(0));
    EXPECT_TRUE(std::equal(a, a + whole.bytes(), b));
  }
}

}  // namespace
}  // namespace dimmer
