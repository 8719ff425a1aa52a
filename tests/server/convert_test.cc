// Between the engine's types and messages, and from absl to gRPC statuses.
#include "server/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/util/status.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/grpc_status.h"

namespace dimmer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Names(const google::protobuf::RepeatedPtrField<v1::Label>& labels) {
  std::vector<std::string> names;
  for (const v1::Label& label : labels) names.push_back(label.name());
  return names;
}

TEST(ConvertTest, Budgets) {
  v1::Budget budget;
  EXPECT_EQ(ToBudget(budget).kind, Budget::Kind::kDefault);
  budget.set_tau(.5);
  EXPECT_EQ(ToBudget(budget).kind, Budget::Kind::kTau);
  EXPECT_EQ(ToBudget(budget).value, .5);
  budget.set_flop_fraction(.25);
  EXPECT_EQ(ToBudget(budget).kind, Budget::Kind::kFlopFraction);
  EXPECT_EQ(ToBudget(budget).value, .25);
  budget.set_max_flops(std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(ToBudget(budget).kind, Budget::Kind::kMaxFlops);
  EXPECT_EQ(ToBudget(budget).max_flops, std::numeric_limits<uint64_t>::max());
  budget.set_min_quality(.9);
  EXPECT_EQ(ToBudget(budget).kind, Budget::Kind::kMinQuality);
}

TEST(ConvertTest, LabelsDescendAndTiesGoByIndex) {
  const std::vector<float> scores = {.1f, .4f, .1f, .4f};
  const std::vector<std::string> labels = {"a", "b", "c"};
  google::protobuf::RepeatedPtrField<v1::Label> all, two, many;
  FromScores(scores, labels, 0, &all);
  FromScores(scores, labels, 2, &two);
  FromScores(scores, labels, 99, &many);
  EXPECT_THAT(Names(all), ElementsAre("b", "LABEL_3", "a", "c"));
  EXPECT_THAT(Names(two), ElementsAre("b", "LABEL_3"));
  EXPECT_EQ(many.size(), 4);
  EXPECT_EQ(all[1].index(), 3);
  EXPECT_EQ(all[1].score(), .4f);
}

TEST(ConvertTest, ScoresThatAreNotNumbersComeLast) {
  const std::vector<float> scores = {NAN, .2f, NAN, .8f};
  google::protobuf::RepeatedPtrField<v1::Label> all;
  FromScores(scores, {"a", "b", "c", "d"}, 0, &all);
  EXPECT_THAT(Names(all), ElementsAre("d", "b", "a", "c"));
}

TEST(ConvertTest, UsageHasTheMeanPerToken) {
  Usage usage;
  usage.flops = 10;
  usage.dense_flops = 20;
  usage.tau = .5;
  usage.prompt_tokens = 4;
  usage.layers = {{.layer = 3, .module = Module::kO, .experts = 8, .expert_runs = 10}};
  usage.queue_us = 1;
  usage.compute_us = 2;
  usage.budget_clamped = usage.truncated = true;
  v1::Usage out;
  FromUsage(usage, &out);
  ASSERT_EQ(out.layers_size(), 1);
  EXPECT_EQ(out.layers(0).layer(), 3);
  EXPECT_EQ(out.layers(0).module(), "o");
  EXPECT_EQ(out.layers(0).experts(), 8);
  EXPECT_EQ(out.layers(0).experts_run(), 2.5);
  EXPECT_EQ(out.flops(), 10);
  EXPECT_TRUE(out.budget_clamped());
  EXPECT_TRUE(out.truncated());
  EXPECT_FALSE(out.degraded());
  v1::Usage none;
  FromUsage({.layers = {{.experts = 2}}}, &none);
  EXPECT_EQ(none.layers(0).experts_run(), 0);
}

TEST(ConvertTest, TauChanges) {
  v1::SetTauRequest request;
  request.set_default_tau(0);
  v1::LayerTau* layer = request.add_layers();
  layer->set_layer(2);
  layer->set_tau(.5);
  request.mutable_ttl()->set_seconds(1);
  request.mutable_ttl()->set_nanos(500);
  request.set_if_revision(9);
  const auto change = ToTauChange(request);
  ASSERT_TRUE(change.ok()) << change.status();
  EXPECT_EQ(change->default_tau, 0.0);
  EXPECT_EQ(change->min_tau, std::nullopt);
  ASSERT_EQ(change->layers.size(), 1);
  EXPECT_EQ(change->layers[0].module, Module::kFfn);
  EXPECT_EQ(change->ttl, std::chrono::nanoseconds(1'000'000'500));
  EXPECT_EQ(change->if_revision, 9);

  layer->set_module("nose");
  EXPECT_THAT(std::string(Message(ToTauChange(request).status())),
              HasSubstr("layers[0].module: found \"nose\""));
  layer->set_module("q");
  for (const auto& [seconds, nanos] : {std::pair<int64_t, int32_t>{-1, 0},
                                       {0, -1},
                                       {0, 1'000'000'000},
                                       {std::numeric_limits<int64_t>::max(), 0}}) {
    request.mutable_ttl()->set_seconds(seconds);
    request.mutable_ttl()->set_nanos(nanos);
    EXPECT_EQ(ToTauChange(request).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ConvertTest, OnlyModulesThatAreSetAreListed) {
  CostModel cost;
  cost.moe = {{.layer = 0, .module = Module::kFfn, .experts = 4},
              {.layer = 1, .module = Module::kFfn, .experts = 4}};
  TauState state;
  state.settings.layer_tau = {-1, .25};
  state.settings.revision = 3;
  state.expires = std::chrono::system_clock::time_point(std::chrono::milliseconds(1500));
  v1::TauSettings out;
  FromTauState(state, cost, &out);
  ASSERT_EQ(out.layers_size(), 1);
  EXPECT_EQ(out.layers(0).layer(), 1);
  EXPECT_EQ(out.layers(0).tau(), .25);
  EXPECT_EQ(out.revision(), 3);
  EXPECT_EQ(out.expires().seconds(), 1);
  EXPECT_EQ(out.expires().nanos(), 500'000'000);
}

TEST(GrpcStatusTest, CodesAndMessagesCross) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  const grpc::Status status = ToGrpcStatus(absl::NotFoundError("Request for unknown model: x"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "Request for unknown model: x");
  EXPECT_TRUE(status.error_details().empty());
  EXPECT_EQ(CodeName(absl::StatusCode::kFailedPrecondition), "FAILED_PRECONDITION");
}

TEST(GrpcStatusTest, AFullQueueSaysWhenToComeBack) {
  const grpc::Status status =
      ToGrpcStatus(absl::ResourceExhaustedError("Exceeds maximum queue size"));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(details.details(0).UnpackTo(&retry));
  EXPECT_GT(retry.retry_delay().nanos(), 0);
}

TEST(GrpcStatusTest, WhatAClientSentDoesNotFloodItsHeaders) {
  std::string name(1022, 'x');
  for (int i = 0; i < 100'000; ++i) name += "ü";
  const grpc::Status status = ToGrpcStatus(absl::NotFoundError(name));
  EXPECT_EQ(status.error_message(), std::string(1022, 'x') + "ü ...");
}

}  // namespace
}  // namespace dimmer
