// Every RPC over a real connection, with good input and bad.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/server/server_fixture.h"

namespace dimmer {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class RpcTest : public ServerTest {
 protected:
  void SetUp() override {
    Add(Converted(), "tiny");
    TestBert embedder = Converted();
    embedder.labels = 0;
    embedder.experts = 0;
    Add(embedder, "embedder");
    Start();
  }
  // No call, however bad, harms the server.
  void TearDown() override {
    ASSERT_NE(server_, nullptr);
    EXPECT_TRUE(Classify(Text("still there")).ok());
  }

  void ExpectRefused(const v1::ClassifyRequest& request, StatusCode code, const char* named) {
    const grpc::Status status = Classify(request);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(named));
  }
};

TEST_F(RpcTest, ClassifyAnswersEachTextWithItsUsage) {
  v1::ClassifyRequest request = Text("a b c");
  request.add_texts("");
  request.set_request_id("call 7");
  grpc::ClientContext context;
  v1::ClassifyResponse response;
  const grpc::Status status = inference_->Classify(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.model(), "tiny");
  EXPECT_EQ(response.version(), "1");
  ASSERT_EQ(response.results_size(), 2);
  EXPECT_EQ(response.results(0).usage().prompt_tokens(), 5);  // with [CLS] and [SEP]
  EXPECT_EQ(response.results(1).usage().prompt_tokens(), 2);
  uint64_t flops = 0;
  for (const v1::Classification& result : response.results()) {
    ASSERT_EQ(result.labels_size(), 3);
    float sum = 0;
    for (int i = 0; i < 3; ++i) {
      sum += result.labels(i).score();
      EXPECT_LE(result.labels(i).score(), result.labels(std::max(i - 1, 0)).score());
    }
    EXPECT_NEAR(sum, 1, 1e-5);
    EXPECT_EQ(result.usage().layers_size(), 2);
    EXPECT_EQ(result.usage().layers(1).experts(), 8);
    EXPECT_DOUBLE_EQ(result.usage().tau(), 0.25);  // the package's default
    flops += result.usage().flops();
  }
  EXPECT_EQ(response.usage().flops(), flops);
  EXPECT_LT(flops, response.usage().dense_flops());
  const auto& metadata = context.GetServerTrailingMetadata();
  const auto id = metadata.find("request-id");
  ASSERT_NE(id, metadata.end());
  EXPECT_EQ(std::string(id->second.data(), id->second.size()), "call 7");
}

TEST_F(RpcTest, TopKCutsLabels) {
  v1::ClassifyRequest request = Text("a");
  request.set_top_k(2);
  v1::ClassifyResponse response;
  ASSERT_TRUE(Classify(request, &response).ok());
  EXPECT_EQ(response.results(0).labels_size(), 2);
}

TEST_F(RpcTest, TauZeroIsDenseAndRepeats) {
  v1::ClassifyRequest request = Text("a b c d e f");
  request.mutable_budget()->set_tau(0);
  v1::ClassifyResponse first, again;
  ASSERT_TRUE(Classify(request, &first).ok());
  ASSERT_TRUE(Classify(request, &again).ok());
  EXPECT_EQ(first.usage().flops(), first.usage().dense_flops());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(first.results(0).labels(i).score(), again.results(0).labels(i).score());
  }
}

TEST_F(RpcTest, BadBudgetsAreNamed) {
  const auto with = [](auto set) {
    v1::ClassifyRequest request = Text("a");
    set(*request.mutable_budget());
    return request;
  };
  for (double tau : {-1.0, 2.0, double(NAN), double(INFINITY)}) {
    ExpectRefused(with([&](v1::Budget& b) { b.set_tau(tau); }), StatusCode::INVALID_ARGUMENT,
                  "budget.tau");
  }
  for (double fraction : {0.0, -0.5, 1.5, double(NAN)}) {
    ExpectRefused(with([&](v1::Budget& b) { b.set_flop_fraction(fraction); }),
                  StatusCode::INVALID_ARGUMENT, "budget.flop_fraction");
  }
  ExpectRefused(with([](v1::Budget& b) { b.set_max_flops(1); }), StatusCode::FAILED_PRECONDITION,
                "max_flops");
  ExpectRefused(with([](v1::Budget& b) { b.set_min_quality(.9); }), StatusCode::UNIMPLEMENTED,
                "min_quality");
}

TEST_F(RpcTest, BadRequestsAreNamed) {
  ExpectRefused(Text("a", "void"), StatusCode::NOT_FOUND, "Request for unknown model: ");
  ExpectRefused(Text("a", std::string(500'000, 'x')), StatusCode::NOT_FOUND, "xxx");
  v1::ClassifyRequest request = Text("a");
  request.set_version("9");
  ExpectRefused(request, StatusCode::NOT_FOUND, "9");
  request = Text("a");
  request.clear_texts();
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "texts: found 0");
  for (int i = 0; i < 1025; ++i) request.add_texts("a");
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "texts: found 1025, expected 1 to 1024");
  request = Text("a");
  request.add_text_pairs("b");
  request.add_text_pairs("c");
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "text_pairs: found 2");
  ExpectRefused(Text("a", "embedder"), StatusCode::INVALID_ARGUMENT, "embedder does embedding");
  for (const std::string& id :
       {std::string(129, 'x'), std::string("new\nline"), std::string("gr\xc3\xbc\xc3\x9f")}) {
    request = Text("a");
    request.set_request_id(id);
    ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "request_id");
  }
}

TEST_F(RpcTest, LongTextsAreRefusedOrCut) {
  std::string text;
  for (int i = 0; i < 50'000; ++i) text += "a ";
  ExpectRefused(Text(text), StatusCode::INVALID_ARGUMENT, "50002 tokens, the model takes 40");
  v1::ClassifyRequest request = Text(text);
  request.set_truncate(true);
  v1::ClassifyResponse response;
  ASSERT_TRUE(Classify(request, &response).ok());
  EXPECT_TRUE(response.usage().truncated());
  EXPECT_EQ(response.usage().prompt_tokens(), 40);
}

TEST_F(RpcTest, BytesThatAreNoRequestAreInvalidArguments) {
  const std::string classify = "/dimmer.v1.Inference/Classify";
  const grpc::Status text = CallRaw(classify,
                                    "\x0a\x04tiny\x1a\x03"
                                    "a\xff"
                                    "b");
  EXPECT_EQ(text.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(text.error_message(), "texts[0]: not UTF-8 at byte 1");
  for (const char* method :
       {"/dimmer.v1.Inference/Classify", "/dimmer.v1.Inference/Embed",
        "/dimmer.v1.Inference/Generate", "/dimmer.v1.Inference/Tokenize",
        "/inference.GRPCInferenceService/ModelInfer", "/inference.GRPCInferenceService/ModelReady",
        "/grpc.health.v1.Health/Check"}) {
    EXPECT_EQ(CallRaw(method, std::string(64, '\xff')).error_code(), StatusCode::INVALID_ARGUMENT)
        << method;
  }
  EXPECT_EQ(CallRaw("/dimmer.v1.Inference/Void", "").error_code(), StatusCode::UNIMPLEMENTED);
}

TEST_F(RpcTest, EmbedGivesUnitVectors) {
  for (const char* model : {"embedder", "tiny"}) {
    v1::EmbedRequest request;
    request.set_model(model);
    request.add_texts("a b");
    request.add_texts("c");
    v1::EmbedResponse response;
    grpc::ClientContext context;
    const grpc::Status status = inference_->Embed(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(response.results_size(), 2);
    for (const v1::Embedding& row : response.results()) {
      ASSERT_EQ(row.values_size(), 24);
      const float norm =
          std::inner_product(row.values().begin(), row.values().end(), row.values().begin(), 0.f);
      EXPECT_NEAR(norm, 1, 1e-5);
    }
  }
}

TEST_F(RpcTest, Tokenize) {
  v1::TokenizeRequest request;
  request.set_model("tiny");
  request.add_texts("Ab c!");
  v1::TokenizeResponse response;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(inference_->Tokenize(&context, request, &response).ok());
  }
  EXPECT_THAT(response.results(0).tokens(), ElementsAre("a", "##b", "c", "[UNK]"));
  request.set_add_special_tokens(true);
  {
    grpc::ClientContext context;
    ASSERT_TRUE(inference_->Tokenize(&context, request, &response).ok());
  }
  EXPECT_THAT(response.results(0).tokens(),
              ElementsAre("[CLS]", "a", "##b", "c", "[UNK]", "[SEP]"));
  EXPECT_THAT(response.results(0).ids(), ElementsAre(2, 5, 32, 7, 1, 3));
  request.clear_texts();
  grpc::ClientContext context;
  const grpc::Status status = inference_->Tokenize(&context, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(RpcTest, OpenInferenceMetadata) {
  {
    grpc::ClientContext context;
    inference::ServerMetadataResponse response;
    ASSERT_TRUE(oip_->ServerMetadata(&context, {}, &response).ok());
    EXPECT_EQ(response.name(), "dimmer");
    EXPECT_EQ(response.version(), DIMMER_VERSION);
  }
  inference::ModelMetadataRequest request;
  request.set_name("tiny");
  inference::ModelMetadataResponse response;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(oip_->ModelMetadata(&context, request, &response).ok());
  }
  EXPECT_EQ(response.inputs_size(), 4);
  ASSERT_EQ(response.outputs_size(), 3);
  EXPECT_EQ(response.outputs(2).name(), "logits");
  EXPECT_THAT(response.outputs(2).shape(), ElementsAre(-1, 3));
  request.set_version("2");
  grpc::ClientContext context;
  EXPECT_EQ(oip_->ModelMetadata(&context, request, &response).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(RpcTest, OpenInferenceAgreesWithClassify) {
  inference::ModelInferRequest request;
  request.set_model_name("tiny");
  request.set_id("seven");
  (*request.mutable_parameters())["tau"].set_string_param("0.5");
  auto* text = request.add_inputs();
  text->set_name("text");
  text->set_datatype("BYTES");
  text->add_shape(1);
  text->mutable_contents()->add_bytes_contents("a b c");
  inference::ModelInferResponse response;
  grpc::ClientContext context;
  const grpc::Status status = oip_->ModelInfer(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  v1::ClassifyRequest same = Text("a b c");
  same.mutable_budget()->set_tau(0.5);
  v1::ClassifyResponse wanted;
  ASSERT_TRUE(Classify(same, &wanted).ok());
  EXPECT_EQ(response.id(), "seven");
  ASSERT_EQ(response.raw_output_contents_size(), 3);
  EXPECT_EQ(response.raw_output_contents(0).substr(4), wanted.results(0).labels(0).name());
  float score = 0;
  ASSERT_EQ(response.raw_output_contents(1).size(), sizeof(score));
  std::memcpy(&score, response.raw_output_contents(1).data(), sizeof(score));
  EXPECT_EQ(score, wanted.results(0).labels(0).score());
  EXPECT_EQ(response.parameters().at("flops").int64_param(),
            static_cast<int64_t>(wanted.usage().flops()));

  text->mutable_contents()->set_bytes_contents(0, "a\xff");
  grpc::ClientContext again;
  EXPECT_EQ(oip_->ModelInfer(&again, request, &response).error_code(),
            StatusCode::INVALID_ARGUMENT);
}

TEST_F(RpcTest, ModelsAreDescribed) {
  v1::ListModelsResponse list;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(admin_->ListModels(&context, {}, &list).ok());
  }
  ASSERT_EQ(list.models_size(), 2);
  EXPECT_EQ(list.models(0).name(), "embedder");
  EXPECT_FALSE(list.models(0).converted());
  v1::GetModelRequest request;
  request.set_model("tiny");
  v1::GetModelResponse response;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(admin_->GetModel(&context, request, &response).ok());
  }
  const v1::Model& model = response.model();
  EXPECT_TRUE(model.ready());
  EXPECT_EQ(model.architecture(), "BertForSequenceClassification");
  EXPECT_THAT(model.tasks(), testing::Contains("classification"));
  EXPECT_EQ(model.labels_size(), 3);
  EXPECT_EQ(model.moe_modules_size(), 2);
  EXPECT_EQ(model.moe_modules(1).experts(), 8);
  EXPECT_EQ(model.gate().kind(), "dynamic_k");
  EXPECT_EQ(model.settings().default_tau(), 0.25);
  EXPECT_GE(model.settings().revision(), 1);
  request.set_model("void");
  grpc::ClientContext context;
  const grpc::Status status = admin_->GetModel(&context, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("Request for unknown model"));
}

TEST_F(RpcTest, SetTauHoldsForTheNextAnswerAndTheMetrics) {
  v1::SetTauRequest request;
  request.set_model("tiny");
  request.set_default_tau(0.75);
  request.set_max_tau(0.8);
  v1::SetTauResponse response;
  {
    grpc::ClientContext context;
    const grpc::Status status = admin_->SetTau(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  EXPECT_EQ(response.settings().default_tau(), 0.75);
  v1::ClassifyResponse answer;
  ASSERT_TRUE(Classify(Text("a b"), &answer).ok());
  EXPECT_DOUBLE_EQ(answer.usage().tau(), 0.75);
  v1::ClassifyRequest beyond = Text("a b");
  beyond.mutable_budget()->set_tau(1);
  ASSERT_TRUE(Classify(beyond, &answer).ok());
  EXPECT_DOUBLE_EQ(answer.usage().tau(), 0.8);
  EXPECT_TRUE(answer.usage().budget_clamped());
  EXPECT_THAT(MetricsText(), HasSubstr("dimmer_default_tau{model=\"tiny\",version=\"1\"} 0.75"));

  request.set_if_revision(response.settings().revision() + 1);
  grpc::ClientContext stale;
  EXPECT_EQ(admin_->SetTau(&stale, request, &response).error_code(), StatusCode::ABORTED);
  request.set_if_revision(0);
  request.set_default_tau(NAN);
  grpc::ClientContext bad;
  EXPECT_EQ(admin_->SetTau(&bad, request, &response).error_code(), StatusCode::INVALID_ARGUMENT);
  request.set_model("void");
  grpc::ClientContext unknown;
  EXPECT_EQ(admin_->SetTau(&unknown, request, &response).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(RpcTest, MetricsCountCallsUnderNamesThatTheServerKnows) {
  v1::ClassifyResponse answer;
  ASSERT_TRUE(Classify(Text("a b"), &answer).ok());
  EXPECT_FALSE(Classify(Text("a", "made up by a client")).ok());
  const std::string text = MetricsText();
  EXPECT_THAT(text, HasSubstr("dimmer_requests_total{code=\"OK\",model=\"tiny\",rpc=\"Classify\","
                              "version=\"1\"} 1"));
  EXPECT_THAT(text, HasSubstr("dimmer_requests_total{code=\"NOT_FOUND\",model=\"\","
                              "rpc=\"Classify\",version=\"\"} 1"));
  EXPECT_THAT(text, Not(HasSubstr("made up")));
  EXPECT_THAT(text, HasSubstr("dimmer_flops_total{model=\"tiny\",version=\"1\"} " +
                              std::to_string(answer.usage().flops())));
  EXPECT_THAT(text, HasSubstr("dimmer_experts_run_count{layer=\"1\",model=\"tiny\","
                              "module=\"ffn\",version=\"1\"} 4"));
  EXPECT_THAT(text, HasSubstr("process_resident_memory_bytes "));
}

TEST_F(RpcTest, HttpAnswersProbesAndNothingElse) {
  Get(server_->ports().http, "/v2/health/live");
  Get(server_->ports().http, "/v2/health/ready");
  Get(server_->ports().http, "/v2/health/lively", 404);
  Get(server_->ports().metrics, "/", 404);
}

TEST_F(ServerTest, AFullQueueIsRefusedWithARetryDelay) {
  Add(Slow(), "slow");
  Config config = DefaultConfig();
  config.max_queue_size = 64;
  Start(config);
  const v1::ClassifyRequest heavy = Heavy();
  grpc::ClientContext context;
  v1::ClassifyResponse answer;
  std::promise<grpc::Status> done;
  inference_->async()->Classify(&context, &heavy, &answer,
                                [&](grpc::Status each) { done.set_value(std::move(each)); });
  while (server_->engine().load("slow").running == 0) std::this_thread::yield();
  // Most of its texts still wait, so that no other 64 fit.
  v1::ClassifyRequest request = Text("a", "slow");
  while (request.texts_size() < 64) request.add_texts("a");
  const grpc::Status status = Classify(request);
  context.TryCancel();
  done.get_future().wait();
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("Exceeds maximum queue size"));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_TRUE(details.details(0).Is<google::rpc::RetryInfo>());
  EXPECT_THAT(MetricsText(), HasSubstr("dimmer_rejected_requests_total{model=\"slow\","
                                       "reason=\"queue_full\",version=\"1\"} 1"));
}

TEST_F(ServerTest, ACallLargerThanTheQueueIsNotToldToComeBack) {
  Add(Converted(), "tiny");
  Config config = DefaultConfig();
  config.max_queue_size = 4;
  Start(config);
  v1::ClassifyRequest request = Text("a");
  for (int i = 0; i < 7; ++i) request.add_texts("b");
  const grpc::Status status = Classify(request);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(),
            "the call has 8 sequences, the queue takes 4 in all; send smaller calls");
  EXPECT_TRUE(status.error_details().empty());
  EXPECT_THAT(MetricsText(), Not(HasSubstr("reason=\"queue_full\"")));
  EXPECT_TRUE(Classify(Text("a")).ok());
}

TEST_F(ServerTest, MessagesBeyondTheLimitAreRefused) {
  Add(Converted(), "tiny");
  Config config = DefaultConfig();
  config.grpc_max_message_bytes = 4096;
  Start(config);
  EXPECT_EQ(Classify(Text(std::string(5000, 'a'))).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Classify(Text("a")).ok());
}

}  // namespace
}  // namespace dimmer
