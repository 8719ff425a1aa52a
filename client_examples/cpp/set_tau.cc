// Sets a model's default tau as an operator, shows it in the next answer, and puts it back.
// Exit status: 0; 1 where a call failed; 2 where it was called wrongly.
#include <fmt/format.h>
#include <google/protobuf/util/time_util.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

#include "dimmer/v1/admin.grpc.pb.h"
#include "dimmer/v1/inference.grpc.pb.h"
#include "retry.h"
#include "usage.h"

namespace {

using dimmer::v1::Admin;
using dimmer::v1::Inference;
using dimmer::v1::SetTauRequest;
using dimmer::v1::SetTauResponse;
using dimmer::v1::TauSettings;
using google::protobuf::util::TimeUtil;

struct Options {
  double tau = 0;
  std::string admin = "127.0.0.1:8003";
  std::string target = "127.0.0.1:8001";
  std::string model = "emotion";
  bool dry_run = false;
  bool keep = false;
};

bool Check(const grpc::Status& status, const char* what) {
  if (status.ok()) return true;
  fmt::print(stderr, "set_tau: {}: error {}: {}\n", what, static_cast<int>(status.error_code()),
             status.error_message());
  return false;
}

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
}

bool GetSettings(Admin::Stub& stub, const std::string& model, TauSettings* settings) {
  grpc::ClientContext context;
  SetDeadline(context);
  dimmer::v1::GetModelRequest request;
  request.set_model(model);
  dimmer::v1::GetModelResponse response;
  if (!Check(stub.GetModel(&context, request, &response), "GetModel")) return false;
  *settings = response.model().settings();
  return true;
}

bool SetTau(Admin::Stub& stub, const SetTauRequest& request, SetTauResponse* response) {
  grpc::ClientContext context;
  SetDeadline(context);
  return Check(stub.SetTau(&context, request, response), "SetTau");
}

void ShowPrediction(double tau, const SetTauResponse& response) {
  if (!response.has_predicted()) return;
  const dimmer::v1::Prediction& told = response.predicted();
  fmt::print("predicted at {}: {:.1f}% of the dense FLOPs, {} {:.4f} [{:.4f}, {:.4f}]\n", tau,
             100 * told.flop_fraction(), told.metric(), told.quality(), told.quality_low(),
             told.quality_high());
}

bool ShowNextAnswer(const Options& options) {
  const auto channel = grpc::CreateChannel(options.target, grpc::InsecureChannelCredentials());
  const auto stub = Inference::NewStub(channel);
  dimmer::v1::ClassifyRequest request;  // no budget: the default
  request.set_model(options.model);
  request.add_texts("i feel so happy and loved today");
  dimmer::v1::ClassifyResponse answer;
  const grpc::Status status = dimmer_example::CallWithRetry(
      [&](grpc::ClientContext& context) { return stub->Classify(&context, request, &answer); },
      dimmer_example::Seconds(30));
  if (!Check(status, "Classify")) return false;
  fmt::print("next answer: {}, {}\n", answer.results(0).labels(0).name(),
             dimmer_example::Describe(answer.usage()));
  return true;
}

// Refused with ABORTED if somebody else has changed the settings since `revision`: theirs then
// stay. A default that was temporary stays so, until the same time.
bool PutBack(Admin::Stub& stub, const std::string& model, const TauSettings& before,
             uint64_t revision) {
  SetTauRequest request;
  request.set_model(model);
  request.set_default_tau(before.default_tau());
  request.set_if_revision(revision);
  if (before.has_expires()) {
    const auto left = before.expires() - TimeUtil::GetCurrentTime();
    *request.mutable_ttl() = std::max(left, TimeUtil::MillisecondsToDuration(1));
  }
  SetTauResponse response;
  if (!SetTau(stub, request, &response)) return false;
  fmt::print("put back: default_tau {}, revision {}\n", response.settings().default_tau(),
             response.settings().revision());
  return true;
}

int Run(const Options& options) {
  const auto channel = grpc::CreateChannel(options.admin, grpc::InsecureChannelCredentials());
  const auto stub = Admin::NewStub(channel);
  TauSettings before;
  if (!GetSettings(*stub, options.model, &before)) return 1;
  fmt::print("before: default_tau {}, revision {}\n", before.default_tau(), before.revision());

  SetTauRequest request;
  request.set_model(options.model);
  request.set_default_tau(options.tau);
  request.set_if_revision(before.revision());  // compare-and-set: else ABORTED
  request.set_dry_run(true);
  SetTauResponse response;
  if (!SetTau(*stub, request, &response)) return 1;
  ShowPrediction(options.tau, response);
  if (options.dry_run) return 0;

  request.set_dry_run(false);
  // If this program dies before it puts things back, the ttl does.
  if (!options.keep) *request.mutable_ttl() = TimeUtil::SecondsToDuration(60);
  if (!SetTau(*stub, request, &response)) return 1;
  const uint64_t revision = response.settings().revision();
  fmt::print("set: default_tau {}, revision {}\n", response.settings().default_tau(), revision);
  const bool answered = ShowNextAnswer(options);
  const bool done = options.keep || PutBack(*stub, options.model, before, revision);
  return answered && done ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{"Sets a model's default tau, shows it in the next answer, and puts it back."};
  app.add_option("tau", options.tau, "The new default, in [0, 1]")->required();
  app.add_option("--admin", options.admin, "Admin port, HOST:PORT")->capture_default_str();
  app.add_option("--target", options.target, "gRPC port, HOST:PORT")->capture_default_str();
  app.add_option("--model", options.model, "A classifier")->capture_default_str();
  app.add_flag("--dry-run", options.dry_run, "Stop after the prediction");
  app.add_flag("--keep", options.keep, "Leave the new default in force");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return Run(options);
}
