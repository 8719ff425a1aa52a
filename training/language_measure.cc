#include "training/language_measure.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "engine/util/status.h"
#include "engine/util/thread_pool.h"
#include "training/random.h"

namespace dimmer {
namespace {

constexpr size_t kBatchWindows = 8;
constexpr uint64_t kResamples = 2000;

// Percentile interval of sum(numerator) / sum(denominator) when documents are drawn with
// replacement.
Interval Bootstrap(std::span<const double> numerator, std::span<const double> denominator) {
  const size_t n = numerator.size();
  const auto ratio = [](double a, double b) { return b == 0 ? 0 : a / b; };
  std::vector<double> ratios;
  for (uint64_t resample = 0; resample < kResamples; ++resample) {
    RandomStream random(RandomKey({0xB007, resample}));
    double above = 0;
    double below = 0;
    for (size_t i = 0; i < n; ++i) {
      const uint64_t drawn = random.Below(n);
      above += numerator[drawn];
      below += denominator[drawn];
    }
    ratios.push_back(ratio(above, below));
  }
  std::sort(ratios.begin(), ratios.end());
  const double value = ratio(std::accumulate(numerator.begin(), numerator.end(), 0.0),
                             std::accumulate(denominator.begin(), denominator.end(), 0.0));
  // Of 2000 sorted values the 51st and the 1950th leave 2.5% on either side.
  return {value, std::min(value, ratios[kResamples / 40]),
          std::max(value, ratios[kResamples - 1 - kResamples / 40])};
}

}  // namespace

double LossPoint::total_nats() const { return std::accumulate(nats.begin(), nats.end(), 0.0); }

MeasuredText Measured(std::span<const TokenizedDocument> documents) {
  MeasuredText text;
  for (const TokenizedDocument& document : documents) {
    text.bytes.push_back(document.bytes);
    text.predicted += document.ids.size() - 1;
  }
  return text;
}

nlohmann::json ToJson(const LossSweep& sweep) {
  nlohmann::json points = nlohmann::json::array();
  for (const LossPoint& point : sweep.points) {
    points.push_back({{"tau", point.tau},
                      {"flops", point.flops},
                      {"dense_flops", point.dense_flops},
                      {"nats", point.nats},
                      {"experts_run", point.experts_run}});
  }
  return {{"bytes", sweep.text.bytes}, {"predicted", sweep.text.predicted}, {"points", points}};
}

LossSweep LossSweepFromJson(const nlohmann::json& json) {
  LossSweep sweep;
  sweep.text.bytes = json.at("bytes").get<std::vector<uint64_t>>();
  sweep.text.predicted = json.at("predicted");
  for (const nlohmann::json& point : json.at("points")) {
    sweep.points.push_back({.tau = point.at("tau"),
                            .flops = point.at("flops"),
                            .dense_flops = point.at("dense_flops"),
                            .nats = point.at("nats").get<std::vector<double>>(),
                            .experts_run = point.at("experts_run").get<std::vector<double>>()});
  }
  return sweep;
}

absl::StatusOr<LossSweep> MeasureLoss(const WindowScorer& score,
                                      std::span<const TokenizedDocument> documents,
                                      uint32_t context, std::span<const double> taus,
                                      uint32_t threads,
                                      const std::function<void(const LossPoint&)>& on_tau) {
  if (documents.empty()) return absl::InvalidArgumentError("no documents to measure on");
  std::vector<std::vector<int32_t>> windows;
  std::vector<size_t> owner;  // the document of each window
  for (size_t i = 0; i < documents.size(); ++i) {
    for (std::vector<int32_t>& window : Windows(documents[i], context)) {
      windows.push_back(std::move(window));
      owner.push_back(i);
    }
  }
  LossSweep sweep;
  sweep.text = Measured(documents);
  const size_t batches = (windows.size() + kBatchWindows - 1) / kBatchWindows;
  ThreadPool pool(threads);
  for (const double tau : taus) {
    std::vector<absl::StatusOr<WindowScores>> results(batches, absl::UnknownError("not run"));
    pool.ParallelFor(batches, [&](size_t batch, size_t) {
      const size_t begin = batch * kBatchWindows;
      const size_t count = std::min(kBatchWindows, windows.size() - begin);
      results[batch] = score(std::span(windows).subspan(begin, count), tau);
    });
    LossPoint point;
    point.tau = tau;
    point.nats.assign(documents.size(), 0);
    std::vector<uint64_t> runs;
    uint64_t tokens = 0;
    for (size_t batch = 0; batch < batches; ++batch) {
      DIMMER_RETURN_IF_ERROR(results[batch].status());
      const WindowScores& scores = *results[batch];
      tokens += scores.tokens;
      point.flops += scores.flops;
      point.dense_flops += scores.dense_flops;
      for (size_t i = 0; i < scores.nats.size(); ++i) {
        point.nats[owner[batch * kBatchWindows + i]] += scores.nats[i];
      }
      runs.resize(scores.expert_runs.size());
      for (size_t m = 0; m < runs.size(); ++m) runs[m] += scores.expert_runs[m];
    }
    for (const uint64_t count : runs) {
      point.experts_run.push_back(static_cast<double>(count) / static_cast<double>(tokens));
    }
    if (on_tau) on_tau(point);
    sweep.points.push_back(std::move(point));
  }
  return sweep;
}

double BitsPerByte(const MeasuredText& text, const LossPoint& point) {
  const uint64_t bytes = std::accumulate(text.bytes.begin(), text.bytes.end(), uint64_t{0});
  return point.total_nats() / std::numbers::ln2 / static_cast<double>(bytes);
}

Interval BitsPerByteInterval(const MeasuredText& text, const LossPoint& point) {
  std::vector<double> bits;
  for (const double nats : point.nats) bits.push_back(nats / std::numbers::ln2);
  const std::vector<double> bytes(text.bytes.begin(), text.bytes.end());
  return Bootstrap(bits, bytes);
}

Interval LossIncrease(const LossPoint& base, const LossPoint& point) {
  std::vector<double> difference;
  for (size_t i = 0; i < base.nats.size(); ++i) difference.push_back(point.nats[i] - base.nats[i]);
  return Bootstrap(difference, base.nats);
}

double Perplexity(const MeasuredText& text, const LossPoint& point) {
  return std::exp(point.total_nats() / static_cast<double>(text.predicted));
}

Calibration CalibrationFrom(const LossSweep& sweep) {
  Calibration calibration;
  calibration.metric = kBitsPerByte;
  calibration.rows = sweep.text.bytes.size();
  calibration.tokens = sweep.text.predicted;
  for (const LossPoint& point : sweep.points) {
    const Interval bits = BitsPerByteInterval(sweep.text, point);
    calibration.points.push_back({.tau = point.tau,
                                  .flop_fraction = point.flop_fraction(),
                                  .quality = bits.value,
                                  .quality_low = bits.low,
                                  .quality_high = bits.high,
                                  .experts_run = point.experts_run});
  }
  return calibration;
}

size_t LastPointWithin(const LossSweep& sweep, double increase) {
  const double allowed = (1 + increase) * sweep.points.front().total_nats();
  size_t last = 0;
  while (last + 1 < sweep.points.size() && sweep.points[last + 1].total_nats() <= allowed) ++last;
  return last;
}

}  // namespace dimmer
