// A real server over small random packages, on loopback ports that it picks, and its clients.
#ifndef DIMMER_TESTS_SERVER_SERVER_FIXTURE_H_
#define DIMMER_TESTS_SERVER_SERVER_FIXTURE_H_

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "dimmer/v1/admin.grpc.pb.h"
#include "dimmer/v1/inference.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "inference/open_inference.grpc.pb.h"
#include "server/server.h"
#include "tests/models/test_packages.h"

namespace dimmer {

class ServerTest : public testing::Test {
 protected:
  static TestBert Converted() {
    TestBert bert;
    bert.vocabulary = true;
    bert.experts = 8;
    bert.intermediate_size = 96;
    bert.gate.default_tau = 0.25;
    return bert;
  }

  // A call of 64 long texts takes it a while, even where the compiler optimises.
  static TestBert Slow() {
    TestBert bert = Converted();
    bert.hidden_size = 192;
    bert.intermediate_size = 768;
    bert.layers = 4;
    bert.max_positions = 512;
    return bert;
  }

  // Models of every test: "tiny", converted, with 3 labels. `slow` adds a big one.
  Config DefaultConfig() {
    Config config;
    config.model_repository = {repository_.path()};
    config.address = "127.0.0.1";
    config.http_port = config.grpc_port = config.metrics_port = config.admin_port = 0;
    config.threads = 2;
    return config;
  }

  void Add(const TestBert& bert, const std::string& name) {
    WriteTestRepository(bert, repository_.path(), name);
  }

  void Start() { Start(DefaultConfig()); }
  void Start(const Config& config) {
    auto server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = Connect(server_->ports().grpc);
    inference_ = v1::Inference::NewStub(channel_);
    oip_ = inference::GRPCInferenceService::NewStub(channel_);
    health_ = grpc::health::v1::Health::NewStub(channel_);
    admin_ = v1::Admin::NewStub(Connect(server_->ports().admin));
  }

  static std::shared_ptr<grpc::Channel> Connect(int port) {
    return grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                               grpc::InsecureChannelCredentials());
  }

  static v1::ClassifyRequest Text(const std::string& text, const std::string& model = "tiny") {
    v1::ClassifyRequest request;
    request.set_model(model);
    request.add_texts(text);
    return request;
  }

  // 64 texts of 500 tokens.
  static v1::ClassifyRequest Heavy(const std::string& model = "slow") {
    v1::ClassifyRequest request;
    request.set_model(model);
    std::string text;
    for (int i = 0; i < 498; ++i) text += "a ";
    for (int i = 0; i < 64; ++i) request.add_texts(text);
    request.mutable_budget()->set_tau(0);
    return request;
  }

  grpc::Status Classify(const v1::ClassifyRequest& request, v1::ClassifyResponse* response) {
    grpc::ClientContext context;
    return inference_->Classify(&context, request, response);
  }
  grpc::Status Classify(const v1::ClassifyRequest& request) {
    v1::ClassifyResponse response;
    return Classify(request, &response);
  }

  // A call with any bytes as its message.
  grpc::Status CallRaw(const std::string& method, const std::string& bytes) {
    grpc::GenericStub stub(channel_);
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::ClientContext context;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, method, {}, &request, &response,
                   [&](grpc::Status status) { done.set_value(std::move(status)); });
    return done.get_future().get();
  }

  std::string Get(int port, const std::string& path, int expected = 200) {
    httplib::Client client("127.0.0.1", port);
    const auto answer = client.Get(path);
    EXPECT_TRUE(answer) << path;
    if (!answer) return "";
    EXPECT_EQ(answer->status, expected) << path;
    return answer->body;
  }
  std::string MetricsText() { return Get(server_->ports().metrics, "/metrics"); }

  TempDirectory repository_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> oip_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
  std::unique_ptr<v1::Admin::Stub> admin_;
};

}  // namespace dimmer

#endif  // DIMMER_TESTS_SERVER_SERVER_FIXTURE_H_
