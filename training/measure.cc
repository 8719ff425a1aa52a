#include "training/measure.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "engine/layers/workspace.h"
#include "engine/util/status.h"
#include "engine/util/thread_pool.h"

namespace dimmer {
namespace {

constexpr double kNormal95 = 1.959963984540054;
constexpr size_t kBatchRows = 32;

// What one batch adds to a point.
struct BatchResult {
  absl::Status status;
  uint64_t flops = 0, dense_flops = 0;
  std::vector<uint64_t> expert_runs;
  std::vector<bool> correct;
};

BatchResult RunBatch(const Model& model, std::span<const Example> examples, size_t first_row,
                     double tau, StepContext& context) {
  const size_t modules = model.info().cost.moe.size();
  std::vector<Sequence> sequences(examples.size());
  std::vector<Sequence*> batch;
  for (size_t i = 0; i < examples.size(); ++i) {
    sequences[i].ids = examples[i].ids;
    sequences[i].type_ids = examples[i].type_ids;
    sequences[i].plan.module_tau.assign(modules, tau);
    batch.push_back(&sequences[i]);
  }
  model.Forward(batch, context);
  BatchResult result;
  result.expert_runs.resize(modules);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Sequence& sequence = sequences[i];
    if (!sequence.status.ok()) {
      result.status = Annotate(sequence.status, fmt::format("row {}", first_row + i + 1));
      return result;
    }
    result.flops += sequence.usage.flops;
    result.dense_flops += sequence.usage.dense_flops;
    for (size_t m = 0; m < modules; ++m) {
      result.expert_runs[m] += sequence.usage.layers[m].expert_runs;
    }
    const auto best = std::max_element(sequence.logits.begin(), sequence.logits.end());
    result.correct.push_back(best - sequence.logits.begin() == examples[i].label);
  }
  return result;
}

}  // namespace

Interval WilsonInterval(uint64_t successes, uint64_t trials) {
  const auto n = static_cast<double>(trials);
  const double p = static_cast<double>(successes) / n;
  const double z2 = kNormal95 * kNormal95;
  const double center = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = kNormal95 / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  // The bounds at 0 and 1 are exact in theory; rounding must not put the value outside.
  return {p, std::clamp(center - half, 0.0, p), std::clamp(center + half, p, 1.0)};
}

Interval PairedDifference(const std::vector<bool>& base, const std::vector<bool>& other) {
  const auto n = static_cast<double>(base.size());
  double sum = 0;
  double squares = 0;
  for (size_t i = 0; i < base.size(); ++i) {
    const double difference = static_cast<double>(other[i]) - static_cast<double>(base[i]);
    sum += difference;
    squares += difference * difference;
  }
  const double mean = sum / n;
  const double half = kNormal95 * std::sqrt(std::max(0.0, squares / n - mean * mean) / n);
  return {mean, mean - half, mean + half};
}

double SweepPoint::flop_fraction() const {
  return static_cast<double>(flops) / static_cast<double>(dense_flops);
}

Interval SweepPoint::accuracy() const {
  return WilsonInterval(std::count(correct.begin(), correct.end(), true), correct.size());
}

std::vector<double> DefaultTaus() {
  return {0,   0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07,
          0.1, 0.13,  0.16,  0.2,   0.25, 0.3,   0.4,  0.5,  0.7,  1};
}

absl::StatusOr<std::vector<SweepPoint>> MeasureSweep(
    const Model& model, std::span<const Example> examples, std::span<const double> taus,
    uint32_t threads, const std::function<void(const SweepPoint&)>& on_tau) {
  if (examples.empty()) return absl::InvalidArgumentError("no rows to measure on");
  const size_t batches = (examples.size() + kBatchRows - 1) / kBatchRows;
  uint64_t tokens = 0;
  for (const Example& example : examples) tokens += example.ids.size();
  ThreadPool pool(threads);
  // One engine thread per batch: a batch is too small to be worth sharing.
  std::vector<Workspace> workspaces(pool.threads());
  std::vector<SweepPoint> sweep;
  for (double tau : taus) {
    std::vector<BatchResult> results(batches);
    pool.ParallelFor(batches, [&](size_t index, size_t thread) {
      ThreadPool alone(1);
      StepContext context{alone, workspaces[thread], nullptr};
      const size_t begin = index * kBatchRows;
      const size_t count = std::min(kBatchRows, examples.size() - begin);
      results[index] = RunBatch(model, examples.subspan(begin, count), begin, tau, context);
    });
    SweepPoint point;
    point.tau = tau;
    std::vector<uint64_t> runs(model.info().cost.moe.size(), 0);
    for (const BatchResult& result : results) {
      DIMMER_RETURN_IF_ERROR(result.status);
      point.flops += result.flops;
      point.dense_flops += result.dense_flops;
      point.correct.insert(point.correct.end(), result.correct.begin(), result.correct.end());
      for (size_t m = 0; m < runs.size(); ++m) runs[m] += result.expert_runs[m];
    }
    for (uint64_t count : runs) {
      point.experts_run.push_back(static_cast<double>(count) / static_cast<double>(tokens));
    }
    if (on_tau) on_tau(point);
    sweep.push_back(std::move(point));
  }
  return sweep;
}

Calibration CalibrationFrom(std::span<const SweepPoint> sweep, uint64_t tokens) {
  Calibration calibration;
  calibration.metric = "accuracy";
  calibration.rows = sweep.empty() ? 0 : sweep.front().correct.size();
  calibration.tokens = tokens;
  for (const SweepPoint& point : sweep) {
    const Interval accuracy = point.accuracy();
    calibration.points.push_back({.tau = point.tau,
                                  .flop_fraction = point.flop_fraction(),
                                  .quality = accuracy.value,
                                  .quality_low = accuracy.low,
                                  .quality_high = accuracy.high,
                                  .experts_run = point.experts_run});
  }
  return calibration;
}

size_t LastPointKeeping(std::span<const SweepPoint> sweep, double share) {
  const double wanted = share * sweep.front().accuracy().value;
  size_t last = 0;
  while (last + 1 < sweep.size() && sweep[last + 1].accuracy().value >= wanted) ++last;
  return last;
}

absl::StatusOr<std::vector<Example>> Tokenize(const Tokenizer& tokenizer,
                                              std::span<const TextRow> rows,
                                              std::span<const std::string> labels,
                                              uint32_t max_tokens) {
  std::map<std::string_view, int32_t> index;
  for (size_t i = 0; i < labels.size(); ++i) index[labels[i]] = static_cast<int32_t>(i);
  std::vector<Example> examples;
  examples.reserve(rows.size());
  for (const TextRow& row : rows) {
    const auto label = index.find(row.label);
    if (label == index.end()) {
      return absl::InvalidArgumentError(fmt::format(
          "line {}: label: found \"{}\", which the model does not know", row.line, row.label));
    }
    auto encoding =
        tokenizer.Encode(row.text, std::nullopt, {.max_tokens = max_tokens, .truncate = true});
    if (!encoding.ok()) return Annotate(encoding.status(), fmt::format("line {}", row.line));
    examples.push_back({std::move(encoding->ids), std::move(encoding->type_ids), label->second});
  }
  return examples;
}

}  // namespace dimmer
