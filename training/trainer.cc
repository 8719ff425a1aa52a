#include "training/trainer.h"

#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <numbers>
#include <numeric>
#include <utility>

#include "engine/package/safetensors.h"
#include "engine/util/status.h"
#include "engine/util/thread_pool.h"
#include "training/kernels.h"
#include "training/random.h"
#include "training/runtime.h"

namespace dimmer {
namespace {

using torch::Tensor;

constexpr uint64_t kProgressSteps = 10;
constexpr const char* kStoredQuality = "quality";
constexpr const char* kStoredPenalty = "penalty";

// Sums over steps; the means go into reports.
struct Totals {
  double loss = 0, penalty = 0;
  uint64_t targets = 0, tokens = 0;
  std::vector<double> active;  // per layer

  void Add(const Totals& other) {
    loss += other.loss;
    penalty += other.penalty;
    targets += other.targets;
    tokens += other.tokens;
    active.resize(std::max(active.size(), other.active.size()));
    for (size_t l = 0; l < other.active.size(); ++l) active[l] += other.active[l];
  }
};

nlohmann::json ToJson(const Totals& totals) {
  return {{"loss", totals.loss},
          {"penalty", totals.penalty},
          {"targets", totals.targets},
          {"tokens", totals.tokens},
          {"active", totals.active}};
}

// What one worker computes for its part of a batch.
struct PartResult {
  std::vector<Tensor> gradients;  // as the trained parameters
  Totals totals;
};

std::span<float> Floats(const Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

class Trainer {
 public:
  Trainer(Trainee& model, TrainingData& data, const EpochCheck& check, const TrainOptions& options,
          const TrainState& state, const TrainCallbacks& callbacks)
      : model_(model),
        data_(data),
        check_(check),
        options_(options),
        state_(state),
        callbacks_(callbacks),
        pool_(options.workers),
        steps_per_epoch_((data.rows() + options.batch_size - 1) / options.batch_size),
        steps_(steps_per_epoch_ * options.epochs) {
    for (Parameter& parameter : model.parameters()) {
      if (!parameter.trained) continue;
      trained_.push_back(&parameter);
      inputs_.push_back(parameter.value);
      first_.push_back(torch::zeros_like(parameter.value.detach()));
      second_.push_back(torch::zeros_like(parameter.value.detach()));
    }
  }

  absl::StatusOr<std::vector<EpochReport>> Run() {
    DIMMER_RETURN_IF_ERROR(Restore());
    if (callbacks_.on_start) callbacks_.on_start(step_, steps_);
    while (step_ < steps_ && !OutOfPatience()) {
      const uint64_t epoch = step_ / steps_per_epoch_;
      const std::span<const Example> rows = data_.Epoch(epoch);
      const std::vector<uint32_t> order = Permutation(static_cast<uint32_t>(rows.size()),
                                                      RandomKey({options_.seed, 0x5A0FF1E, epoch}));
      while (step_ < (epoch + 1) * steps_per_epoch_) {
        DIMMER_RETURN_IF_ERROR(Step(rows, order));
        const bool epoch_ends = step_ == (epoch + 1) * steps_per_epoch_;
        if (epoch_ends) EndEpoch(static_cast<uint32_t>(epoch + 1));
        if (epoch_ends || step_ % options_.checkpoint_steps == 0) DIMMER_RETURN_IF_ERROR(Save());
        if (callbacks_.stop && callbacks_.stop(step_)) return absl::CancelledError("stopped");
      }
    }
    for (size_t i = 0; i < best_.size(); ++i) inputs_[i].detach().copy_(best_[i]);
    return reports_;
  }

 private:
  absl::Status Step(std::span<const Example> rows, const std::vector<uint32_t>& order) {
    const uint64_t begin = step_ % steps_per_epoch_ * options_.batch_size;
    const uint64_t end = std::min<uint64_t>(begin + options_.batch_size, order.size());
    const auto parts = DealOut(rows, std::span(order).subspan(begin, end - begin),
                               static_cast<uint32_t>(pool_.threads()));
    uint64_t tokens = 0;
    uint64_t targets = 0;
    for (size_t i = begin; i < end; ++i) {
      tokens += rows[order[i]].ids.size();
      targets += rows[order[i]].targets();
    }
    std::vector<PartResult> results(parts.size());
    pool_.ParallelFor(parts.size(), [&](size_t part, size_t) {
      if (parts[part].empty()) return;
      results[part] = ComputePart(Pack(rows, parts[part]), part, targets, tokens);
    });
    std::erase_if(results, [](const PartResult& part) { return part.gradients.empty(); });
    DIMMER_RETURN_IF_ERROR(Update(results));
    ++step_;
    Totals totals;
    for (const PartResult& part : results) totals.Add(part.totals);
    epoch_totals_.Add(totals);
    recent_.Add(totals);
    if (callbacks_.on_progress && (step_ % kProgressSteps == 0 || step_ == steps_)) {
      callbacks_.on_progress(Progress());
      recent_ = {};
    }
    return absl::OkStatus();
  }

  PartResult ComputePart(const PackedBatch& batch, size_t part, uint64_t targets, uint64_t tokens) {
    const auto layers = static_cast<double>(model_.layout().layers());
    const TrainForward forward =
        model_.Forward(batch, RandomKey({options_.seed, 0xD20, step_, part}));
    const double alpha = options_.alpha * AlphaFactor(step_, steps_, options_.alpha_ramp);
    const Tensor loss = forward.loss / static_cast<double>(targets) +
                        forward.penalty * (alpha / (layers * static_cast<double>(tokens)));
    PartResult result;
    result.gradients = torch::autograd::grad({loss}, inputs_);
    for (Tensor& gradient : result.gradients) gradient = gradient.contiguous();
    result.totals.loss = forward.loss.item<float>();
    result.totals.penalty = forward.penalty.item<float>() / layers;
    result.totals.targets = batch.targets();
    result.totals.tokens = batch.tokens();
    result.totals.active.assign(forward.active.begin(), forward.active.end());
    return result;
  }

  absl::Status Update(const std::vector<PartResult>& parts) {
    std::vector<double> squares(trained_.size());
    const auto gradients = [&](size_t i) {
      std::vector<const float*> list;
      for (const PartResult& part : parts) list.push_back(part.gradients[i].data_ptr<float>());
      return list;
    };
    pool_.ParallelFor(trained_.size(), [&](size_t i, size_t) {
      squares[i] = SquaredNorm(gradients(i), inputs_[i].numel());
    });
    const double norm = std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
    if (!std::isfinite(norm)) {
      return absl::InternalError(
          fmt::format("{}: the gradient of step {} is not finite: lower --learning-rate "
                      "or --{}",
                      options_.stage, step_ + 1, PenaltyName(options_.penalty)));
    }
    const double clip = norm > options_.clip_norm ? options_.clip_norm / norm : 1;
    const double rate = options_.learning_rate *
                        LearningRateFactor(step_, steps_, options_.warmup, options_.final_rate);
    pool_.ParallelFor(trained_.size(), [&](size_t i, size_t) {
      const AdamStep step{
          .learning_rate = static_cast<float>(rate),
          .beta2 = static_cast<float>(options_.beta2),
          .weight_decay = static_cast<float>(trained_[i]->decayed ? options_.weight_decay : 0),
          .gradient_scale = static_cast<float>(clip),
          .step = static_cast<int64_t>(step_ + 1)};
      AdamUpdate(step, gradients(i), Floats(inputs_[i]), Floats(first_[i]), Floats(second_[i]));
    });
    return absl::OkStatus();
  }

  TrainProgress Progress() const {
    const auto cells = static_cast<double>(recent_.tokens * model_.layout().hidden);
    const double active = std::accumulate(recent_.active.begin(), recent_.active.end(), 0.0);
    return {.step = step_,
            .steps = steps_,
            .loss = recent_.loss / static_cast<double>(recent_.targets),
            .penalty = recent_.penalty / static_cast<double>(recent_.tokens),
            .active = active / cells / static_cast<double>(recent_.active.size())};
  }

  void EndEpoch(uint32_t epoch) {
    EpochReport report{
        .epoch = epoch,
        .loss = epoch_totals_.loss / static_cast<double>(epoch_totals_.targets),
        .penalty = epoch_totals_.penalty / static_cast<double>(epoch_totals_.tokens)};
    const auto cells = static_cast<double>(epoch_totals_.tokens * model_.layout().hidden);
    for (double active : epoch_totals_.active) report.active.push_back(active / cells);
    report.quality = check_.measure(model_);
    reports_.push_back(report);
    epoch_totals_ = {};
    if (options_.keep_best && BestEpoch(reports_, check_.lower_is_better) + 1 == reports_.size()) {
      best_.clear();
      for (const Tensor& input : inputs_) best_.push_back(input.detach().clone());
    }
    if (callbacks_.on_epoch) callbacks_.on_epoch(report);
  }

  bool OutOfPatience() const {
    return options_.keep_best && options_.patience > 0 && !reports_.empty() &&
           reports_.size() - 1 - BestEpoch(reports_, check_.lower_is_better) >= options_.patience;
  }

  absl::Status Save() const;
  absl::Status Restore();

  Trainee& model_;
  TrainingData& data_;
  const EpochCheck& check_;
  const TrainOptions options_;
  const TrainState state_;
  const TrainCallbacks& callbacks_;
  ThreadPool pool_;
  const uint64_t steps_per_epoch_, steps_;
  std::vector<Parameter*> trained_;
  std::vector<Tensor> inputs_, first_, second_;  // the trained values, Adam's two moments
  std::vector<Tensor> best_;                     // of the best epoch; empty before the first
  uint64_t step_ = 0;                            // steps done
  Totals epoch_totals_, recent_;
  std::vector<EpochReport> reports_;
};

absl::Status Trainer::Save() const {
  std::vector<TensorToWrite> tensors;
  for (size_t i = 0; i < trained_.size(); ++i) {
    const std::vector<int64_t> shape = inputs_[i].sizes().vec();
    const std::string& name = trained_[i]->name;
    tensors.push_back({name, DType::kF32, shape, Floats(inputs_[i])});
    tensors.push_back({"adam.first." + name, DType::kF32, shape, Floats(first_[i])});
    tensors.push_back({"adam.second." + name, DType::kF32, shape, Floats(second_[i])});
    if (!best_.empty()) tensors.push_back({"best." + name, DType::kF32, shape, Floats(best_[i])});
  }
  nlohmann::json reports = nlohmann::json::array();
  for (const EpochReport& report : reports_) {
    reports.push_back(dimmer::ToJson(report, kStoredQuality, kStoredPenalty));
  }
  const nlohmann::json position = {
      {"step", step_}, {"reports", reports}, {"epoch", ToJson(epoch_totals_)}};
  return Annotate(
      WriteSafetensors(state_.path, tensors,
                       {{"fingerprint", state_.fingerprint}, {"position", position.dump()}}),
      options_.stage + ": saving its state");
}

absl::Status Trainer::Restore() {
  if (!std::filesystem::exists(state_.path)) return absl::OkStatus();
  auto opened = SafetensorsFile::Open(state_.path);
  // A state that cannot be read or belongs to other inputs is stale: train from the start.
  if (!opened.ok()) return absl::OkStatus();
  const SafetensorsFile& file = **opened;
  const auto fingerprint = file.metadata().find("fingerprint");
  const auto stated = file.metadata().find("position");
  if (fingerprint == file.metadata().end() || fingerprint->second != state_.fingerprint ||
      stated == file.metadata().end()) {
    return absl::OkStatus();
  }
  // Whether an epoch was already done, and its weights kept, shows in the file.
  if (options_.keep_best && file.Find("best." + trained_.front()->name) != nullptr) {
    for (const Tensor& input : inputs_) best_.push_back(torch::zeros_like(input.detach()));
  }
  for (size_t i = 0; i < trained_.size(); ++i) {
    const std::string& name = trained_[i]->name;
    std::vector<std::pair<std::string, Tensor>> wanted = {
        {name, inputs_[i]}, {"adam.first." + name, first_[i]}, {"adam.second." + name, second_[i]}};
    if (!best_.empty()) wanted.emplace_back("best." + name, best_[i]);
    for (const auto& [key, tensor] : wanted) {
      const TensorView* view = file.Find(key);
      if (view == nullptr || view->elements() != tensor.numel()) {
        return absl::InvalidArgumentError(
            fmt::format("{}: {}: missing or of another size; remove the file", state_.path, key));
      }
      DIMMER_RETURN_IF_ERROR(ReadFloats(*view, Floats(tensor)));
    }
  }
  try {
    const auto position = nlohmann::json::parse(stated->second);
    step_ = position.at("step");
    const nlohmann::json& totals = position.at("epoch");
    epoch_totals_ = {.loss = totals.at("loss"),
                     .penalty = totals.at("penalty"),
                     .targets = totals.at("targets"),
                     .tokens = totals.at("tokens"),
                     .active = totals.at("active")};
    for (const nlohmann::json& report : position.at("reports")) {
      reports_.push_back({.epoch = report.at("epoch"),
                          .loss = report.at("loss"),
                          .penalty = report.at(kStoredPenalty),
                          .active = report.at("active"),
                          .quality = report.at(kStoredQuality)});
    }
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(
        fmt::format("{}: position: {}; remove the file", state_.path, error.what()));
  }
  return absl::OkStatus();
}

}  // namespace

nlohmann::json ToJson(const EpochReport& report, const std::string& metric,
                      const std::string& penalty) {
  return {{"epoch", report.epoch},
          {"loss", report.loss},
          {penalty, report.penalty},
          {"active", report.active},
          {metric, report.quality}};
}

size_t BestEpoch(std::span<const EpochReport> reports, bool lower_is_better) {
  size_t best = 0;
  for (size_t i = 1; i < reports.size(); ++i) {
    const double now = reports[i].quality;
    const double before = reports[best].quality;
    if (lower_is_better ? now < before : now > before) best = i;
  }
  return best;
}

absl::StatusOr<std::vector<EpochReport>> Train(Trainee& model, TrainingData& data,
                                               const EpochCheck& check, const TrainOptions& options,
                                               const TrainState& state,
                                               const TrainCallbacks& callbacks) {
  try {
    return Trainer(model, data, check, options, state, callbacks).Run();
  } catch (const std::exception& error) {  // libtorch's, e.g. out of memory
    return absl::InternalError(fmt::format("{}: {}", options.stage, WhatOf(error)));
  }
}

double LearningRateFactor(uint64_t step, uint64_t steps, double warmup, double floor) {
  const double warm = warmup * static_cast<double>(steps);
  const auto now = static_cast<double>(step);
  if (now < warm) return (now + 1) / (warm + 1);
  const double progress = (now - warm) / std::max(1.0, static_cast<double>(steps) - warm);
  return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

double AlphaFactor(uint64_t step, uint64_t steps, double ramp) {
  const double length = ramp * static_cast<double>(steps);
  return length <= 0 ? 1 : std::min(1.0, static_cast<double>(step) / length);
}

}  // namespace dimmer
