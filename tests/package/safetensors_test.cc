#include "engine/package/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <csignal>
#include <limits>

#include "engine/util/float_formats.h"
#include "tests/package/test_files.h"

namespace dimmer {
namespace {

using testing::HasSubstr;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

TEST(SafetensorsTest, RoundTripsEveryFloatType) {
  const TempDirectory directory;
  const std::vector<float> values = {0, -0.0F, 1, -2.5F, 0.333251953125F, 65504, 6.1e-5F, 2e-6F};
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::vector<TensorToWrite> tensors = {
        {.name = "b", .dtype = dtype, .shape = {2, 4}, .values = values},
        {.name = "a", .dtype = DType::kF32, .shape = {}, .values = {values.data() + 3, 1}},
        {.name = "empty", .dtype = dtype, .shape = {0, 3}, .values = {}}};
    const std::string path = directory / "x.safetensors";
    ASSERT_TRUE(WriteSafetensors(path, tensors, {{"k", "v"}}).ok());
    const auto file = SafetensorsFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((*file)->metadata().at("k"), "v");
    ASSERT_EQ((*file)->tensors().size(), 3);
    EXPECT_EQ((*file)->Find("nothing"), nullptr);
    EXPECT_EQ((*file)->Find("empty")->elements(), 0);
    EXPECT_EQ((*file)->Find("a")->shape, std::vector<int64_t>());
    const TensorView* view = (*file)->Find("b");
    EXPECT_EQ(view->shape, (std::vector<int64_t>{2, 4}));
    EXPECT_EQ(view->dtype, dtype);
    std::vector<float> read(8);
    for (int repeat = 0; repeat < 2; ++repeat) {  // the second time from released pages
      ASSERT_TRUE(ReadFloats(*view, read).ok());
      for (size_t i = 0; i < values.size(); ++i) {
        const float expected = dtype == DType::kF32   ? values[i]
                               : dtype == DType::kF16 ? HalfToFloat(FloatToHalf(values[i]))
                                                      : BFloat16ToFloat(FloatToBFloat16(values[i]));
        EXPECT_EQ(std::bit_cast<uint32_t>(read[i]), std::bit_cast<uint32_t>(expected)) << i;
      }
      ReleasePages(*view);
    }
  }
}

TEST(SafetensorsTest, ReadsAnUnalignedTensor) {
  const TempDirectory directory;
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  WriteBytes(directory / "x", RawSafetensors(header, std::string("\x07\x00\x00\x80\x3f", 5)));
  const auto file = SafetensorsFile::Open(directory / "x");
  ASSERT_TRUE(file.ok()) << file.status();
  float value = 0;
  ASSERT_TRUE(ReadFloats(*(*file)->Find("b"), {&value, 1}).ok());
  EXPECT_EQ(value, 1);
  EXPECT_THAT(MessageOf(ReadFloats(*(*file)->Find("a"), {&value, 1})),
              HasSubstr("tensor a: found dtype U8, expected F32"));
}

// Every half, both ways, against the definition of the format.
TEST(FloatFormatsTest, HalvesAreExact) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const int exponent = (half >> 10) & 31;
    const int mantissa = half & 1023;
    const float sign = (half & 0x8000) != 0 ? -1.0F : 1.0F;
    const float value = HalfToFloat(half);
    if (exponent == 31 && mantissa != 0) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value))));
      continue;
    }
    const float expected = exponent == 31 ? std::numeric_limits<float>::infinity()
                           : exponent == 0
                               ? std::ldexp(static_cast<float>(mantissa), -24)
                               : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
    ASSERT_EQ(value, sign * expected) << bits;
    ASSERT_EQ(FloatToHalf(value), half) << bits;
  }
}

// Between two neighbours: to the nearer one, and in the middle to the even one.
TEST(FloatFormatsTest, HalvesRoundToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const auto low = static_cast<uint16_t>(bits);
    const auto high = static_cast<uint16_t>(bits + 1);
    const float middle = (HalfToFloat(low) + HalfToFloat(high)) / 2;  // exact in fp32
    ASSERT_EQ(FloatToHalf(middle), bits % 2 == 0 ? low : high) << bits;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 0.0F)), low) << bits;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 1e9F)), high) << bits;
    ASSERT_EQ(FloatToHalf(-middle), 0x8000 | (bits % 2 == 0 ? low : high)) << bits;
  }
  EXPECT_EQ(FloatToHalf(65519.9F), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520), 0x7c00);
  EXPECT_EQ(FloatToHalf(1e-20F), 0);
}

TEST(FloatFormatsTest, BFloat16RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7f7f; ++bits) {
    const auto low = static_cast<uint16_t>(bits);
    const auto high = static_cast<uint16_t>(bits + 1);
    const float middle = std::bit_cast<float>((bits << 16) | 0x8000u);
    ASSERT_EQ(FloatToBFloat16(BFloat16ToFloat(low)), low);
    ASSERT_EQ(FloatToBFloat16(middle), bits % 2 == 0 ? low : high) << bits;
    ASSERT_EQ(FloatToBFloat16(std::nextafter(middle, 0.0F)), low) << bits;
    ASSERT_EQ(FloatToBFloat16(std::nextafter(middle, INFINITY)), high) << bits;
  }
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(NAN))));
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(SafetensorsTest, NamesTheFirstValueThatIsNotFinite) {
  const TempDirectory directory;
  const struct {
    const char* dtype;
    std::string bytes;  // the bad element; the others are 0
    const char* expected;
  } cases[] = {{"F32", std::string("\0\0\xc0\x7f", 4), "nan at index 70"},
               {"F32", std::string("\0\0\x80\xff", 4), "inf at index 70"},
               {"F16", std::string("\x01\x7c", 2), "nan at index 70"},
               {"F16", std::string("\0\xfc", 2), "inf at index 70"},
               {"BF16", std::string("\xc0\xff", 2), "nan at index 70"}};
  for (const auto& c : cases) {
    std::string data(100 * c.bytes.size(), '\0');
    data.replace(70 * c.bytes.size(), c.bytes.size(), c.bytes);
    data.replace(90 * c.bytes.size(), c.bytes.size(), c.bytes);
    const std::string header = std::string(R"({"t":{"dtype":")") + c.dtype +
                               R"(","shape":[100],"data_offsets":[0,)" +
                               std::to_string(data.size()) + "]}}";
    WriteBytes(directory / "x", RawSafetensors(header, data));
    const auto file = SafetensorsFile::Open(directory / "x");
    ASSERT_TRUE(file.ok()) << file.status();
    std::vector<float> values(100);
    const absl::Status status = ReadFloats(*(*file)->Find("t"), values);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), HasSubstr(c.expected));
    EXPECT_THAT(MessageOf(status), HasSubstr(directory / "x: tensor t"));
  }
}

struct BadHeader {
  const char* name;
  std::string header;
  size_t data_bytes;
  const char* expected;
};

void PrintTo(const BadHeader& bad, std::ostream* out) { *out << bad.name; }

class BadHeaderTest : public testing::TestWithParam<BadHeader> {};

TEST_P(BadHeaderTest, IsRefused) {
  const TempDirectory directory;
  const std::string path = directory / "bad.safetensors";
  WriteBytes(path, RawSafetensors(GetParam().header, std::string(GetParam().data_bytes, 'x')));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(file.status()), HasSubstr(path));
  EXPECT_THAT(MessageOf(file.status()), HasSubstr(GetParam().expected));
}

std::string Entry(const std::string& name, const std::string& rest) {
  return "{\"" + name + "\":{" + rest + "}}";
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadHeaderTest,
    testing::Values(
        BadHeader{"Empty", "", 0, "syntax error at byte"},
        BadHeader{"NotJson", "{\"a\":", 0, "syntax error at byte"},
        BadHeader{"NotUtf8", "{\"\xff\":1}", 0, "syntax error at byte"},
        BadHeader{"HugeNumber", R"({"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}})", 4,
                  "syntax error"},
        BadHeader{"Array", "[]", 0, "found an array of 0, expected an object"},
        BadHeader{"Deep", std::string(100000, '['), 0, "nesting deeper than 64"},
        BadHeader{"DuplicateName",
                  R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                  1, "found key \"a\" twice"},
        BadHeader{"EntryIsNumber", R"({"a":3})", 0, "tensor a: found 3, expected an object"},
        BadHeader{"NoDtype", Entry("a", R"("shape":[1],"data_offsets":[0,1])"), 1,
                  "tensor a: dtype: found nothing"},
        BadHeader{"UnknownDtype", Entry("a", R"("dtype":"F4","shape":[1],"data_offsets":[0,1])"), 1,
                  "tensor a: dtype: found \"F4\", expected one of F32, F16"},
        BadHeader{"DtypeIsNumber", Entry("a", R"("dtype":4,"shape":[1],"data_offsets":[0,1])"), 1,
                  "tensor a: dtype: found 4, expected a string"},
        BadHeader{"NoShape", Entry("a", R"("dtype":"U8","data_offsets":[0,1])"), 1,
                  "tensor a: shape: found nothing"},
        BadHeader{"NegativeShape", Entry("a", R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"),
                  1, "tensor a: shape: found -1"},
        BadHeader{"FractionalShape",
                  Entry("a", R"("dtype":"U8","shape":[1.5],"data_offsets":[0,1])"), 1,
                  "tensor a: shape: found 1.5"},
        BadHeader{"StringShape", Entry("a", R"("dtype":"U8","shape":["1"],"data_offsets":[0,1])"),
                  1, "tensor a: shape: found string"},
        BadHeader{"ShapeIsObject", Entry("a", R"("dtype":"U8","shape":{},"data_offsets":[0,1])"), 1,
                  "tensor a: shape: found object"},
        BadHeader{"OverflowingShape",
                  Entry("a", R"("dtype":"F32","shape":[4294967296,4294967296],)"
                             R"("data_offsets":[0,0])"),
                  0, "expected more than 2^63 for F32 [4294967296, 4294967296]"},
        BadHeader{"OverflowingBytes",
                  Entry("a", R"("dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,4])"),
                  4, "expected more than 2^63"},
        BadHeader{"SideOver63Bits",
                  Entry("a", R"("dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1])"),
                  1, "shape: found 18446744073709551615"},
        BadHeader{"AbsurdSize",
                  Entry("a", R"("dtype":"F32","shape":[1000000000000],)"
                             R"("data_offsets":[0,4000000000000])"),
                  4, "expected them within the 4 bytes of data"},
        BadHeader{"OneOffset", Entry("a", R"("dtype":"U8","shape":[1],"data_offsets":[0])"), 1,
                  "data_offsets: found [0], expected [begin, end]"},
        BadHeader{"ReversedOffsets", Entry("a", R"("dtype":"U8","shape":[1],"data_offsets":[1,0])"),
                  1, "data_offsets: found [1, 0], expected [begin, end]"},
        BadHeader{"OffsetsPastEnd", Entry("a", R"("dtype":"U8","shape":[9],"data_offsets":[0,9])"),
                  8, "expected them within the 8 bytes of data"},
        BadHeader{"WrongLength", Entry("a", R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4,
                  "tensor a: found 4 bytes of data, expected 8 for F32 [2]"},
        BadHeader{"Overlap",
                  R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                  R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                  6, "tensor b: found an overlap at offset 2"},
        BadHeader{"SameBytesTwice",
                  R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                  R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                  4, "tensor b: found an overlap at offset 0"},
        BadHeader{"Hole",
                  R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                  3, "tensor b: found a hole at offset 2"},
        BadHeader{"HoleAtStart", Entry("a", R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"), 2,
                  "tensor a: found a hole at offset 1"},
        BadHeader{"DataAfterTheLast",
                  Entry("a", R"("dtype":"U8","shape":[1],"data_offsets":[0,1])"), 2,
                  "found 2 bytes of data after the header, expected 1, the end of a"},
        BadHeader{"MetadataIsList", R"({"__metadata__":[]})", 0, "__metadata__: found an array"},
        BadHeader{"MetadataOfNumbers", R"({"__metadata__":{"a":1}})", 0,
                  "__metadata__: a: found 1, expected a string"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(SafetensorsTest, RefusesAHeaderLengthBeforeUsingIt) {
  const TempDirectory directory;
  for (const uint64_t length : {uint64_t{3}, uint64_t{100'000'001}, UINT64_MAX, UINT64_MAX - 7}) {
    std::string bytes = RawSafetensors("{}", "");
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
    WriteBytes(directory / "x", bytes);
    const auto file = SafetensorsFile::Open(directory / "x");
    ASSERT_FALSE(file.ok());
    EXPECT_THAT(MessageOf(file.status()), HasSubstr("found a header of " + std::to_string(length) +
                                                    " bytes, expected at most 2 in a file of 10"));
  }
}

TEST(SafetensorsTest, RefusesEveryTruncation) {
  const TempDirectory directory;
  WriteTinyCheckpoint(directory.path());
  const std::string whole = ReadBytes(directory / "model.safetensors");
  for (size_t size = 0; size < whole.size(); ++size) {
    WriteBytes(directory / "cut", whole.substr(0, size));
    const auto file = SafetensorsFile::Open(directory / "cut");
    ASSERT_FALSE(file.ok()) << size;
    ASSERT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument) << file.status();
  }
}

TEST(SafetensorsTest, SaysWhatIsNotAFile) {
  const TempDirectory directory;
  EXPECT_EQ(SafetensorsFile::Open(directory / "none").status().code(), absl::StatusCode::kNotFound);
  const auto status = SafetensorsFile::Open(directory.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status), HasSubstr("found a directory, expected a regular file"));
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(MessageOf(SafetensorsFile::Open(directory / "pipe").status()),
              HasSubstr("found a special file"));
  if (::geteuid() != 0) {  // root reads everything
    WriteBytes(directory / "secret", "x");
    ::chmod((directory / "secret").c_str(), 0);
    EXPECT_EQ(SafetensorsFile::Open(directory / "secret").status().code(),
              absl::StatusCode::kPermissionDenied);
  }
}

TEST(WriteSafetensorsTest, RefusesWhatItCannotStore) {
  const TempDirectory directory;
  const std::string path = directory / "x";
  const std::vector<float> good = {1, 2};
  const std::vector<float> large = {1, 65520};
  const std::vector<float> nan = {NAN, 1};
  const auto write = [&](TensorToWrite tensor) {
    const absl::Status status = WriteSafetensors(path, {&tensor, 1}, {});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
    return MessageOf(status);
  };
  EXPECT_THAT(
      write({"t", DType::kF16, {2}, large}),
      HasSubstr("tensor t: found 65520 at index 1, expected a value that is finite as F16"));
  EXPECT_THAT(write({"t", DType::kF32, {2}, nan}), HasSubstr("tensor t: found nan at index 0"));
  EXPECT_THAT(write({"t", DType::kI64, {2}, good}), HasSubstr("tensor t: found I64"));
  EXPECT_THAT(write({"t", DType::kF32, {3}, good}),
              HasSubstr("found 2 values, expected those of shape [3]"));
  EXPECT_THAT(write({"t", DType::kF32, {-1, -2}, good}), HasSubstr("[-1, -2]"));
  EXPECT_THAT(write({"__metadata__", DType::kF32, {2}, good}), HasSubstr("reserved"));
  EXPECT_THAT(write({"\xff", DType::kF32, {2}, good}), HasSubstr("header"));
  const std::vector<TensorToWrite> twice(2, {"t", DType::kF32, {2}, good});
  EXPECT_THAT(MessageOf(WriteSafetensors(path, twice, {})), HasSubstr("tensor t: found it twice"));
}

// A limit on file sizes makes write() fail half way, as a full disk does.
TEST(WriteSafetensorsTest, AFullDiskLeavesTheOldFile) {
  const TempDirectory directory;
  const std::string path = directory / "x";
  WriteBytes(path, "old");
  const std::vector<float> values(1 << 18, 1.0F);
  const std::vector<TensorToWrite> tensors = {{"t", DType::kF32, {1 << 18}, values}};
  rlimit old_limit = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  auto* const old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {.rlim_cur = 300'000, .rlim_max = old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = WriteSafetensors(path, tensors, {});
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  (void)std::signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(MessageOf(status), HasSubstr("write failed"));
  EXPECT_EQ(ReadBytes(path), "old");
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    ++files;
  }
  EXPECT_EQ(files, 1);
  EXPECT_TRUE(WriteSafetensors(path, tensors, {}).ok());
}

TEST(WriteSafetensorsTest, SaysThatADirectoryIsMissing) {
  const TempDirectory directory;
  EXPECT_EQ(WriteSafetensors(directory / "none/x", {}, {}).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace dimmer
