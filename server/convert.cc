#include "server/convert.h"

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr int64_t kMaxTtlSeconds = int64_t{100} * 365 * 24 * 3600;

absl::StatusOr<Module> ToModule(const std::string& name, int index) {
  if (name.empty()) return Module::kFfn;
  for (Module module : {Module::kFfn, Module::kQ, Module::kK, Module::kV, Module::kO}) {
    if (ModuleName(module) == name) return module;
  }
  return absl::InvalidArgumentError(
      fmt::format("layers[{}].module: found \"{}\", expected one of ffn, q, k, v, o", index, name));
}

std::string NameOf(Module module) { return std::string(ModuleName(module)); }

void FromCalibration(const Calibration& calibration, v1::Calibration* out) {
  out->set_metric(calibration.metric);
  out->set_rows(calibration.rows);
  out->set_tokens(calibration.tokens);
  for (const CalibrationPoint& point : calibration.points) {
    v1::CalibrationPoint* added = out->add_points();
    added->set_tau(point.tau);
    added->set_flop_fraction(point.flop_fraction);
    added->set_quality(point.quality);
    added->set_quality_low(point.quality_low);
    added->set_quality_high(point.quality_high);
    added->mutable_experts_run()->Add(point.experts_run.begin(), point.experts_run.end());
  }
}

void FromModelInfo(const ModelInfo& info, v1::Model* out) {
  out->set_architecture(info.architecture);
  for (Task task : info.tasks) out->add_tasks(std::string(TaskName(task)));
  out->mutable_labels()->Add(info.labels.begin(), info.labels.end());
  out->set_multi_label(info.multi_label);
  out->set_max_tokens(info.max_tokens);
  out->set_width(info.width);
  out->set_layers(info.layers);
  out->set_vocab_size(info.vocab_size);
  out->set_dtype(info.dtype);
  out->set_parameters(info.parameters);
  out->set_weight_bytes(info.weight_bytes);
  out->set_converted(info.converted);
  for (const MoeCost& moe : info.cost.moe) {
    v1::MoeModule* added = out->add_moe_modules();
    added->set_layer(moe.layer);
    added->set_module(NameOf(moe.module));
    added->set_experts(moe.experts);
    added->set_expert_flops(moe.pair_flops);
    added->set_router_flops(moe.router_flops);
  }
  if (!info.converted) return;
  const bool dynamic = info.gate.kind == GateKind::kDynamicK;
  out->mutable_gate()->set_kind(dynamic ? "dynamic_k" : "top_k");
  out->mutable_gate()->set_default_tau(info.gate.default_tau);
  out->mutable_gate()->set_top_k(info.gate.top_k);
  FromCalibration(info.calibration, out->mutable_calibration());
  if (info.provenance.is_object()) {
    const std::string json =
        info.provenance.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    // Shown, never interpreted: what does not fit a Struct is left out.
    if (!google::protobuf::util::JsonStringToMessage(json, out->mutable_provenance()).ok()) {
      out->clear_provenance();
    }
  }
}

}  // namespace

Budget ToBudget(const v1::Budget& budget) {
  switch (budget.limit_case()) {
    case v1::Budget::kTau:
      return {.kind = Budget::Kind::kTau, .value = budget.tau()};
    case v1::Budget::kFlopFraction:
      return {.kind = Budget::Kind::kFlopFraction, .value = budget.flop_fraction()};
    case v1::Budget::kMaxFlops:
      return {.kind = Budget::Kind::kMaxFlops, .max_flops = budget.max_flops()};
    case v1::Budget::kMinQuality:
      return {.kind = Budget::Kind::kMinQuality, .value = budget.min_quality()};
    case v1::Budget::LIMIT_NOT_SET:
      break;
  }
  return {};
}

void FromUsage(const Usage& usage, v1::Usage* out) {
  out->set_flops(usage.flops);
  out->set_dense_flops(usage.dense_flops);
  out->set_tau(usage.tau);
  out->set_prompt_tokens(usage.prompt_tokens);
  out->set_output_tokens(usage.output_tokens);
  const auto tokens = double(usage.LayerTokens());
  for (const LayerUsage& layer : usage.layers) {
    v1::LayerUsage* added = out->add_layers();
    added->set_layer(layer.layer);
    added->set_module(NameOf(layer.module));
    added->set_experts(layer.experts);
    added->set_experts_run(tokens > 0 ? double(layer.expert_runs) / tokens : 0);
  }
  out->set_queue_us(usage.queue_us);
  out->set_compute_us(usage.compute_us);
  out->set_budget_clamped(usage.budget_clamped);
  out->set_degraded(usage.degraded);
  out->set_truncated(usage.truncated);
}

void FromPiece(const Piece& piece, v1::GenerateResponse* out) {
  out->set_text(piece.text);
  out->mutable_token_ids()->Add(piece.ids.begin(), piece.ids.end());
  out->mutable_logprobs()->Add(piece.logprobs.begin(), piece.logprobs.end());
}

namespace {

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return v1::NONE;
    case FinishReason::kLength:
      return v1::LENGTH;
    case FinishReason::kStop:
      return v1::STOP;
    case FinishReason::kEndOfText:
      return v1::END_OF_TEXT;
    case FinishReason::kBudget:
      return v1::BUDGET;
  }
  return v1::NONE;
}

}  // namespace

void FromGeneration(const Response& response, v1::GenerateResponse* out) {
  const Result& result = response.results.front();
  out->set_finish_reason(ToProto(result.finish_reason));
  out->set_seed(result.seed);
  FromUsage(response.usage, out->mutable_usage());
  out->set_model(response.model);
  out->set_version(response.version);
}

std::string LabelName(const std::vector<std::string>& labels, size_t index) {
  return index < labels.size() ? labels[index] : fmt::format("LABEL_{}", index);
}

size_t BestIndex(std::span<const float> scores) {
  return static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

void FromScores(std::span<const float> scores, const std::vector<std::string>& labels,
                uint32_t top_k, google::protobuf::RepeatedPtrField<v1::Label>* out) {
  const auto rank = [&](uint32_t i) { return std::isnan(scores[i]) ? -INFINITY : scores[i]; };
  std::vector<uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const size_t wanted = top_k == 0 ? order.size() : std::min<size_t>(top_k, order.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<ptrdiff_t>(wanted), order.end(),
      [&](uint32_t a, uint32_t b) { return rank(a) != rank(b) ? rank(a) > rank(b) : a < b; });
  for (size_t i = 0; i < wanted; ++i) {
    v1::Label* label = out->Add();
    label->set_index(order[i]);
    label->set_score(scores[order[i]]);
    label->set_name(LabelName(labels, order[i]));
  }
}

absl::StatusOr<TauChange> ToTauChange(const v1::SetTauRequest& request) {
  TauChange change;
  if (request.has_default_tau()) change.default_tau = request.default_tau();
  if (request.has_min_tau()) change.min_tau = request.min_tau();
  if (request.has_max_tau()) change.max_tau = request.max_tau();
  for (int i = 0; i < request.layers_size(); ++i) {
    const v1::LayerTau& layer = request.layers(i);
    DIMMER_ASSIGN_OR_RETURN(const Module module, ToModule(layer.module(), i));
    change.layers.push_back({.layer = layer.layer(), .module = module, .tau = layer.tau()});
  }
  change.if_revision = request.if_revision();
  change.dry_run = request.dry_run();
  if (request.has_ttl()) {
    const int64_t seconds = request.ttl().seconds();
    const int32_t nanos = request.ttl().nanos();
    if (seconds < 0 || nanos < 0 || nanos > 999'999'999 || seconds > kMaxTtlSeconds) {
      return absl::InvalidArgumentError(fmt::format(
          "ttl: found {} s and {} ns, expected a duration from 0 to a century", seconds, nanos));
    }
    change.ttl = std::chrono::seconds(seconds) + std::chrono::nanoseconds(nanos);
  }
  return change;
}

namespace {

google::protobuf::Timestamp ToTimestamp(std::chrono::system_clock::time_point time) {
  const auto since_epoch =
      std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch());
  return google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(since_epoch.count());
}

}  // namespace

void FromTauState(const TauState& state, const CostModel& cost, v1::TauSettings* out) {
  const TauSettings& settings = state.settings;
  out->set_default_tau(settings.default_tau);
  out->set_min_tau(settings.min_tau);
  out->set_max_tau(settings.max_tau);
  const size_t modules = std::min(settings.layer_tau.size(), cost.moe.size());
  for (size_t i = 0; i < modules; ++i) {
    if (!(settings.layer_tau[i] >= 0)) continue;  // not set: the default holds
    v1::LayerTau* layer = out->add_layers();
    layer->set_layer(cost.moe[i].layer);
    layer->set_module(NameOf(cost.moe[i].module));
    layer->set_tau(settings.layer_tau[i]);
  }
  out->set_revision(settings.revision);
  if (state.expires.has_value()) *out->mutable_expires() = ToTimestamp(*state.expires);
}

void FromTauAnswer(const TauAnswer& answer, const CostModel& cost, v1::SetTauResponse* out) {
  FromTauState(answer.state, cost, out->mutable_settings());
  if (answer.moved_expiry.has_value()) {
    *out->mutable_moved_expiry() = ToTimestamp(*answer.moved_expiry);
  }
  if (!answer.predicted.has_value()) return;
  v1::Prediction* predicted = out->mutable_predicted();
  predicted->set_flop_fraction(answer.predicted->flop_fraction);
  predicted->set_quality(answer.predicted->quality);
  predicted->set_quality_low(answer.predicted->quality_low);
  predicted->set_quality_high(answer.predicted->quality_high);
  predicted->set_metric(answer.predicted->metric);
}

void FromModelStatus(const ModelStatus& status, const TauState* tau, const Scheduler::Load& load,
                     v1::Model* out) {
  out->set_name(status.name);
  out->set_version(status.version);
  out->set_ready(status.ready);
  if (!status.status.ok()) out->set_error(std::string(Message(status.status)));
  out->set_load_seconds(status.load_seconds);
  if (status.served == nullptr) return;
  const ModelInfo& info = status.served->model->info();
  FromModelInfo(info, out);
  if (tau != nullptr) FromTauState(*tau, info.cost, out->mutable_settings());
  out->set_queued(load.queued);
  out->set_running(load.running);
}

std::string_view TaskName(Task task) {
  switch (task) {
    case Task::kClassification:
      return "classification";
    case Task::kEmbedding:
      return "embedding";
    case Task::kGeneration:
      return "generation";
    case Task::kScoring:
      return "scoring";
  }
  return "unknown";
}

}  // namespace dimmer
