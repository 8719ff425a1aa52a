// Decoding of Open Inference requests: tensors, parameters, and all that can be wrong with them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "engine/util/status.h"
#include "server/oip_convert.h"
#include "server/oip_parameters.h"
#include "server/oip_tensors.h"

namespace dimmer {
namespace {

using inference::InferParameter;
using inference::ModelInferRequest;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Text(const absl::Status& status) { return std::string(Message(status)); }

std::string Framed(const std::vector<std::string>& values) {
  std::string raw;
  for (const std::string& value : values) {
    const auto length = static_cast<uint32_t>(value.size());
    raw.append(reinterpret_cast<const char*>(&length), 4);
    raw += value;
  }
  return raw;
}

std::string Packed(const std::vector<int64_t>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int64_t)};
}

void AddRaw(ModelInferRequest& request, const std::string& name, const std::string& datatype,
            const std::vector<int64_t>& shape, const std::string& raw) {
  auto* tensor = request.add_inputs();
  tensor->set_name(name);
  tensor->set_datatype(datatype);
  tensor->mutable_shape()->Add(shape.begin(), shape.end());
  request.add_raw_input_contents(raw);
}

class FakeModel : public Model {
 public:
  FakeModel(std::vector<Task> tasks, std::vector<std::string> labels) {
    info_.tasks = std::move(tasks);
    info_.labels = std::move(labels);
    info_.max_tokens = 4;
    info_.width = 8;
    info_.vocab_size = 100;
  }
  const ModelInfo& info() const override { return info_; }
  void Forward(std::span<Sequence* const>, StepContext&) const override {}

 private:
  ModelInfo info_;
};

ServedModel Classifier() {
  return {.name = "m",
          .version = "7",
          .model = std::make_shared<FakeModel>(
              std::vector<Task>{Task::kClassification, Task::kEmbedding},
              std::vector<std::string>{"no", "yes"}),
          .limits = {}};
}

ServedModel Embedder() {
  return {.name = "e",
          .version = "1",
          .model = std::make_shared<FakeModel>(std::vector<Task>{Task::kEmbedding},
                                               std::vector<std::string>{}),
          .limits = {}};
}

TEST(OipTensorsTest, RawBytes) {
  ModelInferRequest request;
  AddRaw(request, "text", "BYTES", {3}, Framed({"a", "", std::string("b\0c", 3)}));
  const auto inputs = OipInputs::Of(request);
  ASSERT_TRUE(inputs.ok()) << inputs.status();
  const auto values = inputs->Bytes("text");
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_THAT(*values, ElementsAre("a", "", std::string("b\0c", 3)));
}

TEST(OipTensorsTest, TypedContents) {
  ModelInferRequest request;
  auto* text = request.add_inputs();
  text->set_name("text");
  text->set_datatype("BYTES");
  text->add_shape(2);
  text->mutable_contents()->add_bytes_contents("x");
  text->mutable_contents()->add_bytes_contents("y");
  auto* ids = request.add_inputs();
  ids->set_name("input_ids");
  ids->set_datatype("INT64");
  ids->add_shape(1);
  ids->add_shape(2);
  ids->mutable_contents()->add_int64_contents(5);
  ids->mutable_contents()->add_int64_contents(6);
  const auto inputs = OipInputs::Of(request);
  ASSERT_TRUE(inputs.ok()) << inputs.status();
  EXPECT_THAT(*inputs->Bytes("text"), ElementsAre("x", "y"));
  const auto matrix = inputs->Int64Matrix("input_ids");
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ(matrix->rows, 1);
  EXPECT_EQ(matrix->columns, 2);
  EXPECT_THAT(matrix->values, ElementsAre(5, 6));
  text->add_shape(1);
  EXPECT_THAT(Text(inputs->Bytes("text").status()), HasSubstr("[2, 1]"));
  text->mutable_shape()->RemoveLast();
  text->set_shape(0, 3);
  EXPECT_THAT(Text(inputs->Bytes("text").status()), HasSubstr("found 2 elements"));
}

struct BadBytes {
  const char* what;
  std::string datatype;
  std::vector<int64_t> shape;
  std::string raw;
  const char* named;
};

TEST(OipTensorsTest, MalformedBytesAreNamed) {
  const std::string long_length = std::string("\xff\xff\xff\x7f", 4) + "abc";
  const std::vector<BadBytes> cases = {
      {"cut in a length", "BYTES", {1}, std::string("\x01\x00", 2), "4-byte length"},
      {"overrun", "BYTES", {1}, long_length, "length 2147483647, found 3 bytes"},
      {"too few", "BYTES", {2}, Framed({"a"}), "found 1 elements in the contents, expected 2"},
      {"too many",
       "BYTES",
       {1},
       Framed({"a", "b"}),
       "found 5 bytes after the 1 elements of the shape"},
      {"trailing bytes", "BYTES", {1}, Framed({"a"}) + "x", "found 1 bytes after the 1 elements"},
      {"none by the shape", "BYTES", {0}, Framed({"a"}), "found 5 bytes after the 0 elements"},
      {"datatype", "FP32", {1}, Framed({"a"}), "found datatype FP32, expected BYTES"},
      {"rank", "BYTES", {1, 1}, Framed({"a"}), "found shape [1, 1], expected [N]"},
      {"no rank", "BYTES", {}, Framed({"a"}), "found shape [], expected [N]"},
      {"negative", "BYTES", {-1}, Framed({"a"}), "found shape [-1]"},
      {"absurd", "BYTES", {int64_t{1} << 62}, Framed({"a"}), "2^31"},
  };
  for (const BadBytes& bad : cases) {
    ModelInferRequest request;
    AddRaw(request, "text", bad.datatype, bad.shape, bad.raw);
    const auto inputs = OipInputs::Of(request);
    ASSERT_TRUE(inputs.ok()) << bad.what;
    const auto values = inputs->Bytes("text");
    ASSERT_EQ(values.status().code(), absl::StatusCode::kInvalidArgument) << bad.what;
    EXPECT_THAT(Text(values.status()), HasSubstr(bad.named)) << bad.what;
    EXPECT_THAT(Text(values.status()), HasSubstr("text")) << bad.what;
  }
}

TEST(OipTensorsTest, TheShapeIsBoundedBeforeTheContentsAreRead) {
  ModelInferRequest request;
  // Contents that no reader gets through: what is said is about the shape.
  AddRaw(request, "text", "BYTES", {9}, "broken");
  EXPECT_THAT(Text(DecodeInfer(request, Classifier(), 8).status()),
              HasSubstr("input text: found 9, expected 1 to 8"));
  request.Clear();
  AddRaw(request, "text", "BYTES", {1}, Framed({"a"}));
  AddRaw(request, "text_pair", "BYTES", {9}, "broken");
  EXPECT_THAT(Text(DecodeInfer(request, Classifier(), 8).status()),
              HasSubstr("input text_pair: found 9, expected 1 to 8"));
  request.Clear();
  AddRaw(request, "input_ids", "INT64", {9, 4}, "broken");
  AddRaw(request, "attention_mask", "INT64", {9, 4}, "broken");
  EXPECT_THAT(Text(DecodeInfer(request, Classifier(), 8).status()),
              HasSubstr("input input_ids: found 9, expected 1 to 8"));
}

TEST(OipTensorsTest, MalformedMatricesAreNamed) {
  for (const std::vector<int64_t>& shape :
       std::vector<std::vector<int64_t>>{{3}, {1, 1}, {2, 3}, {-1, -3}, {1 << 20, 1 << 20}}) {
    ModelInferRequest request;
    AddRaw(request, "input_ids", "INT64", shape, Packed({1, 2, 3}));
    const auto inputs = OipInputs::Of(request);
    ASSERT_TRUE(inputs.ok());
    const auto matrix = inputs->Int64Matrix("input_ids");
    EXPECT_EQ(matrix.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Text(matrix.status()), HasSubstr("input_ids"));
  }
}

TEST(OipTensorsTest, InputsMustBeConsistent) {
  ModelInferRequest twice;
  AddRaw(twice, "text", "BYTES", {1}, Framed({"a"}));
  AddRaw(twice, "text", "BYTES", {1}, Framed({"b"}));
  EXPECT_THAT(Text(OipInputs::Of(twice).status()), HasSubstr("twice"));

  ModelInferRequest fewer;
  AddRaw(fewer, "text", "BYTES", {1}, Framed({"a"}));
  fewer.add_inputs()->set_name("text_pair");
  EXPECT_THAT(Text(OipInputs::Of(fewer).status()), HasSubstr("raw_input_contents: found 1"));

  ModelInferRequest both;
  AddRaw(both, "text", "BYTES", {1}, Framed({"a"}));
  both.mutable_inputs(0)->mutable_contents()->add_bytes_contents("a");
  EXPECT_THAT(Text(OipInputs::Of(both).status()), HasSubstr("both contents"));

  ModelInferRequest shared;
  AddRaw(shared, "text", "BYTES", {1}, "");
  (*shared.mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("r");
  EXPECT_THAT(Text(OipInputs::Of(shared).status()), HasSubstr("shared memory"));
}

OipParameterMap One(const std::string& name, const InferParameter& value) {
  OipParameterMap map;
  map[name] = value;
  return map;
}
InferParameter Double(double value) {
  InferParameter parameter;
  parameter.set_double_param(value);
  return parameter;
}
InferParameter Int(int64_t value) {
  InferParameter parameter;
  parameter.set_int64_param(value);
  return parameter;
}
InferParameter String(const std::string& value) {
  InferParameter parameter;
  parameter.set_string_param(value);
  return parameter;
}
InferParameter Bool(bool value) {
  InferParameter parameter;
  parameter.set_bool_param(value);
  return parameter;
}

absl::StatusOr<OipParameters> DecodeParameters(const OipParameterMap& parameters) {
  return dimmer::DecodeParameters(parameters, Task::kClassification);
}

TEST(OipParametersTest, BudgetsComeAsDoubleIntOrString) {
  for (const InferParameter& value : {Double(1), Int(1), String("1"), String("1.0")}) {
    const auto decoded = DecodeParameters(One("tau", value));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->budget.kind, Budget::Kind::kTau);
    EXPECT_EQ(decoded->budget.value, 1.0);
  }
  for (const InferParameter& value : {Double(1e9), Int(1000000000), String("1000000000")}) {
    const auto decoded = DecodeParameters(One("max_flops", value));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->budget.kind, Budget::Kind::kMaxFlops);
    EXPECT_EQ(decoded->budget.max_flops, 1000000000u);
  }
  EXPECT_EQ(DecodeParameters(One("flop_fraction", String("0.5")))->budget.kind,
            Budget::Kind::kFlopFraction);
  EXPECT_EQ(DecodeParameters({})->budget.kind, Budget::Kind::kDefault);
}

TEST(OipParametersTest, BadValuesAreNamed) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<std::pair<std::string, InferParameter>> cases = {
      {"tau", Double(-1)},
      {"tau", Double(2)},
      {"tau", Double(nan)},
      {"tau", String("nan")},
      {"tau", String("bright")},
      {"tau", String("0.1x")},
      {"tau", String("")},
      {"tau", Bool(true)},
      {"tau", InferParameter()},
      {"flop_fraction", Double(0)},
      {"flop_fraction", Double(1.1)},
      {"flop_fraction", Double(infinity)},
      {"max_flops", Int(-5)},
      {"max_flops", Int(0)},
      {"max_flops", Double(1.5)},
      {"max_flops", Double(1e30)},
      {"max_flops", String("-1")},
      {"max_flops", Double(nan)},
      {"timeout", Int(-1)},
      {"truncate", Int(2)},
      {"truncate", String("perhaps")},
      {"flop-fraction", Double(.5)},
      {"Tau", Double(.5)},
  };
  for (const auto& [name, value] : cases) {
    const auto decoded = DecodeParameters(One(name, value));
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument)
        << name << " " << value.ShortDebugString();
    EXPECT_THAT(Text(decoded.status()), HasSubstr("parameters." + name));
  }
  EXPECT_EQ(DecodeParameters(One("min_quality", Double(.9))).status().code(),
            absl::StatusCode::kUnimplemented);
}

TEST(OipParametersTest, TwoBudgetsAreRefusedWithBothNames) {
  const std::vector<std::string> names = {"flop_fraction", "max_flops", "min_quality", "tau"};
  for (size_t a = 0; a < names.size(); ++a) {
    for (size_t b = a + 1; b < names.size(); ++b) {
      OipParameterMap map = One(names[b], Double(.5));  // for max_flops not even a valid value
      map[names[a]] = Double(.5);
      const auto decoded = DecodeParameters(map);
      EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(Text(decoded.status()), HasSubstr("both " + names[a] + " and " + names[b]));
    }
  }
}

TEST(OipParametersTest, TimeoutIsInMicroseconds) {
  EXPECT_EQ(DecodeParameters(One("timeout", Int(1500)))->timeout, std::chrono::microseconds(1500));
  EXPECT_EQ(DecodeParameters(One("timeout", Int(0)))->timeout, std::nullopt);
  const auto most = DecodeParameters(One("timeout", Int(std::numeric_limits<int64_t>::max())));
  ASSERT_TRUE(most.ok());
  EXPECT_GT(std::chrono::steady_clock::now() + *most->timeout, std::chrono::steady_clock::now());
}

TEST(OipParametersTest, WhatTritonClientsAddIsIgnored) {
  OipParameterMap map = One("sequence_id", Int(0));
  map["sequence_start"] = Bool(false);
  map["priority"] = Int(0);
  map["triton_enable_empty_final_response"] = Bool(true);
  map["binary_data_output"] = Bool(true);
  EXPECT_TRUE(DecodeParameters(map).ok());
}

TEST(OipConvertTest, TextsAndPairs) {
  ModelInferRequest request;
  AddRaw(request, "text", "BYTES", {2}, Framed({"a", "b"}));
  AddRaw(request, "text_pair", "BYTES", {2}, Framed({"c", "d"}));
  (*request.mutable_parameters())["truncate"] = Bool(true);
  const auto decoded = DecodeInfer(request, Classifier(), 2);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->texts, ElementsAre("a", "b"));
  EXPECT_THAT(decoded->text_pairs, ElementsAre("c", "d"));
  EXPECT_TRUE(decoded->truncate);
  EXPECT_EQ(decoded->model, "m");
  EXPECT_EQ(decoded->version, "7");
  EXPECT_THAT(Text(DecodeInfer(request, Classifier(), 1).status()), HasSubstr("found 2"));
}

TEST(OipConvertTest, IdsLoseTheirPadding) {
  ModelInferRequest request;
  AddRaw(request, "input_ids", "INT64", {2, 3}, Packed({1, 2, 3, 4, 0, 0}));
  AddRaw(request, "attention_mask", "INT64", {2, 3}, Packed({1, 1, 1, 1, 0, 0}));
  const auto decoded = DecodeInfer(request, Classifier(), 8);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->token_ids, ElementsAre(ElementsAre(1, 2, 3), ElementsAre(4)));
  EXPECT_TRUE(decoded->texts.empty());
}

struct BadIds {
  const char* what;
  std::vector<int64_t> shape, ids, mask_shape, mask;
  const char* named;
};

TEST(OipConvertTest, BadIdsAreNamed) {
  const std::vector<BadIds> cases = {
      {"hole", {1, 3}, {1, 2, 3}, {1, 3}, {1, 0, 1}, "found 1 at [0, 2]"},
      {"left padding", {1, 3}, {0, 2, 3}, {1, 3}, {0, 1, 1}, "found 1 at [0, 1]"},
      {"neither 0 nor 1", {1, 2}, {1, 2}, {1, 2}, {1, 7}, "found 7 at [0, 1]"},
      {"nothing left", {2, 1}, {1, 2}, {2, 1}, {1, 0}, "row 1 masks every token"},
      {"no column", {1, 0}, {}, {1, 0}, {}, "row 0 masks every token"},
      {"no row", {0, 3}, {}, {0, 3}, {}, "found 0"},
      {"other shape", {1, 2}, {1, 2}, {2, 1}, {1, 1}, "expected that of input_ids, [1, 2]"},
      {"id above",
       {1, 2},
       {1, 100},
       {1, 2},
       {1, 1},
       "found 100 at [0, 1], expected an id in [0, 100)"},
      {"id below", {1, 2}, {-1, 2}, {1, 2}, {1, 1}, "found -1 at [0, 0]"},
      {"beyond int32", {1, 1}, {(int64_t{1} << 32) + 1}, {1, 1}, {1}, "found 4294967297"},
      {"too long",
       {1, 5},
       {1, 1, 1, 1, 1},
       {1, 5},
       {1, 1, 1, 1, 1},
       "found 5 tokens in row 0, expected at most 4"},
  };
  for (const BadIds& bad : cases) {
    ModelInferRequest request;
    AddRaw(request, "input_ids", "INT64", bad.shape, Packed(bad.ids));
    AddRaw(request, "attention_mask", "INT64", bad.mask_shape, Packed(bad.mask));
    const auto decoded = DecodeInfer(request, Classifier(), 8);
    ASSERT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument) << bad.what;
    EXPECT_THAT(Text(decoded.status()), HasSubstr(bad.named)) << bad.what;
  }
}

TEST(OipConvertTest, WrongInputsAreNamed) {
  ModelInferRequest none;
  EXPECT_THAT(Text(DecodeInfer(none, Classifier(), 8).status()), HasSubstr("input text"));

  ModelInferRequest unknown;
  AddRaw(unknown, "picture", "BYTES", {1}, Framed({"a"}));
  EXPECT_THAT(Text(DecodeInfer(unknown, Classifier(), 8).status()), HasSubstr("picture"));

  ModelInferRequest mixed;
  AddRaw(mixed, "text", "BYTES", {1}, Framed({"a"}));
  AddRaw(mixed, "input_ids", "INT64", {1, 1}, Packed({1}));
  EXPECT_THAT(Text(DecodeInfer(mixed, Classifier(), 8).status()), HasSubstr("both text"));

  ModelInferRequest no_mask;
  AddRaw(no_mask, "input_ids", "INT64", {1, 1}, Packed({1}));
  EXPECT_THAT(Text(DecodeInfer(no_mask, Classifier(), 8).status()), HasSubstr("attention_mask"));

  ModelInferRequest no_utf8;
  AddRaw(no_utf8, "text", "BYTES", {2}, Framed({"a", "b\xff"}));
  EXPECT_THAT(Text(DecodeInfer(no_utf8, Classifier(), 8).status()),
              HasSubstr("element 1 is not UTF-8 at byte 1"));

  ModelInferRequest ids_for_embedding;
  AddRaw(ids_for_embedding, "input_ids", "INT64", {1, 1}, Packed({1}));
  EXPECT_THAT(Text(DecodeInfer(ids_for_embedding, Embedder(), 8).status()), HasSubstr("input_ids"));
}

TEST(OipConvertTest, OutputsAskedFor) {
  const auto classifier = Classifier();
  const auto embedder = Embedder();
  ModelInferRequest request;
  EXPECT_THAT(*WantedOutputs(request, classifier.model->info()),
              ElementsAre("label", "score", "logits"));
  EXPECT_THAT(*WantedOutputs(request, embedder.model->info()), ElementsAre("embedding"));
  request.add_outputs()->set_name("logits");
  EXPECT_THAT(*WantedOutputs(request, classifier.model->info()), ElementsAre("logits"));
  request.add_outputs()->set_name("logits");
  EXPECT_THAT(Text(WantedOutputs(request, classifier.model->info()).status()), HasSubstr("twice"));
  request.mutable_outputs(1)->set_name("temper");
  EXPECT_THAT(Text(WantedOutputs(request, classifier.model->info()).status()),
              HasSubstr("temper: not an output here, expected of label, score, logits"));
}

TEST(OipConvertTest, AnswersHaveRawContentsAndUsage) {
  const auto classifier = Classifier();
  Response response;
  response.model = "m";
  response.version = "7";
  response.results.resize(2);
  response.results[0].logits = {2, 1};
  response.results[0].scores = {.75, .25};
  response.results[1].logits = {0, 3};
  response.results[1].scores = {.125, .875};
  response.usage.flops = 50;
  response.usage.dense_flops = 200;
  response.usage.tau = .25;
  response.usage.budget_clamped = true;
  inference::ModelInferResponse out;
  EncodeInfer(response, classifier.model->info(), {"label", "score", "logits"}, &out);
  ASSERT_EQ(out.outputs_size(), 3);
  ASSERT_EQ(out.raw_output_contents_size(), 3);
  EXPECT_EQ(out.outputs(0).datatype(), "BYTES");
  EXPECT_EQ(out.raw_output_contents(0), Framed({"no", "yes"}));
  float scores[2];
  ASSERT_EQ(out.raw_output_contents(1).size(), sizeof(scores));
  std::memcpy(scores, out.raw_output_contents(1).data(), sizeof(scores));
  EXPECT_THAT(scores, ElementsAre(.75f, .875f));
  EXPECT_THAT(out.outputs(2).shape(), ElementsAre(2, 2));
  float logits[4];
  ASSERT_EQ(out.raw_output_contents(2).size(), sizeof(logits));
  std::memcpy(logits, out.raw_output_contents(2).data(), sizeof(logits));
  EXPECT_THAT(logits, ElementsAre(2, 1, 0, 3));
  EXPECT_EQ(out.parameters().at("flop_fraction").double_param(), .25);
  EXPECT_EQ(out.parameters().at("flops").int64_param(), 50);
  EXPECT_EQ(out.parameters().at("tau").double_param(), .25);
  EXPECT_TRUE(out.parameters().at("budget_clamped").bool_param());
}

absl::StatusOr<OipParameters> DecodeGeneration(const OipParameterMap& parameters) {
  return dimmer::DecodeParameters(parameters, Task::kGeneration);
}

TEST(OipParametersTest, GenerationsComeAsDoubleIntOrString) {
  for (const InferParameter& value : {Double(7), Int(7), String("7")}) {
    EXPECT_EQ(DecodeGeneration(One("max_tokens", value))->generate.max_tokens, 7u);
    EXPECT_EQ(DecodeGeneration(One("top_k", value))->generate.sampling.top_k, 7u);
    EXPECT_EQ(DecodeGeneration(One("seed", value))->generate.sampling.seed, 7u);
    EXPECT_EQ(DecodeGeneration(One("temperature", value))->generate.sampling.temperature, 7.f);
  }
  EXPECT_EQ(DecodeGeneration(One("top_p", Double(.5)))->generate.sampling.top_p, .5f);
  // 0 would mean no cut.
  EXPECT_GT(DecodeGeneration(One("top_p", Double(1e-60)))->generate.sampling.top_p, 0.f);
  EXPECT_THAT(DecodeGeneration(One("stop", String("\n\n")))->generate.stop, ElementsAre("\n\n"));
  EXPECT_EQ(DecodeGeneration(One("seed", String("18446744073709551615")))->generate.sampling.seed,
            std::numeric_limits<uint64_t>::max());
}

TEST(OipParametersTest, BadGenerationsAreNamed) {
  const std::vector<std::pair<std::string, InferParameter>> cases = {
      {"max_tokens", Int(-1)},
      {"max_tokens", Double(1.5)},
      {"max_tokens", Int(1LL << 32)},
      {"max_tokens", String("many")},
      {"top_k", Int(-1)},
      {"top_k", Double(1e10)},
      {"seed", Int(-1)},
      {"seed", String("18446744073709551616")},
      {"temperature", String("hot")},
      {"temperature", Double(1e39)},
      {"temperature", Bool(true)},
      {"top_p", InferParameter()},
      {"stop", Int(1)},
      {"max_new_tokens", Int(1)},
  };
  for (const auto& [name, value] : cases) {
    const auto decoded = DecodeGeneration(One(name, value));
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument)
        << name << " " << value.ShortDebugString();
    EXPECT_THAT(Text(decoded.status()), HasSubstr("parameters." + name));
  }
}

TEST(OipParametersTest, AClassifierKnowsNoneOfThem) {
  for (const char* name : {"max_tokens", "temperature", "top_k", "top_p", "seed", "stop"}) {
    const auto decoded = DecodeParameters(One(name, String("1")));
    EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(Text(decoded.status()), HasSubstr(std::string("parameters.") + name));
  }
}

}  // namespace
}  // namespace dimmer
