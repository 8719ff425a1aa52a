#include "engine/models/bert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/layers/workspace.h"
#include "engine/package/json_fields.h"
#include "engine/package/safetensors.h"
#include "tests/models/test_packages.h"

namespace dimmer {
namespace {

using testing::HasSubstr;

std::unique_ptr<Model> Load(const TestBert& bert) {
  const TempDirectory directory;
  WriteTestBert(bert, directory.path());
  absl::StatusOr<Package> package = Package::Open(directory.path());
  EXPECT_TRUE(package.ok()) << package.status();
  absl::StatusOr<std::unique_ptr<Model>> model = LoadModel(*package);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);  // the package and its files are gone from here on
}

absl::Status LoadStatus(const TestBert& bert, const nlohmann::json& patch) {
  const TempDirectory directory;
  WriteTestBert(bert, directory.path());
  absl::StatusOr<Package> package = Package::Open(directory.path());
  if (!package.ok()) return package.status();
  package->config.merge_patch(patch);
  return LoadModel(*package).status();
}

Sequence Text(const TestBert& bert, size_t tokens, uint32_t seed, double tau,
              Task task = Task::kClassification) {
  Sequence sequence;
  sequence.task = task;
  sequence.ids = RandomIds(bert, tokens, seed);
  sequence.type_ids.assign(tokens, 0);
  for (size_t t = tokens / 2; t < tokens; ++t) sequence.type_ids[t] = 1;
  if (bert.experts > 0) sequence.plan.module_tau.assign(bert.layers, tau);
  return sequence;
}

void RunBatch(const Model& model, std::vector<Sequence>& sequences, size_t threads = 1,
              StepStats* stats = nullptr) {
  ThreadPool pool(threads);
  Workspace workspace;
  StepContext context{pool, workspace, stats};
  std::vector<Sequence*> batch;
  for (Sequence& sequence : sequences) batch.push_back(&sequence);
  model.Forward(batch, context);
}

Sequence RunOne(const Model& model, Sequence sequence, size_t threads = 1) {
  std::vector<Sequence> sequences;
  sequences.push_back(std::move(sequence));
  RunBatch(model, sequences, threads);
  return std::move(sequences[0]);
}

// The same inputs.
Sequence Again(const Sequence& other) {
  Sequence sequence;
  sequence.task = other.task;
  sequence.ids = other.ids;
  sequence.type_ids = other.type_ids;
  sequence.plan = other.plan;
  return sequence;
}

TestBert Converted() {
  TestBert bert;
  bert.experts = 6;  // of 8 neurons
  return bert;
}

TEST(Bert, AnswersBothTasks) {
  const TestBert bert;
  const auto model = Load(bert);
  EXPECT_EQ(model->info().architecture, "BertForSequenceClassification");
  EXPECT_EQ(model->info().labels, (std::vector<std::string>{"class 0", "class 1", "class 2"}));
  EXPECT_EQ(model->info().dtype, "F16");
  EXPECT_FALSE(model->info().converted);
  const Sequence classified = RunOne(*model, Text(bert, 9, 1, 0));
  ASSERT_TRUE(classified.status.ok()) << classified.status;
  EXPECT_TRUE(classified.finished);
  EXPECT_EQ(classified.logits.size(), 3u);
  const Sequence embedded = RunOne(*model, Text(bert, 9, 1, 0, Task::kEmbedding));
  ASSERT_EQ(embedded.embedding.size(), 24u);
  double norm = 0;
  for (float value : embedded.embedding) norm += double{value} * value;
  EXPECT_NEAR(norm, 1, 1e-5);
}

TEST(Bert, CountsParametersAsTheFileDoes) {
  const TestBert bert;
  uint64_t count = 0;
  for (const auto& [name, tensor] : bert.Weights()) count += tensor.values.size();
  EXPECT_EQ(Load(bert)->info().parameters, count);
}

// Names of a bare BertModel, of a classifier and of a checkpoint of 2018.
TEST(Bert, ReadsEveryWayOfNaming) {
  TestBert bert;
  const auto want = RunOne(*Load(bert), Text(bert, 7, 3, 0)).logits;
  bert.old_norms = true;
  EXPECT_EQ(RunOne(*Load(bert), Text(bert, 7, 3, 0)).logits, want);
  bert.prefix = false;
  bert.old_norms = false;
  EXPECT_EQ(RunOne(*Load(bert), Text(bert, 7, 3, 0)).logits, want);
  bert.dtype = DType::kF32;
  EXPECT_EQ(RunOne(*Load(bert), Text(bert, 7, 3, 0)).logits, want);
  bert.labels = 0;
  const auto model = Load(bert);
  EXPECT_EQ(model->info().architecture, "BertModel");
  EXPECT_EQ(RunOne(*model, Text(bert, 7, 3, 0, Task::kEmbedding)).embedding.size(), 24u);
}

TEST(Bert, RefusesWhatItDoesNotCompute) {
  const TestBert bert;
  EXPECT_TRUE(LoadStatus(bert, nlohmann::json::object()).ok());
  struct Case {
    nlohmann::json patch;
    std::string message;
  };
  for (const Case& c : std::vector<Case>{
           {{{"position_embedding_type", "relative_key"}}, "position_embedding_type"},
           {{{"is_decoder", true}}, "is_decoder"},
           {{{"hidden_act", "mish"}}, "\"mish\""},
           {{{"problem_type", "regression"}}, "problem_type"},
           {{{"model_type", "roberta"}}, "model_type"},
           {{{"pruned_heads", {{"0", {1}}}}}, "pruned_heads"},
           {{{"num_attention_heads", 5}}, "a divisor of hidden_size 24"},
           {{{"hidden_size", 1000000000}}, "hidden_size"},
           {{{"hidden_size", 27}}, "found shape [60, 24], expected [60, 27]"},
           {{{"num_hidden_layers", 3}}, "encoder.layer.2"},
           {{{"intermediate_size", 64}}, "intermediate.dense.weight"},
           {{{"vocab_size", -1}}, "vocab_size"},
           {{{"num_labels", 4}}, "num_labels"},
           {{{"id2label", {{"7", "x"}}}}, "id2label"},
           {{{"architectures", {"x"}}, {"layer_norm_eps", "small"}}, "layer_norm_eps"},
       }) {
    const absl::Status status = LoadStatus(bert, c.patch);
    EXPECT_FALSE(status.ok()) << c.patch;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(Bert, NamesTheArchitecturesItKnows) {
  const TestBert bert;
  const TempDirectory directory;
  WriteTestBert(bert, directory.path());
  auto package = Package::Open(directory.path());
  package->architecture = "T5Model";
  const absl::Status status = LoadModel(*package).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("BertForSequenceClassification"));
}

// Overwrites one element of a tensor in its file; the writer itself refuses such values.
void PatchElement(const std::string& path, const std::string& name, size_t index,
                  const std::string& bytes) {
  const auto file = SafetensorsFile::Open(path);
  const TensorView* tensor = (*file)->Find(name);
  ASSERT_NE(tensor, nullptr);
  std::string content = *ReadTextFile(path);
  const std::string_view data(reinterpret_cast<const char*>(tensor->data.data()),
                              tensor->data.size());
  const size_t at = content.find(data);  // random weights: nowhere else
  content.replace(at + index * bytes.size(), bytes.size(), bytes);
  std::ofstream(path, std::ios::binary) << content;
}

TEST(Bert, RefusesNonFiniteWeightsByTensorAndIndex) {
  const std::map<DType, std::string> kNans = {{DType::kF32, std::string("\x00\x00\xc0\x7f", 4)},
                                              {DType::kF16, std::string("\x00\x7e", 2)},
                                              {DType::kBF16, std::string("\xc0\x7f", 2)}};
  for (const std::string name :
       {"bert.embeddings.word_embeddings.weight", "bert.encoder.layer.1.output.dense.weight",
        "classifier.bias", "bert.encoder.layer.0.output.LayerNorm.weight"}) {
    for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      TestBert bert;
      bert.dtype = dtype;
      const TempDirectory directory;
      WriteTestBert(bert, directory.path());
      PatchElement(directory.path() + "/model.safetensors", name, 2, kNans.at(dtype));
      auto package = Package::Open(directory.path());
      const absl::Status status = package.ok() ? LoadModel(*package).status() : package.status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()), HasSubstr(name));
      EXPECT_THAT(std::string(status.message()), HasSubstr("index 2"));
    }
  }
}

TEST(Bert, RefusesBadInputPerSequenceAndAnswersTheOthers) {
  TestBert bert;
  const auto model = Load(bert);
  std::vector<Sequence> batch;
  for (uint32_t i = 0; i < 6; ++i) batch.push_back(Text(bert, 5, i, 0));
  batch[0].ids.clear();
  batch[0].type_ids.clear();
  batch[1].ids[3] = static_cast<int32_t>(bert.vocab_size);
  batch[2].ids[0] = -1;
  batch[3].ids = RandomIds(bert, bert.max_positions + 1, 1);
  batch[3].type_ids.clear();
  batch[4].type_ids[2] = 2;
  RunBatch(*model, batch);
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(batch[i].finished);
    EXPECT_EQ(batch[i].status.code(), absl::StatusCode::kInvalidArgument) << i;
  }
  EXPECT_TRUE(batch[5].status.ok());
  EXPECT_EQ(batch[5].logits, RunOne(*model, Text(bert, 5, 5, 0)).logits);

  bert.labels = 0;
  const Sequence headless = RunOne(*Load(bert), Text(bert, 5, 1, 0));
  EXPECT_EQ(headless.status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(Bert, NoSequencesAtAll) {
  const TestBert bert;
  std::vector<Sequence> none;
  RunBatch(*Load(bert), none);
}

// tau = 0 is the dense path of the same package, bit for bit, alone or among others; and the plain
// checkpoint, whose slabs are cut otherwise, agrees too.
TEST(Bert, TauZeroIsTheDensePath) {
  TestBert plain;
  TestBert converted = Converted();
  converted.router_width = 16;  // no token whose scores are all zero: it would run expert 0 alone
  const auto dense = Load(plain);
  const auto moe = Load(converted);
  for (size_t tokens : {1, 5, 22, 40}) {
    const auto want = RunOne(*dense, Text(plain, tokens, 7, 0)).logits;
    EXPECT_EQ(RunOne(*moe, Text(converted, tokens, 7, 0)).logits, want);
    Sequence tiny = Text(converted, tokens, 7, 1e-300);  // routed, and every expert passes
    EXPECT_EQ(RunOne(*moe, std::move(tiny)).logits, want);
    std::vector<Sequence> mixed;
    mixed.push_back(Text(converted, 13, 1, 0.4));
    mixed.push_back(Text(converted, tokens, 7, 0));
    mixed.push_back(Text(converted, 3, 2, 1));
    RunBatch(*moe, mixed);
    EXPECT_EQ(mixed[1].logits, want);
  }
}

// A request's bits and usage do not depend on its batch or on the number of threads.
TEST(Bert, BitsDoNotDependOnBatchOrThreads) {
  TestBert bert = Converted();
  bert.hidden_size = 40;
  bert.heads = 5;
  bert.intermediate_size = 120;
  bert.experts = 5;  // of 24 neurons: no whole panels
  const auto model = Load(bert);
  std::mt19937 random(11);
  for (int round = 0; round < 12; ++round) {
    std::vector<Sequence> batch;
    const size_t count = 1 + random() % 12;
    for (size_t i = 0; i < count; ++i) {
      const double taus[] = {0, 0, 0.1, 0.3, 0.6, 1};
      batch.push_back(Text(bert, 1 + random() % 40, static_cast<uint32_t>(random()),
                           taus[random() % 6],
                           random() % 3 == 0 ? Task::kEmbedding : Task::kClassification));
      if (random() % 3 == 0) {
        ComputePlan& plan = batch.back().plan;
        plan.kind = ComputePlan::Kind::kQuota;
        plan.module_tau.clear();
        plan.module_weight.assign(bert.layers, 2.5);
        const uint64_t tokens = batch.back().ids.size();
        const CostModel& cost = model->info().cost;
        plan.target_flops = (cost.DenseFlops(tokens) + cost.FloorFlops(tokens)) / 2;
        plan.hard = random() % 2 == 0;
      }
    }
    std::vector<Sequence> alone;
    for (const Sequence& sequence : batch) alone.push_back(RunOne(*model, Again(sequence)));
    for (size_t threads : {1, 2, 3}) {
      std::vector<Sequence> again;
      for (const Sequence& sequence : batch) again.push_back(Again(sequence));
      RunBatch(*model, again, threads);
      for (size_t i = 0; i < count; ++i) {
        ASSERT_TRUE(again[i].status.ok()) << again[i].status;
        ASSERT_EQ(again[i].logits, alone[i].logits) << "threads " << threads;
        ASSERT_EQ(again[i].embedding, alone[i].embedding);
        ASSERT_EQ(again[i].usage.flops, alone[i].usage.flops);
        ASSERT_EQ(again[i].usage.tau, alone[i].usage.tau);
      }
    }
  }
}

TEST(Bert, CountsFlopsExactly) {
  const TestBert bert = Converted();
  const auto model = Load(bert);
  const uint64_t d = 24, ff = 48, experts = 6, w = 5, layers = 2, tokens = 9;
  // By hand: Q, K, V, O; scores and values; FFN; pooler and classifier.
  const uint64_t fixed =
      layers * (tokens * 4 * 2 * d * d + tokens * tokens * 2 * 2 * d) + 2 * d * d + 2 * d * 3;
  const Sequence dense = RunOne(*model, Text(bert, tokens, 1, 0));
  EXPECT_EQ(dense.usage.flops, fixed + layers * tokens * 2 * 2 * d * ff);
  EXPECT_EQ(dense.usage.dense_flops, dense.usage.flops);
  EXPECT_EQ(dense.usage.tau, 0);
  EXPECT_EQ(dense.usage.prompt_tokens, tokens);
  const uint64_t router = layers * tokens * 2 * (d * w + w * experts);
  const Sequence least = RunOne(*model, Text(bert, tokens, 1, 1));
  EXPECT_EQ(least.usage.flops, fixed + router + layers * tokens * 4 * d * (ff / experts));
  EXPECT_EQ(least.usage.tau, 1);
  const Sequence some = RunOne(*model, Text(bert, tokens, 1, 0.4));
  ASSERT_EQ(some.usage.layers.size(), layers);
  uint64_t pairs = 0;
  for (const LayerUsage& layer : some.usage.layers) pairs += layer.expert_runs;
  EXPECT_GT(pairs, layers * tokens);
  EXPECT_LT(pairs, layers * tokens * experts);
  EXPECT_EQ(some.usage.flops, fixed + router + pairs * 4 * d * (ff / experts));
  // Embedding runs no head.
  const Sequence embedded = RunOne(*model, Text(bert, tokens, 1, 0, Task::kEmbedding));
  EXPECT_EQ(embedded.usage.flops, dense.usage.flops - 2 * d * d - 2 * d * 3);
}

TEST(Bert, OneModuleDenseAndOneRouted) {
  const TestBert bert = Converted();
  const auto model = Load(bert);
  Sequence sequence = Text(bert, 8, 1, 0);
  sequence.plan.module_tau = {0, 1};
  sequence = RunOne(*model, std::move(sequence));
  EXPECT_EQ(sequence.usage.layers[0].expert_runs, 8u * 6);
  EXPECT_EQ(sequence.usage.layers[1].expert_runs, 8u);
  EXPECT_EQ(sequence.usage.tau, 0.5);
  EXPECT_EQ(sequence.usage.flops, model->info().cost.DenseFlops(8) -
                                      8 * 5 * model->info().cost.moe[1].pair_flops +
                                      8 * model->info().cost.moe[1].router_flops);
}

TEST(Bert, StatsAddUpToWhatRan) {
  const TestBert bert = Converted();
  const auto model = Load(bert);
  std::vector<Sequence> batch;
  batch.push_back(Text(bert, 8, 1, 0));
  batch.push_back(Text(bert, 11, 2, 0.5));
  StepStats stats;
  RunBatch(*model, batch, 2, &stats);
  EXPECT_EQ(stats.tokens, 19u);
  ASSERT_EQ(stats.modules.size(), 2u);
  for (size_t m = 0; m < 2; ++m) {
    uint64_t tokens = 0, pairs = 0, by_expert = 0;
    for (size_t k = 0; k <= 6; ++k) {
      tokens += stats.modules[m].experts_per_token[k];
      pairs += k * stats.modules[m].experts_per_token[k];
    }
    for (uint64_t count : stats.modules[m].expert_tokens) by_expert += count;
    EXPECT_EQ(tokens, 19u);
    EXPECT_EQ(pairs, by_expert);
    EXPECT_EQ(pairs, batch[0].usage.layers[m].expert_runs + batch[1].usage.layers[m].expert_runs);
  }
}

TEST(Bert, TopKGateRunsExactlyKUnlessDense) {
  TestBert bert = Converted();
  bert.gate = {GateKind::kTopK, 0, 2};
  const auto model = Load(bert);
  EXPECT_EQ(model->info().gate.default_tau, 1);
  EXPECT_EQ(RunOne(*model, Text(bert, 7, 1, 1)).usage.layers[0].expert_runs, 14u);
  EXPECT_EQ(RunOne(*model, Text(bert, 7, 1, 0.01)).usage.layers[1].expert_runs, 14u);
  EXPECT_EQ(RunOne(*model, Text(bert, 7, 1, 0)).usage.layers[0].expert_runs, 42u);
}

class Quota : public testing::Test {
 protected:
  Quota() : bert_(Converted()) {
    bert_.layers = 4;
    model_ = Load(bert_);
  }
  Sequence Ask(size_t tokens, double fraction, bool hard, double min_tau = 0, double max_tau = 1) {
    Sequence sequence = Text(bert_, tokens, 5, 0);
    ComputePlan& plan = sequence.plan;
    plan.kind = ComputePlan::Kind::kQuota;
    plan.module_tau.clear();
    plan.module_weight.assign(bert_.layers, 3);
    plan.target_flops = static_cast<uint64_t>(
        fraction * static_cast<double>(model_->info().cost.DenseFlops(tokens)));
    plan.hard = hard;
    plan.min_tau = min_tau;
    plan.max_tau = max_tau;
    return RunOne(*model_, std::move(sequence));
  }
  TestBert bert_;
  std::unique_ptr<Model> model_;
};

TEST_F(Quota, HardCapsAreExactAndNearlyUsedUp) {
  const CostModel& cost = model_->info().cost;
  for (size_t tokens : {1, 4, 23}) {
    const double floor =
        static_cast<double>(cost.FloorFlops(tokens)) / static_cast<double>(cost.DenseFlops(tokens));
    for (double fraction = floor + 1e-6; fraction < 1; fraction += 0.03) {
      const Sequence got = Ask(tokens, fraction, true);
      ASSERT_TRUE(got.status.ok()) << got.status;
      const auto cap = static_cast<uint64_t>(fraction * static_cast<double>(got.usage.dense_flops));
      EXPECT_LE(got.usage.flops, cap);
      EXPECT_GT(got.usage.flops + 2 * cost.moe[0].pair_flops, cap);
    }
  }
}

TEST_F(Quota, SoftTargetsAreMetToAPair) {
  const Sequence got = Ask(20, 0.8, false);
  EXPECT_NEAR(static_cast<double>(got.usage.flops),
              0.8 * static_cast<double>(got.usage.dense_flops),
              static_cast<double>(model_->info().cost.moe[0].pair_flops));
  EXPECT_GT(got.usage.tau, 0);
  EXPECT_LT(got.usage.tau, 1);
  EXPECT_FALSE(got.usage.budget_clamped);
}

TEST_F(Quota, BoundsWinOverASoftQuota) {
  const Sequence held = Ask(20, 0.99, false, 0.7, 1);
  EXPECT_TRUE(held.usage.budget_clamped);
  EXPECT_GE(held.usage.tau, 0.7);
  const Sequence forced = Ask(20, 0.5, false, 0, 0.05);
  EXPECT_TRUE(forced.usage.budget_clamped);
  EXPECT_LE(forced.usage.tau, 0.05);
  EXPECT_GT(forced.usage.flops, forced.usage.dense_flops / 2);
}

TEST_F(Quota, AHardCapThatMaxTauExcludesIsAFailedPrecondition) {
  const CostModel& cost = model_->info().cost;
  const double floor =
      static_cast<double>(cost.FloorFlops(20)) / static_cast<double>(cost.DenseFlops(20));
  const Sequence got = Ask(20, floor + 1e-6, true, 0, 0.05);
  EXPECT_TRUE(got.finished);
  EXPECT_EQ(got.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(got.status.message()), HasSubstr("floor"));
}

TEST(Bert, StopsCancelledAndLateSequencesAndKeepsTheOthersBits) {
  const TestBert bert = Converted();
  const auto model = Load(bert);
  std::vector<Sequence> batch;
  for (uint32_t i = 0; i < 5; ++i) batch.push_back(Text(bert, 5 + i, i, 0.3));
  const std::atomic<bool> cancelled = true;
  batch[0].cancelled = &cancelled;
  batch[3].deadline = std::chrono::steady_clock::now() - std::chrono::seconds(1);
  RunBatch(*model, batch);
  EXPECT_EQ(batch[0].status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(batch[3].status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(batch[3].status.message(), "Request timeout expired");
  for (uint32_t i : {1u, 2u, 4u}) {
    ASSERT_TRUE(batch[i].status.ok());
    EXPECT_EQ(batch[i].logits, RunOne(*model, Text(bert, 5 + i, i, 0.3)).logits);
  }
}

}  // namespace
}  // namespace dimmer
