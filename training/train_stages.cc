// The stages that need libtorch: sparsify and route.
#include <atomic>
#include <filesystem>
#include <mutex>

#include "engine/package/json_fields.h"
#include "engine/package/package.h"
#include "engine/util/status.h"
#include "engine/util/thread_pool.h"
#include "training/conversion.h"
#include "training/route.h"
#include "training/runtime.h"
#include "training/trainee.h"
#include "training/trainer.h"

namespace dimmer {
namespace {

constexpr uint64_t kCheckTokens = 20000;  // calibration tokens that a router's fit is reported on

// The two matrices of one layer's router as a file's tensors.
std::vector<TensorToWrite> RouterTensors(const Router& router, int64_t layer,
                                         const RouteOptions& options, DType dtype) {
  const auto number = static_cast<uint32_t>(layer);
  const auto width = static_cast<int64_t>(options.width);
  const auto d = static_cast<int64_t>(router.w1.size()) / width;
  return {{RouterTensorName(number, Module::kFfn, 1), dtype, {width, d}, router.w1},
          {RouterTensorName(number, Module::kFfn, 2),
           dtype,
           {static_cast<int64_t>(options.experts), width},
           router.w2}};
}

std::string LayerFile(int64_t layer) { return fmt::format("layer-{}.safetensors", layer); }

// A finished layer of an interrupted run.
std::optional<Router> LoadRouter(const std::string& path, int64_t layer,
                                 const std::string& fingerprint) {
  const auto file = SafetensorsFile::Open(path);
  if (!file.ok()) return std::nullopt;
  const auto stated = (*file)->metadata().find("fingerprint");
  const auto explained = (*file)->metadata().find("explained");
  if (stated == (*file)->metadata().end() || stated->second != fingerprint ||
      explained == (*file)->metadata().end()) {
    return std::nullopt;
  }
  Router router;
  for (int which : {1, 2}) {
    std::vector<float>& values = which == 1 ? router.w1 : router.w2;
    const TensorView* view =
        (*file)->Find(RouterTensorName(static_cast<uint32_t>(layer), Module::kFfn, which));
    if (view == nullptr) return std::nullopt;
    values.resize(view->elements());
    if (!ReadFloats(*view, values).ok()) return std::nullopt;
  }
  router.explained = nlohmann::json::parse(explained->second, nullptr, false);
  return router;
}

}  // namespace

absl::Status Conversion::Sparsify() {
  DIMMER_ASSIGN_OR_RETURN(const StageDir stage, Stage("sparsify"));
  const std::string fingerprint = SparsifyFingerprint();
  if (stage.Done(fingerprint).has_value()) {
    progress_.Note("sparsify: done before");
    return absl::OkStatus();
  }
  const std::unique_ptr<Trainee> model =
      MakeTrainee(inputs_.base.shape, inputs_.base.weights, inputs_.sparsity());
  const EpochCheck check = inputs_.task->check(inputs_.options.sparsify.workers);
  const std::string penalty = PenaltyName(inputs_.options.sparsify.penalty);
  TrainCallbacks callbacks;
  bool started = false;
  callbacks.on_start = [&](uint64_t done, uint64_t steps) {
    progress_.Start("sparsify", "steps", steps, done);
    started = true;
  };
  callbacks.on_progress = [&](const TrainProgress& now) {
    progress_.Update(now.step, fmt::format("loss {:.4f}  {} {:.1f}  active {:.2f}%", now.loss,
                                           penalty, now.penalty, 100 * now.active));
  };
  callbacks.on_epoch = [&](const EpochReport& report) {
    std::string active;
    for (double share : report.active) active += fmt::format(" {:.1f}", 100 * share);
    progress_.Note(fmt::format("epoch {}: loss {:.4f}, {} {:.1f}, active % per layer{}, {} {:.4f}",
                               report.epoch, report.loss, penalty, report.penalty, active,
                               check.metric, report.quality));
  };
  std::vector<EpochReport> reports;
  if (inputs_.options.sparsify.epochs > 0) {
    DIMMER_ASSIGN_OR_RETURN(
        reports,
        Train(*model, inputs_.task->training(), check, inputs_.options.sparsify,
              {.path = stage.Path("state.safetensors"), .fingerprint = fingerprint}, callbacks));
  }
  if (started) progress_.Finish();
  // Rounded to the package's dtype here, so that every later stage sees what will be served.
  DIMMER_RETURN_IF_ERROR(SaveWeights(stage.Path("model.safetensors"), inputs_.base.layout,
                                     WeightsOf(*model), inputs_.options.weight_dtype()));
  nlohmann::json epochs = nlohmann::json::array();
  for (const EpochReport& report : reports) epochs.push_back(ToJson(report, check.metric, penalty));
  DIMMER_RETURN_IF_ERROR(stage.MarkDone(fingerprint, {"model.safetensors"},
                                        {{"epochs", epochs}, {"made_on", Surroundings()}}));
  std::error_code ignored;  // 12 bytes per weight that nobody needs any more
  std::filesystem::remove(stage.Path("state.safetensors"), ignored);
  return absl::OkStatus();
}

absl::Status Conversion::Route() {
  DIMMER_RETURN_IF_ERROR(RequireBefore("route").status());
  DIMMER_ASSIGN_OR_RETURN(const StageDir stage, Stage("route"));
  DIMMER_ASSIGN_OR_RETURN(const std::string fingerprint, RouteFingerprint());
  if (stage.Done(fingerprint).has_value()) {
    progress_.Note("route: done before");
    return absl::OkStatus();
  }
  try {
    return TrainRouters(stage, fingerprint);
  } catch (const std::exception& error) {  // libtorch's, e.g. out of memory
    return absl::InternalError(fmt::format("route: {}", WhatOf(error)));
  }
}

absl::Status Conversion::TrainRouters(const StageDir& stage, const std::string& fingerprint) {
  const ConvertOptions& options = inputs_.options;
  const ModelLayout& layout = inputs_.base.layout;
  const uint32_t workers = options.sparsify.workers;
  DIMMER_ASSIGN_OR_RETURN(const StageDir split, Stage("split"));
  DIMMER_ASSIGN_OR_RETURN(WeightMap weights, LoadWeights(split.Path("model.safetensors"), layout));
  const std::unique_ptr<Trainee> model =
      MakeTrainee(inputs_.base.shape, std::move(weights), inputs_.sparsity());
  progress_.Note("route: collecting the FFN inputs of the training rows");
  std::vector<torch::Tensor> inputs = CollectFfnInputs(
      *model, inputs_.task->training_rows(), options.route.max_tokens, options.route.seed, workers);
  const std::vector<torch::Tensor> check = CollectFfnInputs(
      *model, inputs_.task->check_rows(), kCheckTokens, options.route.seed, workers);
  const uint64_t tokens = inputs.front().size(0);
  std::vector<Router> routers(layout.layers());
  std::vector<absl::Status> statuses(layout.layers());
  std::atomic<uint64_t> done = 0;
  const uint64_t per_layer =
      (tokens + options.route.batch_tokens - 1) / options.route.batch_tokens * options.route.epochs;
  progress_.Start("route", "batches", per_layer * layout.layers());
  ThreadPool pool(workers);
  pool.ParallelFor(layout.layers(), [&](size_t layer, size_t) {
    const auto number = static_cast<int64_t>(layer);
    const std::string path = stage.Path(LayerFile(number));
    if (auto kept = LoadRouter(path, number, fingerprint)) {
      routers[layer] = *std::move(kept);
      done += per_layer;
      return;
    }
    uint64_t before = 0;
    try {
      routers[layer] = TrainRouter(
          FfnOf(*model, number), inputs[layer], check[layer], number, options.route,
          [&](uint64_t batches, uint64_t, double error) {
            done += batches - before;
            before = batches;
            progress_.Update(done,
                             fmt::format("layer {}: error {:.3f} of the variance", layer, error));
          });
    } catch (const std::exception& error) {
      statuses[layer] =
          absl::InternalError(fmt::format("route: layer {}: {}", layer, WhatOf(error)));
      return;
    }
    inputs[layer] = torch::Tensor();  // its memory
    progress_.Note(fmt::format("layer {}: its router explains {:.1f}% of the norms' variance",
                               layer, 100 * routers[layer].explained));
    statuses[layer] =
        WriteSafetensors(path, RouterTensors(routers[layer], number, options.route, DType::kF32),
                         {{"fingerprint", fingerprint},
                          {"explained", nlohmann::json(routers[layer].explained).dump()}});
  });
  for (const absl::Status& status : statuses) DIMMER_RETURN_IF_ERROR(status);
  progress_.Finish();
  std::vector<TensorToWrite> tensors;
  nlohmann::json explained = nlohmann::json::array();
  for (int64_t layer = 0; layer < layout.layers(); ++layer) {
    for (TensorToWrite& tensor :
         RouterTensors(routers[layer], layer, options.route, options.weight_dtype())) {
      tensors.push_back(std::move(tensor));
    }
    explained.push_back(routers[layer].explained);
  }
  DIMMER_RETURN_IF_ERROR(WriteSafetensors(stage.Path("routers.safetensors"), tensors, {}));
  return stage.MarkDone(
      fingerprint, {"routers.safetensors"},
      {{"explained_variance", explained}, {"tokens", tokens}, {"made_on", Surroundings()}});
}

}  // namespace dimmer
