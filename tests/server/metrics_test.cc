#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/process_collector.h"

namespace dimmer {
namespace {

using testing::HasSubstr;
using testing::Not;

class CostedModel : public Model {
 public:
  explicit CostedModel(uint32_t experts, uint32_t layers) {
    for (uint32_t l = 0; l < layers; ++l) {
      info_.cost.moe.push_back({.layer = l, .module = Module::kFfn, .experts = experts});
    }
  }
  const ModelInfo& info() const override { return info_; }
  void Forward(std::span<Sequence* const>, StepContext&) const override {}

 private:
  ModelInfo info_;
};

ServedModel Served(const std::string& name, uint32_t experts, uint32_t layers = 1) {
  return {.name = name,
          .version = "1",
          .model = std::make_shared<CostedModel>(experts, layers),
          .limits = {}};
}

TEST(MetricsTest, SeriesExistBeforeTheFirstRequest) {
  Metrics metrics(Metrics::PerExpert::kAuto);
  metrics.AddModel(Served("m", 3));
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("dimmer_flops_total{model=\"m\",version=\"1\"} 0"));
  EXPECT_THAT(text, HasSubstr("# TYPE dimmer_request_tau histogram"));
  EXPECT_THAT(text, HasSubstr("dimmer_expert_tokens_total{expert=\"2\",layer=\"0\",model=\"m\","
                              "module=\"ffn\",version=\"1\"} 0"));
}

TEST(MetricsTest, StepsAreAddedInBulk) {
  Metrics metrics(Metrics::PerExpert::kAuto);
  metrics.AddModel(Served("m", 4));
  StepStats stats;
  stats.tokens = 6;
  // 2 tokens ran 1 expert, 3 ran 3, 1 ran all 4: 15 runs.
  stats.modules = {{.expert_tokens = {6, 5, 4, 0},
                    .experts_per_token = {0, 2, 0, 3, 1},
                    .non_finite_scores = 1}};
  metrics.OnStep("m", "1", stats, std::chrono::nanoseconds(5));
  metrics.OnStep("m", "1", stats, std::chrono::nanoseconds(5));
  metrics.OnStep("unheard of", "1", stats, std::chrono::nanoseconds(5));
  const std::string text = metrics.Text();
  const std::string labels = "{layer=\"0\",model=\"m\",module=\"ffn\",version=\"1\"";
  EXPECT_THAT(text, HasSubstr("dimmer_experts_run_sum" + labels + "} 30"));
  EXPECT_THAT(text, HasSubstr("dimmer_experts_run_count" + labels + "} 12"));
  EXPECT_THAT(text, HasSubstr("dimmer_experts_run_bucket" + labels + ",le=\"1\"} 4"));
  EXPECT_THAT(text, HasSubstr("dimmer_experts_run_bucket" + labels + ",le=\"2\"} 4"));
  EXPECT_THAT(text, HasSubstr("dimmer_experts_run_bucket" + labels + ",le=\"3\"} 10"));
  EXPECT_THAT(text, HasSubstr("dimmer_experts_run_bucket" + labels + ",le=\"4\"} 12"));
  EXPECT_THAT(text, HasSubstr("dimmer_expert_tokens_total{expert=\"1\",layer=\"0\",model=\"m\","
                              "module=\"ffn\",version=\"1\"} 10"));
  EXPECT_THAT(text, HasSubstr("dimmer_batch_tokens_sum{model=\"m\",version=\"1\"} 12"));
  EXPECT_THAT(text, HasSubstr("dimmer_non_finite_scores_total{model=\"m\",version=\"1\"} 2"));
  EXPECT_THAT(text, Not(HasSubstr("unheard of")));
}

TEST(MetricsTest, PerExpertCountersStayBelowTheLimitOverAllModels) {
  Metrics metrics(Metrics::PerExpert::kAuto);
  metrics.AddModel(Served("a", 1024));
  EXPECT_THAT(metrics.Text(), HasSubstr("dimmer_expert_tokens_total{"));
  metrics.AddModel(Served("b", 512, 2));  // together 2048
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("dimmer_expert_tokens_total{")));
  StepStats stats;
  stats.modules = {{.expert_tokens = std::vector<uint64_t>(1024, 1),
                    .experts_per_token = std::vector<uint64_t>(1025, 0)}};
  metrics.OnStep("a", "1", stats, std::chrono::nanoseconds(5));
  EXPECT_THAT(metrics.Text(), HasSubstr("dimmer_experts_run_count"));
}

TEST(MetricsTest, PerExpertCountersOnAndOff) {
  Metrics on(Metrics::PerExpert::kOn);
  on.AddModel(Served("a", 4096));
  EXPECT_THAT(on.Text(), HasSubstr("expert=\"4095\""));
  Metrics off(Metrics::PerExpert::kOff);
  off.AddModel(Served("a", 4));
  EXPECT_THAT(off.Text(), Not(HasSubstr("dimmer_expert_tokens_total{")));
}

Response Answer(uint64_t flops, uint64_t dense_flops, bool clamped) {
  Response response;
  response.model = "m";
  response.version = "1";
  response.usage.flops = flops;
  response.usage.dense_flops = dense_flops;
  response.usage.tau = .25;
  response.usage.prompt_tokens = 7;
  response.usage.queue_us = 250'000;
  response.usage.budget_clamped = clamped;
  response.results.resize(1);
  response.results[0].usage = response.usage;
  return response;
}

TEST(MetricsTest, AnswersCountTokensFlopsAndTheBudgetsError) {
  Metrics metrics(Metrics::PerExpert::kAuto);
  metrics.AddModel(Served("m", 4));
  metrics.OnAnswer({.kind = Budget::Kind::kFlopFraction, .value = .5}, Answer(55, 100, false));
  metrics.OnAnswer({.kind = Budget::Kind::kFlopFraction, .value = .1}, Answer(40, 100, true));
  metrics.OnAnswer({.kind = Budget::Kind::kMaxFlops, .max_flops = 80}, Answer(76, 100, false));
  metrics.OnAnswer({.kind = Budget::Kind::kMaxFlops, .max_flops = 900}, Answer(100, 100, false));
  metrics.OnAnswer({.kind = Budget::Kind::kTau, .value = .25}, Answer(60, 100, false));
  const std::string text = metrics.Text();
  const std::string labels = "{model=\"m\",version=\"1\"}";
  EXPECT_THAT(text, HasSubstr("dimmer_flops_total" + labels + " 331"));
  EXPECT_THAT(text, HasSubstr("dimmer_dense_flops_total" + labels + " 500"));
  EXPECT_THAT(text, HasSubstr("dimmer_tokens_total{kind=\"prompt\",model=\"m\",version=\"1\"} 35"));
  EXPECT_THAT(text, HasSubstr("dimmer_queue_duration_seconds_sum" + labels + " 1.25"));
  EXPECT_THAT(text, HasSubstr("dimmer_request_tau_bucket{model=\"m\",version=\"1\",le=\"0.2\"} 0"));
  EXPECT_THAT(text,
              HasSubstr("dimmer_request_tau_bucket{model=\"m\",version=\"1\",le=\"0.25\"} 5"));
  EXPECT_THAT(text, HasSubstr("dimmer_budget_error_ratio_count" + labels + " 2"));
  EXPECT_THAT(text,
              HasSubstr("dimmer_budget_error_ratio_bucket{model=\"m\",version=\"1\",le=\"0\"} 1"));
}

TEST(MetricsTest, RequestsCountByRpcAndCode) {
  Metrics metrics(Metrics::PerExpert::kAuto);
  using std::chrono::microseconds;
  metrics.OnRequest("Classify", "m", "1", absl::StatusCode::kOk, microseconds(200));
  metrics.OnRequest("Classify", "m", "1", absl::StatusCode::kOk, microseconds(200));
  metrics.OnRequest("Classify", "m", "1", absl::StatusCode::kResourceExhausted, microseconds(1));
  metrics.OnRequest("Embed", "", "", absl::StatusCode::kNotFound, microseconds(1));
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("dimmer_requests_total{code=\"OK\",model=\"m\",rpc=\"Classify\","
                              "version=\"1\"} 2"));
  EXPECT_THAT(text, HasSubstr("dimmer_requests_total{code=\"NOT_FOUND\",model=\"\",rpc=\"Embed\","
                              "version=\"\"} 1"));
  EXPECT_THAT(text, HasSubstr("dimmer_rejected_requests_total{model=\"m\",reason=\"queue_full\","
                              "version=\"1\"} 1"));
  EXPECT_THAT(text, HasSubstr("dimmer_request_duration_seconds_bucket{model=\"m\","
                              "rpc=\"Classify\",version=\"1\",le=\"0.00025\"} 3"));
}

TEST(ProcessCollectorTest, ReadsThisProcess) {
  Metrics metrics(Metrics::PerExpert::kAuto);
  const ProcessCollector process;
  metrics.AddCollectable(&process);
  const std::string text = metrics.Text();
  for (const char* name : {"process_cpu_seconds_total", "process_resident_memory_bytes",
                           "process_virtual_memory_bytes", "process_start_time_seconds",
                           "process_open_fds", "process_max_fds"}) {
    EXPECT_THAT(text, testing::ContainsRegex(std::string("\n") + name + " [0-9]")) << name;
  }
}

}  // namespace
}  // namespace dimmer
