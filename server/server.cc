#include "server/server.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "engine/util/status.h"
#include "server/admin_service.h"
#include "server/background.h"
#include "server/engine_collector.h"
#include "server/grpc_server.h"
#include "server/health_service.h"
#include "server/http_server.h"
#include "server/inference_service.h"
#include "server/metrics.h"
#include "server/oip_service.h"
#include "server/process_collector.h"
#include "server/readiness.h"
#include "server/repository_loader.h"

namespace dimmer {
namespace {

constexpr const char* kLoopback = "127.0.0.1";
// Of a drain, for calls whose bytes are on their way: gRPC, once shut down, would end them with
// CANCELLED, which tells a client nothing. They are refused with UNAVAILABLE.
constexpr std::chrono::milliseconds kLateCalls{100};
constexpr size_t kMaxBackgroundTasks = 256;

Metrics::PerExpert PerExpertMode(const std::string& name) {
  if (name == "on") return Metrics::PerExpert::kOn;
  if (name == "off") return Metrics::PerExpert::kOff;
  return Metrics::PerExpert::kAuto;
}

EngineOptions ToEngineOptions(const Config& config) {
  EngineOptions options;
  options.threads = static_cast<uint32_t>(config.threads);
  options.workers = static_cast<uint32_t>(config.workers);
  options.max_queue_size = static_cast<uint32_t>(config.max_queue_size);
  options.reader_timeout = std::chrono::seconds(config.reader_timeout_secs);
  options.state_dir = config.state_dir;
  return options;
}

}  // namespace

// In the order of construction: each part uses only those above it, and goes before them.
class Server::Parts {
 public:
  Parts(const Config& config, std::unique_ptr<Metrics> own_metrics,
        std::unique_ptr<Engine> own_engine)
      : metrics(std::move(own_metrics)),
        engine(std::move(own_engine)),
        readiness(engine.get()),
        engine_gauges(engine.get()),
        tokenizing(kMaxBackgroundTasks),
        changes(kMaxBackgroundTasks),
        shared{.readiness = &readiness, .metrics = metrics.get()},
        health(shared),
        inference(engine.get(), &tokenizing, shared, config.max_texts),
        oip(engine.get(), shared, config.id, config.max_texts),
        admin(engine.get(), &changes, shared) {}

  std::unique_ptr<Metrics> metrics;  // the engine reports to it
  std::unique_ptr<Engine> engine;
  Readiness readiness;
  EngineCollector engine_gauges;
  ProcessCollector process_gauges;
  Background tokenizing, changes;  // clients' calls do not hold up the operator's
  CallShared shared;
  HealthService health;
  InferenceService inference;
  OipService oip;
  AdminService admin;
  HttpServer http, scrape;
  std::unique_ptr<grpc::Server> data_server, admin_server;
};

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Config& config) {
  std::unique_ptr<Server> server(new Server(config));
  auto metrics = std::make_unique<Metrics>(PerExpertMode(config.metrics_per_expert));
  DIMMER_ASSIGN_OR_RETURN(auto engine, Engine::Create(ToEngineOptions(config), metrics.get()));
  server->parts_ = std::make_unique<Parts>(config, std::move(metrics), std::move(engine));
  Parts& parts = *server->parts_;
  DIMMER_RETURN_IF_ERROR(server->StartHttp());
  DIMMER_RETURN_IF_ERROR(LoadRepositories(config, *parts.engine));
  for (const ModelStatus& model : parts.engine->Models()) {
    if (model.served != nullptr) parts.metrics->AddModel(*model.served);
  }
  parts.readiness.SetPhase(Readiness::Phase::kServing);
  DIMMER_RETURN_IF_ERROR(server->StartGrpc());
  return server;
}

Server::Server(const Config& config) : config_(config) {}

Server::~Server() { Stop(std::chrono::nanoseconds(0)); }

Engine& Server::engine() { return *parts_->engine; }

absl::Status Server::StartHttp() {
  Parts& parts = *parts_;
  parts.metrics->AddCollectable(&parts.engine_gauges);
  parts.metrics->AddCollectable(&parts.process_gauges);
  parts.http.Route("/v2/health/live", [] { return HttpAnswer{}; });
  parts.http.Route("/v2/health/ready", [&parts] {
    return HttpAnswer{.status = parts.readiness.Reachable() ? 200 : 503, .body = {}};
  });
  parts.scrape.Route("/metrics", [&parts] {
    return HttpAnswer{.status = 200,
                      .body = parts.metrics->Text(),
                      .content_type = "text/plain; version=0.0.4; charset=utf-8"};
  });
  DIMMER_ASSIGN_OR_RETURN(
      ports_.http,
      parts.http.Start(config_.address, static_cast<int>(config_.http_port), "--http-port"));
  DIMMER_ASSIGN_OR_RETURN(
      ports_.metrics, parts.scrape.Start(config_.address, static_cast<int>(config_.metrics_port),
                                         "--metrics-port"));
  return absl::OkStatus();
}

absl::Status Server::StartGrpc() {
  Parts& parts = *parts_;
  // Admin first: when the data port answers, everything is there.
  DIMMER_ASSIGN_OR_RETURN(ListeningGrpcServer admin,
                          StartGrpcServer(kLoopback, static_cast<int>(config_.admin_port),
                                          "--admin-port", {&parts.admin}, config_));
  parts.admin_server = std::move(admin.server);
  ports_.admin = admin.port;
  DIMMER_ASSIGN_OR_RETURN(
      ListeningGrpcServer data,
      StartGrpcServer(config_.address, static_cast<int>(config_.grpc_port), "--grpc-port",
                      {&parts.inference, &parts.oip, &parts.health}, config_));
  parts.data_server = std::move(data.server);
  ports_.grpc = data.port;
  parts.readiness.SetListening();
  return absl::OkStatus();
}

std::string Server::Describe() const {
  return fmt::format("http {}, grpc {}, metrics {}, admin {}",
                     HostPort(config_.address, ports_.http), HostPort(config_.address, ports_.grpc),
                     HostPort(config_.address, ports_.metrics), HostPort(kLoopback, ports_.admin));
}

bool Server::Stop(std::chrono::nanoseconds patience) {
  if (parts_ == nullptr || std::exchange(stopped_, true)) return true;
  Parts& parts = *parts_;
  const auto steady_deadline = std::chrono::steady_clock::now() + patience;
  const auto deadline = std::chrono::system_clock::now() +
                        std::chrono::duration_cast<std::chrono::system_clock::duration>(patience);
  parts.readiness.SetPhase(Readiness::Phase::kDraining);
  parts.health.Refresh();
  const bool answered = parts.engine->Drain(steady_deadline);
  std::this_thread::sleep_until(
      std::min(steady_deadline, std::chrono::steady_clock::now() + kLateCalls));
  parts.health.Shutdown();
  parts.admin.Shutdown();
  parts.oip.Shutdown();
  // Waits for what is being sent; at the deadline it cancels what is left, which frees the engine.
  if (parts.data_server != nullptr) parts.data_server->Shutdown(deadline);
  if (parts.admin_server != nullptr) parts.admin_server->Shutdown(deadline);
  parts.http.Stop();
  parts.scrape.Stop();
  return answered;
}

}  // namespace dimmer
