#include "engine/package/package.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "engine/package/json_fields.h"
#include "tests/package/test_files.h"

namespace dimmer {
namespace {

using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

json ReadSpec(const TempDirectory& directory) {
  return json::parse(ReadBytes(directory / "dimmer.json"));
}

TEST(PackageTest, RoundTrips) {
  const TempDirectory directory;
  WriteTinyPackage(directory.path());
  const auto package = Package::Open(directory.path());
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(package->architecture, "BertModel");
  EXPECT_EQ(package->config["hidden_size"], 4);
  ASSERT_TRUE(package->moe.has_value());
  EXPECT_EQ(ToJson(*package->moe), ToJson(TinySpec()));
  EXPECT_EQ(package->moe->provenance["seed"], 7);
  ASSERT_EQ(package->moe->calibration.points.size(), 2);
  EXPECT_EQ(package->moe->calibration.points[1].experts_run, std::vector<double>{1});
  EXPECT_EQ(package->weights.names(), (std::vector<std::string>{"b1", "w1"}));
  EXPECT_EQ(package->weights.fp32_bytes(), 4 * (24 + 6));
  EXPECT_NE(package->routers->Find(RouterTensorName(0, Module::kFfn, 2)), nullptr);
  for (int repeat = 0; repeat < 2; ++repeat) {
    EXPECT_EQ(*package->weights.Floats("w1", std::vector<int64_t>{6, 4}), Numbers(24, -2));
  }
}

TEST(PackageTest, RoundTripsATopKGateWithoutCalibration) {
  MoeSpec spec = TinySpec();
  spec.gate = {.kind = GateKind::kTopK, .default_tau = 0, .top_k = 2};
  spec.calibration = {};
  const auto read = MoeSpecFromJson(ToJson(spec), "f");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->gate.kind, GateKind::kTopK);
  EXPECT_EQ(read->gate.top_k, 2);
  EXPECT_TRUE(read->calibration.empty());
  EXPECT_EQ(ToJson(*read), ToJson(spec));
}

TEST(PackageTest, WithoutSpecItIsAPlainCheckpoint) {
  const TempDirectory directory;
  WriteTinyCheckpoint(directory.path());  // with routers: the converter was stopped at its end
  const auto package = Package::Open(directory.path());
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_FALSE(package->moe.has_value());
  EXPECT_EQ(package->routers, nullptr);
}

// A change to a good package, and what the refusal says.
struct Damage {
  const char* name;
  std::function<void(const TempDirectory&)> apply;
  std::string expected;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

class DamagedPackageTest : public testing::TestWithParam<Damage> {};

TEST_P(DamagedPackageTest, IsRefused) {
  const TempDirectory directory;
  WriteTinyPackage(directory.path());
  ASSERT_TRUE(Package::Open(directory.path()).ok());
  GetParam().apply(directory);
  const auto package = Package::Open(directory.path());
  ASSERT_FALSE(package.ok());
  EXPECT_EQ(package.status().code(), GetParam().code) << package.status();
  EXPECT_THAT(MessageOf(package.status()), HasSubstr(GetParam().expected));
  EXPECT_THAT(MessageOf(package.status()), HasSubstr(directory.path()));
}

Damage Removed(const char* name, const char* file, const char* expected) {
  return {name, [=](const TempDirectory& d) { fs::remove(d / file); }, expected,
          absl::StatusCode::kNotFound};
}

Damage Replaced(const char* name, const char* file, const std::string& bytes,
                const char* expected) {
  return {name, [=](const TempDirectory& d) { WriteBytes(d / file, bytes); }, expected};
}

// Replaces one value of dimmer.json, or (with null) erases it.
Damage InSpec(const char* name, const char* pointer, const json& value, const char* expected) {
  return {name,
          [=](const TempDirectory& d) {
            json spec = ReadSpec(d);
            const json::json_pointer at(pointer);
            if (value.is_null()) {
              spec[at.parent_pointer()].erase(at.back());
            } else {
              spec[at] = value;
            }
            WriteBytes(d / "dimmer.json", spec.dump());
          },
          expected};
}

Damage InRouters(const char* name, const std::vector<TensorToWrite>& tensors,
                 const char* expected) {
  return {name,
          [=](const TempDirectory& d) {
            ASSERT_TRUE(WriteSafetensors(d / "routers.safetensors", tensors, {}).ok());
          },
          expected};
}

const std::vector<float> kZeros(64, 0.0F);

TensorToWrite Zeros(const char* name, std::vector<int64_t> shape) {
  size_t count = 1;
  for (const int64_t side : shape) count *= static_cast<size_t>(side);
  return {name, DType::kF32, std::move(shape), {kZeros.data(), count}};
}

constexpr char kW1[] = "layers.0.ffn.router.w1";
constexpr char kW2[] = "layers.0.ffn.router.w2";

INSTANTIATE_TEST_SUITE_P(
    Files, DamagedPackageTest,
    testing::Values(
        Removed("NoConfig", "config.json", "config.json"),
        Removed("NoWeights", "model.safetensors",
                "found no weights, expected model.safetensors or model.safetensors.index.json"),
        Removed("NoRouters", "routers.safetensors", "routers.safetensors"),
        Removed("NoVocab", "vocab.txt", "vocab.txt"),
        Replaced("ConfigIsNotJson", "config.json", "{\"architectures\"",
                 "config.json: found a syntax error at byte 17"),
        Replaced("ConfigIsEmpty", "config.json", "", "config.json: found a syntax error"),
        Replaced("ConfigIsAList", "config.json", "[]", "config.json: found an array"),
        Replaced("NoArchitectures", "config.json", "{}",
                 "config.json: architectures: found nothing, expected a list"),
        Replaced("EmptyArchitectures", "config.json", R"({"architectures": []})",
                 "architectures: found array"),
        Replaced("ArchitectureIsNumber", "config.json", R"({"architectures": [3]})",
                 "architectures: found array"),
        Replaced("ChangedVocab", "vocab.txt", "[PAD]\n", "vocab.txt: found checksum sha256:"),
        Replaced("ChangedConfig", "config.json", R"({"architectures": ["BertModel"]})",
                 "config.json: found checksum sha256:"),
        Replaced("TruncatedWeights", "model.safetensors", "12345",
                 "model.safetensors: found 5 bytes"),
        Replaced("OtherRouters", "routers.safetensors", RawSafetensors("{}", ""),
                 "tensor layers.0.ffn.router.w1: found nothing, expected it with shape [2, width]"),
        Replaced("SpecIsNotJson", "dimmer.json", "}", "dimmer.json: found a syntax error"),
        Replaced("NewerVersion", "dimmer.json", R"({"format_version": 99, "new": 1})",
                 "dimmer.json: format_version: found 99, expected at most 1: a newer program wrote "
                 "this package; upgrade"),
        Replaced("NoVersion", "dimmer.json", "{}", "format_version: found nothing"),
        Replaced("VersionZero", "dimmer.json", R"({"format_version": 0})",
                 "format_version: found 0"),
        Replaced("VersionIsString", "dimmer.json", R"({"format_version": "1"})",
                 "format_version: found \"1\"")),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Spec, DamagedPackageTest,
    testing::Values(
        InSpec("UnknownKey", "/gates", 1, "gates: found an unknown key"),
        InSpec("UnknownModuleKey", "/modules/0/size", 1, "modules[0]: size: found an unknown key"),
        InSpec("UnknownGateKey", "/gate/tau", 1, "gate: tau: found an unknown key"),
        InSpec("NoModules", "/modules", nullptr, "modules: found nothing"),
        InSpec("EmptyModules", "/modules", json::array(), "modules: found none"),
        InSpec("ModuleIsNumber", "/modules/0", 3, "modules[0]: found 3, expected an object"),
        InSpec("UnknownModule", "/modules/0/module", "mlp",
               "module: found \"mlp\", expected one of"),
        InSpec("NoExperts", "/modules/0/experts", 0, "experts: found 0"),
        InSpec("NegativeSize", "/modules/0/expert_size", -2, "expert_size: found -2"),
        InSpec("AbsurdExperts", "/modules/0/experts", 4000000000, "experts: found 4000000000"),
        InSpec("AbsurdProduct", "/modules/0",
               {{"layer", 0},
                {"module", "ffn"},
                {"experts", 65536},
                {"expert_size", 1048576},
                {"router_width", 2}},
               "experts * expert_size: found 68719476736, expected at most"),
        InSpec("AbsurdLayer", "/modules/0/layer", 1 << 20, "layer: found 1048576"),
        InSpec("AbsurdWidth", "/modules/0/router_width", 1e18, "router_width: found"),
        InSpec("RepeatedModule", "/modules/1",
               {{"layer", 0},
                {"module", "ffn"},
                {"experts", 3},
                {"expert_size", 2},
                {"router_width", 2}},
               "modules[1]: layer, module: found 0 ffn after 0 ffn, expected ascending"),
        InSpec("NoGate", "/gate", nullptr, "gate: found nothing"),
        InSpec("UnknownGate", "/gate/kind", "top_p",
               "kind: found \"top_p\", expected dynamic_k or"),
        InSpec("TauTooLarge", "/gate/default_tau", 1.5, "default_tau: found 1.5"),
        InSpec("TopKTooLarge", "/gate", {{"kind", "top_k"}, {"top_k", 4}},
               "top_k: found 4, expected an integer in [1, 3]"),
        InSpec("NoPoints", "/calibration/points", json::array(), "points: found none"),
        InSpec("FirstTau", "/calibration/points/0/tau", 0.5, "tau: found 0.5, expected 0"),
        InSpec("TauDescends", "/calibration/points/1/tau", 0, "tau: found 0, expected more"),
        InSpec("QualityIsString", "/calibration/points/1/quality", "1", "quality: found \"1\""),
        InSpec("EmptyInterval", "/calibration/points/1/quality_low", 0.6,
               "quality_high: found 0.5"),
        InSpec("TooManyRuns", "/calibration/points/0/experts_run", {1, 2},
               "experts_run: found 2 numbers, expected 1"),
        InSpec("RunsOverExperts", "/calibration/points/0/experts_run/0", 3.5,
               "experts_run[0]: found 3.5, expected a number in [0, 3]"),
        InSpec("NegativeRows", "/calibration/rows", -1, "rows: found -1"),
        InSpec("NoChecksums", "/checksums", nullptr, "checksums: found nothing"),
        InSpec("NoChecksumOfWeights", "/checksums/model.safetensors", nullptr,
               "checksums: model.safetensors: found nothing"),
        InSpec("NoChecksumOfRouters", "/checksums/routers.safetensors", nullptr,
               "checksums: routers.safetensors: found nothing"),
        InSpec("ChecksumIsNumber", "/checksums/vocab.txt", 3, "vocab.txt: found 3"),
        InSpec("ChecksumElsewhere", "/checksums/..~1x", "sha256:0", "found \"../x\""),
        InSpec("ChecksumOfDirectory", "/checksums/.", "sha256:0", "found \".\""),
        InSpec("OtherChecksum", "/checksums/vocab.txt", "sha256:00",
               "expected sha256:00 as dimmer.json says")),
    [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(
    Routers, DamagedPackageTest,
    testing::Values(
        InRouters("NoW2", {Zeros(kW1, {2, 4})}, "router.w2: found nothing"),
        InRouters("WrongRows", {Zeros(kW1, {3, 4}), Zeros(kW2, {3, 2})},
                  "router.w1: found shape [3, 4], expected [2, width]"),
        InRouters("WrongExperts", {Zeros(kW1, {2, 4}), Zeros(kW2, {4, 2})},
                  "router.w2: found shape [4, 2], expected [3, 2]"),
        InRouters("OneDimension", {Zeros(kW1, {8}), Zeros(kW2, {3, 2})}, "found shape [8]"),
        InRouters("NoWidth", {Zeros(kW1, {2, 0}), Zeros(kW2, {3, 2})}, "found shape [2, 0]"),
        InRouters("OneTooMany", {Zeros(kW1, {2, 4}), Zeros(kW2, {3, 2}), Zeros("x", {1})},
                  "found 3 tensors, expected 2"),
        InRouters("OtherValues", {Zeros(kW1, {2, 4}), Zeros(kW2, {3, 2})},
                  "routers.safetensors: found checksum")),
    [](const auto& info) { return std::string(info.param.name); });

TEST(PackageTest, SaysHowToConvertOtherFormats) {
  const TempDirectory directory;
  WriteTinyCheckpoint(directory.path());
  fs::rename(directory / "model.safetensors", directory / "pytorch_model.bin");
  const auto status = Package::Open(directory.path()).status();
  EXPECT_THAT(MessageOf(status), HasSubstr("found pytorch_model.bin, expected model.safetensors: "
                                           "only safetensors is read. Convert with"));
}

TEST(PackageTest, RefusesEveryTruncationOfEveryFile) {
  const TempDirectory directory;
  WriteTinyPackage(directory.path());
  for (const char* name :
       {"config.json", "dimmer.json", "model.safetensors", "routers.safetensors", "vocab.txt"}) {
    const std::string whole = ReadBytes(directory / name);
    // Without the newline at its end dimmer.json still says the same.
    const size_t last = whole.size() - (std::string_view(name) == "dimmer.json" ? 1 : 0);
    for (size_t size = 0; size < last; ++size) {
      WriteBytes(directory / name, whole.substr(0, size));
      ASSERT_FALSE(Package::Open(directory.path()).ok()) << name << " cut to " << size;
    }
    WriteBytes(directory / name, whole);
  }
  EXPECT_TRUE(Package::Open(directory.path()).ok());
}

TEST(WriteMoeSpecTest, ChecksumsEverythingTheServerReads) {
  const TempDirectory directory;
  WriteTinyCheckpoint(directory.path());
  WriteBytes(directory / "README.md", "a model card");
  WriteBytes(directory / "tokenizer_config.json", "{}");
  ASSERT_TRUE(WriteMoeSpec(directory.path(), TinySpec()).ok());
  std::vector<std::string> names;
  const json spec = ReadSpec(directory);
  for (const auto& item : spec["checksums"].items()) names.push_back(item.key());
  EXPECT_THAT(names, testing::ElementsAre("config.json", "model.safetensors", "routers.safetensors",
                                          "tokenizer_config.json", "vocab.txt"));
  WriteBytes(directory / "README.md", "a better model card");
  EXPECT_TRUE(Package::Open(directory.path()).ok());
}

TEST(WriteMoeSpecTest, RefusesWhatCouldNotBeReadBack) {
  const TempDirectory directory;
  WriteTinyCheckpoint(directory.path());
  MoeSpec no_modules = TinySpec();
  no_modules.modules.clear();
  MoeSpec infinite = TinySpec();
  infinite.calibration.points[0].quality = std::numeric_limits<double>::infinity();
  MoeSpec not_utf8 = TinySpec();
  not_utf8.provenance = {{"command", "\xff"}};
  for (const MoeSpec& spec : {no_modules, infinite, not_utf8}) {
    EXPECT_EQ(WriteMoeSpec(directory.path(), spec).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_FALSE(fs::exists(directory / "dimmer.json"));
  }
  EXPECT_FALSE(WriteMoeSpec(directory / "none", TinySpec()).ok());
}

TEST(FileChecksumTest, IsSha256) {
  const TempDirectory directory;
  WriteBytes(directory / "x", "abc");  // FIPS 180-2, appendix B.1
  EXPECT_EQ(*FileChecksum(directory / "x"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  WriteBytes(directory / "x", std::string(1'000'000, 'a'));  // B.3
  EXPECT_EQ(*FileChecksum(directory / "x"),
            "sha256:cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(FileChecksum(directory / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(FileChecksum(directory.path()).status().code(), absl::StatusCode::kInvalidArgument);
}

class ShardsTest : public testing::Test {
 protected:
  void Shard(const char* file, const char* tensor) {
    const std::vector<TensorToWrite> tensors = {Zeros(tensor, {2, 3})};
    ASSERT_TRUE(WriteSafetensors(directory_ / file, tensors, {}).ok());
  }
  void Index(const json& map) {
    WriteBytes(directory_ / "model.safetensors.index.json", json({{"weight_map", map}}).dump());
  }
  std::string Refusal() {
    const auto status = Weights::Open(directory_.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return MessageOf(status);
  }
  TempDirectory directory_;
};

TEST_F(ShardsTest, AreOneSetOfWeights) {
  Shard("model-1.safetensors", "a");
  Shard("model-2.safetensors", "b");
  Index({{"a", "model-1.safetensors"}, {"b", "model-2.safetensors"}});
  const auto weights = Weights::Open(directory_.path());
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(weights->fp32_bytes(), 48);
  EXPECT_TRUE(weights->Get("b", std::vector<int64_t>{2, 3}).ok());
  EXPECT_THAT(MessageOf(weights->Get("b", std::vector<int64_t>{3, 2}).status()),
              HasSubstr("model-2.safetensors: tensor b: found shape [2, 3], expected [3, 2]"));
  EXPECT_EQ(weights->Get("c", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ShardsTest, MustFitTheIndex) {
  Shard("1.safetensors", "a");
  Index({{"a", "1.safetensors"}, {"b", "1.safetensors"}});
  EXPECT_THAT(Refusal(), HasSubstr("1.safetensors: tensor b: found nothing"));
  Shard("2.safetensors", "a");
  Index({{"a", "1.safetensors"}, {"b", "2.safetensors"}});
  EXPECT_THAT(Refusal(), HasSubstr("tensor a: found it in 1.safetensors too"));
  Shard("2.safetensors", "b");
  Index({{"b", "1.safetensors"}, {"a", "2.safetensors"}});
  EXPECT_THAT(Refusal(), HasSubstr("expected it here as"));
  Index(json::object());
  EXPECT_THAT(Refusal(), HasSubstr("found no tensors"));
  Index({{"a", 1}});
  EXPECT_THAT(Refusal(), HasSubstr("weight_map: a: found 1"));
  for (const char* name : {"../1.safetensors", "/etc/passwd", "", ".", "..", ".hidden"}) {
    Index({{"a", name}});
    EXPECT_THAT(Refusal(), HasSubstr("expected the name of a file in the same directory"));
  }
  Index({{"a", "3.safetensors"}});
  EXPECT_EQ(Weights::Open(directory_.path()).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ShardsTest, ATensorOfIntegersIsNoWeight) {
  WriteBytes(directory_ / "model.safetensors",
             RawSafetensors(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})",
                            std::string(8, '\0')));
  const auto weights = Weights::Open(directory_.path());
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->fp32_bytes(), 0);
  EXPECT_THAT(MessageOf(weights->Floats("a", std::vector<int64_t>{1}).status()),
              HasSubstr("tensor a: found I64, expected F32, F16 or BF16"));
}

}  // namespace
}  // namespace dimmer
