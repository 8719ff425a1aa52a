// Generations over a real connection: streams that run together, stop, stall and break off.
#include <atomic>
#include <set>
#include <thread>

#include "tests/engine/small_gpt2.h"
#include "tests/server/server_fixture.h"

namespace dimmer {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

constexpr uint32_t kLong = 16000;

class GenerateTest : public ServerTest {
 protected:
  void SetUp() override {
    SmallGpt2{.context = 20000, .end_id = -1}.Write(repository_.path() + "/teller/1");
    Add(Converted(), "tiny");
    Start();
  }
  // For TearDown(), after a test that stopped the server.
  void StartAgain() {
    server_.reset();
    Start();
  }
  // However a stream ended, it holds nothing.
  void TearDown() override {
    ASSERT_NE(server_, nullptr);
    AwaitMetric("dimmer_kv_pages_used{model=\"teller\",version=\"1\"} 0");
    EXPECT_TRUE(Classify(Text("still there")).ok());
  }

  void AwaitMetric(const std::string& line) {
    while (MetricsText().find(line + "\n") == std::string::npos) std::this_thread::yield();
  }

  static v1::GenerateRequest Story(uint32_t tokens, uint64_t seed = 1) {
    v1::GenerateRequest request;
    request.set_model("teller");
    request.set_prompt("once upon a time");
    request.set_max_tokens(tokens);
    request.set_temperature(1);
    request.set_seed(seed);
    return request;
  }

  struct Told {
    std::string text;
    std::vector<uint32_t> ids;
    v1::GenerateResponse last;
    grpc::Status status;
  };
  Told Tell(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto reader = inference_->Generate(&context, request);
    return Read(*reader);
  }
  static Told Read(grpc::ClientReader<v1::GenerateResponse>& reader) {
    Told told;
    while (reader.Read(&told.last)) {
      told.text += told.last.text();
      told.ids.insert(told.ids.end(), told.last.token_ids().begin(), told.last.token_ids().end());
    }
    told.status = reader.Finish();
    return told;
  }

  static inference::ModelInferRequest Infer(const std::string& id, uint32_t tokens) {
    inference::ModelInferRequest request;
    request.set_model_name("teller");
    request.set_id(id);
    (*request.mutable_parameters())["max_tokens"].set_int64_param(tokens);
    (*request.mutable_parameters())["temperature"].set_double_param(1);
    (*request.mutable_parameters())["seed"].set_int64_param(1);
    auto* text = request.add_inputs();
    text->set_name("text");
    text->set_datatype("BYTES");
    text->add_shape(1);
    text->mutable_contents()->add_bytes_contents("once upon a time");
    return request;
  }
};

TEST_F(GenerateTest, StreamsAndSaysTheRestAtTheEnd) {
  const Told told = Tell(Story(40));
  ASSERT_TRUE(told.status.ok()) << told.status.error_message();
  EXPECT_EQ(told.last.finish_reason(), v1::LENGTH);
  EXPECT_EQ(told.last.usage().output_tokens(), 40u);
  EXPECT_EQ(told.ids.size(), 40u);
  EXPECT_EQ(told.last.seed(), 1u);
  EXPECT_EQ(told.last.model(), "teller");
  EXPECT_EQ(told.last.text(), "");
}

TEST_F(GenerateTest, StreamsTogetherAreAsAlone) {
  std::vector<Told> told(16);
  std::vector<std::thread> threads;
  threads.reserve(told.size());
  for (size_t i = 0; i < told.size(); ++i) {
    threads.emplace_back([&, i] { told[i] = Tell(Story(20 + 7 * uint32_t(i % 5), i + 1)); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < told.size(); ++i) {
    ASSERT_TRUE(told[i].status.ok()) << told[i].status.error_message();
    EXPECT_EQ(told[i].ids, Tell(Story(20 + 7 * uint32_t(i % 5), i + 1)).ids);
  }
}

TEST_F(GenerateTest, ClientsThatLeaveAnyTime) {
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 4; ++round) {
        grpc::ClientContext context;
        const auto reader = inference_->Generate(&context, Story(kLong));
        v1::GenerateResponse message;
        for (int read = 0; read < i * round; ++read) reader->Read(&message);
        context.TryCancel();
        EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(GenerateTest, ASlowReaderIsWaitedForAndLosesNothing) {
  const Told wanted = Tell(Story(8000));
  ASSERT_TRUE(wanted.status.ok());
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto channel =
      grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server_->ports().grpc),
                                grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::Inference::NewStub(channel);
  grpc::ClientContext context;
  const auto reader = stub->Generate(&context, Story(8000));
  v1::GenerateResponse first;
  ASSERT_TRUE(reader->Read(&first));
  // As long and later, it is done first.
  EXPECT_EQ(Tell(Story(8000)).ids, wanted.ids);
  EXPECT_THAT(MetricsText(),
              HasSubstr("dimmer_requests_total{code=\"OK\",model=\"teller\",rpc=\"Generate\","
                        "version=\"1\"} 2\n"));
  Told told = Read(*reader);
  ASSERT_TRUE(told.status.ok()) << told.status.error_message();
  told.ids.insert(told.ids.begin(), first.token_ids().begin(), first.token_ids().end());
  EXPECT_EQ(told.ids, wanted.ids);
}

TEST_F(GenerateTest, ADeadlineInTheMiddleIsTheStatus) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const auto reader = inference_->Generate(&context, Story(kLong));
  EXPECT_EQ(Read(*reader).status.error_code(), StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(GenerateTest, StopEndsWhatStreamsAndRefusesTheRest) {
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, Story(kLong));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server_->Stop(std::chrono::milliseconds(200));
  const grpc::Status status = Read(*reader).status;
  EXPECT_TRUE(status.error_code() == StatusCode::UNAVAILABLE ||
              status.error_code() == StatusCode::CANCELLED)
      << status.error_code() << " " << status.error_message();
  StartAgain();
}

TEST_F(GenerateTest, StreamInferAnswersEachRequestUnderItsId) {
  grpc::ClientContext context;
  const auto stream = oip_->ModelStreamInfer(&context);
  std::set<std::string> open;
  std::thread writer([&] {
    for (int i = 0; i < 100; ++i) stream->Write(Infer(std::to_string(i), 5 + uint32_t(i) % 20));
    inference::ModelInferRequest bad = Infer("bad", 5);
    bad.set_model_name("void");
    stream->Write(bad);
    stream->WritesDone();
  });
  for (int i = 0; i < 100; ++i) open.insert(std::to_string(i));
  open.insert("bad");
  inference::ModelStreamInferResponse message;
  while (stream->Read(&message)) {
    const inference::ModelInferResponse& answer = message.infer_response();
    if (answer.id() == "bad") {
      EXPECT_THAT(message.error_message(), HasSubstr("Request for unknown model"));
      open.erase("bad");
      continue;
    }
    EXPECT_EQ(message.error_message(), "");
    ASSERT_TRUE(open.contains(answer.id())) << answer.id();
    const auto& parameters = answer.parameters();
    if (!parameters.at("triton_final_response").bool_param()) continue;
    EXPECT_EQ(parameters.at("output_tokens").int64_param(), 5 + std::stoi(answer.id()) % 20);
    open.erase(answer.id());
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(open.empty());
}

TEST_F(GenerateTest, StreamInferThatBreaksOff) {
  for (int reads = 0; reads < 6; ++reads) {
    grpc::ClientContext context;
    const auto stream = oip_->ModelStreamInfer(&context);
    for (const char* id : {"a", "b", "c"}) stream->Write(Infer(id, kLong));
    inference::ModelStreamInferResponse message;
    for (int i = 0; i < reads; ++i) stream->Read(&message);
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
  }
}

TEST_F(GenerateTest, StopEndsAnIdleStreamInfer) {
  grpc::ClientContext context;
  const auto stream = oip_->ModelStreamInfer(&context);
  stream->Write(Infer("a", 3));
  inference::ModelStreamInferResponse message;
  do {
    ASSERT_TRUE(stream->Read(&message));
  } while (!message.infer_response().parameters().at("triton_final_response").bool_param());
  EXPECT_TRUE(server_->Stop(std::chrono::seconds(60)));
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::UNAVAILABLE);
  StartAgain();
}

}  // namespace
}  // namespace dimmer
