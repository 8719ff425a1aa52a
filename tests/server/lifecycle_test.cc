// Start, failure to start, clients that leave, drain.
#include <fstream>
#include <thread>

#include "engine/util/status.h"
#include "tests/server/server_fixture.h"

namespace dimmer {
namespace {

using grpc::StatusCode;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using testing::HasSubstr;

class LifecycleTest : public ServerTest {
 protected:
  // A call in flight.
  struct Running {
    grpc::ClientContext context;
    v1::ClassifyResponse response;
    std::promise<grpc::Status> promise;
    std::future<grpc::Status> status = promise.get_future();
  };

  // Returns once the model computes it.
  std::unique_ptr<Running> RunHeavy() {
    auto running = std::make_unique<Running>();
    heavy_ = Heavy();
    inference_->async()->Classify(
        &running->context, &heavy_, &running->response,
        [call = running.get()](grpc::Status status) { call->promise.set_value(status); });
    while (server_->engine().load("slow").running == 0) std::this_thread::yield();
    return running;
  }

  HealthCheckResponse::ServingStatus Check(const std::string& service) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    HealthCheckResponse response;
    const grpc::Status status = health_->Check(&context, request, &response);
    if (status.error_code() == StatusCode::NOT_FOUND) return HealthCheckResponse::SERVICE_UNKNOWN;
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.status();
  }

  v1::ClassifyRequest heavy_;
};

TEST_F(LifecycleTest, ABrokenPackageDoesNotDisturbAGoodOne) {
  Add(Converted(), "tiny");
  Add(Converted(), "broken");
  std::ofstream(repository_.Sub("broken/1/model.safetensors"), std::ios::trunc) << "cut";
  Start();
  EXPECT_TRUE(Classify(Text("a")).ok());
  const grpc::Status status = Classify(Text("a", "broken"));
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("model.safetensors"));
  EXPECT_EQ(Check(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(Check("tiny"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Check("broken"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check("dimmer.v1.Inference"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Check("no such"), HealthCheckResponse::SERVICE_UNKNOWN);
  for (const auto& [name, ready] :
       {std::pair<const char*, bool>{"tiny", true}, {"broken", false}, {"void", false}}) {
    grpc::ClientContext context;
    inference::ModelReadyRequest request;
    request.set_name(name);
    inference::ModelReadyResponse response;
    ASSERT_TRUE(oip_->ModelReady(&context, request, &response).ok());
    EXPECT_EQ(response.ready(), ready) << name;
  }
  grpc::ClientContext context;
  v1::ListModelsResponse list;
  ASSERT_TRUE(admin_->ListModels(&context, {}, &list).ok());
  ASSERT_EQ(list.models_size(), 2);
  EXPECT_FALSE(list.models(0).ready());
  EXPECT_THAT(list.models(0).error(), HasSubstr("model.safetensors"));
  const std::string text = MetricsText();
  EXPECT_THAT(text, HasSubstr("dimmer_model_ready{model=\"broken\",version=\"1\"} 0"));
  EXPECT_THAT(text, HasSubstr("dimmer_model_ready{model=\"tiny\",version=\"1\"} 1"));
}

TEST_F(LifecycleTest, OnlyBrokenPackagesAreNotReady) {
  Add(Converted(), "broken");
  std::ofstream(repository_.Sub("broken/1/config.json"), std::ios::trunc) << "{";
  Start();
  EXPECT_EQ(Check(""), HealthCheckResponse::NOT_SERVING);
  Get(server_->ports().http, "/v2/health/live", 200);
  Get(server_->ports().http, "/v2/health/ready", 503);
}

TEST_F(LifecycleTest, ExplicitModeLoadsWhatIsNamed) {
  Add(Converted(), "tiny");
  Add(Converted(), "other");
  Config config = DefaultConfig();
  config.model_control_mode = "explicit";
  config.load_model = {"other"};
  Start(config);
  EXPECT_TRUE(Classify(Text("a", "other")).ok());
  EXPECT_EQ(Classify(Text("a", "tiny")).error_code(), StatusCode::NOT_FOUND);
  server_.reset();
  config.load_model = {"*"};
  Start(config);
  EXPECT_TRUE(Classify(Text("a", "tiny")).ok());
  server_.reset();
  config.load_model = {"void"};
  EXPECT_THAT(std::string(Message(Server::Start(config).status())), HasSubstr("void"));
}

TEST_F(LifecycleTest, RepositoriesMustBeThereAndNotOverlap) {
  Config config = DefaultConfig();
  config.model_repository = {repository_.Sub("nowhere")};
  EXPECT_THAT(std::string(Message(Server::Start(config).status())), HasSubstr("nowhere"));
  Add(Converted(), "tiny");
  config.model_repository = {repository_.path(), repository_.path()};
  EXPECT_THAT(std::string(Message(Server::Start(config).status())), HasSubstr("model tiny"));
}

TEST_F(LifecycleTest, APortInUseIsNamedWithItsFlag) {
  Add(Converted(), "tiny");
  Start();
  const Server::Ports taken = server_->ports();
  const std::vector<std::pair<uint64_t Config::*, std::string>> flags = {
      {&Config::http_port, "--http-port"},
      {&Config::grpc_port, "--grpc-port"},
      {&Config::metrics_port, "--metrics-port"},
      {&Config::admin_port, "--admin-port"}};
  for (int port : {taken.grpc, taken.http}) {
    for (const auto& [field, flag] : flags) {
      Config config = DefaultConfig();
      config.*field = static_cast<uint64_t>(port);
      const auto second = Server::Start(config);
      ASSERT_FALSE(second.ok()) << flag;
      EXPECT_THAT(std::string(Message(second.status())), HasSubstr(flag));
      EXPECT_THAT(std::string(Message(second.status())), HasSubstr(std::to_string(port)));
    }
  }
  EXPECT_TRUE(Classify(Text("a")).ok());
}

TEST_F(LifecycleTest, AClientThatLeavesStopsItsCall) {
  Add(Slow(), "slow");
  Start();
  auto call = RunHeavy();
  call->context.TryCancel();
  EXPECT_EQ(call->status.get().error_code(), StatusCode::CANCELLED);
  while (server_->engine().load("slow").running > 0) std::this_thread::yield();
  EXPECT_TRUE(Classify(Text("a", "slow")).ok());
  // Counted when the model has let go of it, which the wait above does not include.
  const std::string counted =
      "dimmer_requests_total{code=\"CANCELLED\",model=\"slow\",rpc=\"Classify\",version=\"1\"} 1";
  while (MetricsText().find(counted) == std::string::npos) std::this_thread::yield();
}

TEST_F(LifecycleTest, ADeadlineEndsACall) {
  Add(Slow(), "slow");
  Start();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1));
  v1::ClassifyResponse response;
  EXPECT_EQ(inference_->Classify(&context, Heavy(), &response).error_code(),
            StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(LifecycleTest, ATimeoutOfOpenInferenceEndsACall) {
  Add(Slow(), "slow");
  Start();
  inference::ModelInferRequest request;
  request.set_model_name("slow");
  (*request.mutable_parameters())["timeout"].set_int64_param(1);
  auto* text = request.add_inputs();
  text->set_name("text");
  text->set_datatype("BYTES");
  text->add_shape(64);
  const v1::ClassifyRequest heavy = Heavy();
  for (const std::string& each : heavy.texts()) text->mutable_contents()->add_bytes_contents(each);
  grpc::ClientContext context;
  inference::ModelInferResponse response;
  const grpc::Status status = oip_->ModelInfer(&context, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(status.error_message(), "Request timeout expired");
}

TEST_F(LifecycleTest, ADrainAnswersWhatRunsAndRefusesTheRest) {
  Add(Slow(), "slow");
  Add(Converted(), "tiny");
  Start();
  ASSERT_TRUE(Classify(Text("a")).ok());
  grpc::ClientContext watch_context, model_context;
  HealthCheckRequest request;
  HealthCheckResponse response;
  const auto watch = health_->Watch(&watch_context, request);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  request.set_service("tiny");
  const auto model_watch = health_->Watch(&model_context, request);
  ASSERT_TRUE(model_watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);

  auto call = RunHeavy();
  auto stopped =
      std::async(std::launch::async, [&] { return server_->Stop(std::chrono::minutes(10)); });
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  ASSERT_TRUE(model_watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  const grpc::Status refused = Classify(Text("a"));
  EXPECT_EQ(refused.error_code(), StatusCode::UNAVAILABLE);

  EXPECT_TRUE(call->status.get().ok());
  EXPECT_EQ(call->response.results_size(), 64);
  EXPECT_TRUE(stopped.get());
  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(watch->Finish().error_code(), StatusCode::UNAVAILABLE);
  EXPECT_FALSE(model_watch->Read(&response));
}

TEST_F(LifecycleTest, ADrainGivesUpAtItsDeadline) {
  Add(Slow(), "slow");
  Start();
  auto call = RunHeavy();
  EXPECT_FALSE(server_->Stop(std::chrono::nanoseconds(0)));
  EXPECT_FALSE(call->status.get().ok());
}

TEST_F(LifecycleTest, WatchOfAnUnknownServiceStaysOpen) {
  Add(Converted(), "tiny");
  Start();
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service("no such");
  const auto watch = health_->Watch(&context, request);
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  context.TryCancel();
  EXPECT_FALSE(watch->Read(&response));
}

TEST_F(LifecycleTest, SetTauIsKeptOverARestart) {
  Add(Converted(), "tiny");
  TempDirectory state;
  Config config = DefaultConfig();
  config.state_dir = state.path();
  const auto set_tau = [&](const v1::SetTauRequest& request) {
    grpc::ClientContext context;
    v1::SetTauResponse response;
    const grpc::Status status = admin_->SetTau(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.settings();
  };
  v1::SetTauRequest request;
  request.set_model("tiny");
  request.set_default_tau(0.5);
  Start(config);
  const v1::TauSettings set = set_tau(request);
  server_.reset();
  Start(config);
  request.clear_default_tau();
  request.set_dry_run(true);  // only asks
  const v1::TauSettings kept = set_tau(request);
  EXPECT_EQ(kept.default_tau(), 0.5);
  EXPECT_EQ(kept.revision(), set.revision());
}

}  // namespace
}  // namespace dimmer
