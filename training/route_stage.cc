// Stage 3, route.
#include <algorithm>
#include <atomic>
#include <optional>
#include <span>
#include <vector>

#include "engine/package/package.h"
#include "engine/util/status.h"
#include "engine/util/thread_pool.h"
#include "training/conversion.h"
#include "training/route.h"
#include "training/runtime.h"
#include "training/trainee.h"

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

// One way through all layers: from scratch on what the dense model gives them, or on from routers
// that exist, on what a model that is gated by these gives them.
struct RouterPass {
  const char* name;  // of progress and files
  uint32_t epochs = 0;
  std::span<const Router> before = {};  // empty: from scratch
};

// Layers that an interrupted run has finished are read. Errors name the layer.
absl::StatusOr<std::vector<Router>> RunPass(const RouterPass& pass, const Trainee& model,
                                            const ConversionInputs& inputs, const StageDir& stage,
                                            const std::string& fingerprint, Progress& progress) {
  RouteOptions options = inputs.options.route;
  options.epochs = pass.epochs;
  const uint32_t workers = inputs.options.sparsify.workers;
  const auto layers = static_cast<size_t>(model.layout().layers());
  const auto path_of = [&](size_t layer) {
    return stage.Path(fmt::format("{}-{}.safetensors", pass.name, layer));
  };
  std::vector<std::optional<Router>> kept;
  for (size_t layer = 0; layer < layers; ++layer) {
    kept.push_back(LoadRouter(path_of(layer), static_cast<int64_t>(layer), fingerprint));
  }
  std::vector<Router> routers(layers);
  if (std::all_of(kept.begin(), kept.end(),
                  [](const auto& router) { return router.has_value(); })) {
    for (size_t layer = 0; layer < layers; ++layer) routers[layer] = *std::move(kept[layer]);
    return routers;
  }
  const auto collect = [&](std::span<const Example> rows, uint64_t most) {
    return CollectFfnInputs(model, rows,
                            {.max_tokens = most,
                             .seed = options.seed,
                             .gates = pass.before,
                             .experts = options.experts},
                            workers);
  };
  progress.Note(fmt::format("{}: collecting the FFN inputs of the training rows", pass.name));
  std::vector<torch::Tensor> training = collect(inputs.task->training_rows(), options.max_tokens);
  const std::vector<torch::Tensor> check = collect(inputs.task->check_rows(), kCheckTokens);
  const auto tokens = static_cast<uint64_t>(training.front().size(0));
  const uint64_t per_layer =
      (tokens + options.batch_tokens - 1) / options.batch_tokens * options.epochs;
  std::vector<absl::Status> statuses(layers);
  std::atomic<uint64_t> done = 0;
  progress.Start(pass.name, "batches", per_layer * layers);
  ThreadPool pool(workers);
  pool.ParallelFor(layers, [&](size_t layer, size_t) {
    const auto number = static_cast<int64_t>(layer);
    if (kept[layer].has_value()) {
      routers[layer] = *std::move(kept[layer]);
      done += per_layer;
      return;
    }
    uint64_t before = 0;
    const auto on_progress = [&](uint64_t batches, uint64_t, double error) {
      done += batches - before;
      before = batches;
      progress.Update(done, fmt::format("layer {}: error {:.3f} of the variance", layer, error));
    };
    try {
      const Router* start = pass.before.empty() ? nullptr : &pass.before[layer];
      routers[layer] = TrainRouter(FfnOf(model, number), training[layer], check[layer], number,
                                   options, start, on_progress);
    } catch (const std::exception& error) {
      statuses[layer] =
          absl::InternalError(fmt::format("{}: layer {}: {}", pass.name, layer, WhatOf(error)));
      return;
    }
    training[layer] = torch::Tensor();  // its memory
    progress.Note(fmt::format("layer {}: its router explains {:.1f}% of the norms' variance", layer,
                              100 * routers[layer].explained));
    statuses[layer] = WriteSafetensors(
        path_of(layer), RouterTensors(routers[layer], number, options, DType::kF32),
        {{"fingerprint", fingerprint},
         {"explained", nlohmann::json(routers[layer].explained).dump()}});
  });
  for (const absl::Status& status : statuses) DIMMER_RETURN_IF_ERROR(status);
  progress.Finish();
  return routers;
}

nlohmann::json Explained(std::span<const Router> routers) {
  nlohmann::json explained = nlohmann::json::array();
  for (const Router& router : routers) explained.push_back(router.explained);
  return explained;
}

}  // namespace

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
  const RouteOptions& options = inputs_.options.route;
  DIMMER_ASSIGN_OR_RETURN(const StageDir split, Stage("split"));
  DIMMER_ASSIGN_OR_RETURN(WeightMap weights,
                          LoadWeights(split.Path("model.safetensors"), inputs_.base.layout));
  const std::unique_ptr<Trainee> model =
      MakeTrainee(inputs_.base.shape, std::move(weights), inputs_.sparsity());
  DIMMER_ASSIGN_OR_RETURN(std::vector<Router> routers,
                          RunPass({.name = "route", .epochs = options.epochs}, *model, inputs_,
                                  stage, fingerprint, progress_));
  nlohmann::json report = {{"explained_variance", Explained(routers)},
                           {"tokens", TokensTaken(inputs_.task->training_rows(), options)},
                           {"made_on", Surroundings()}};
  if (options.refine_epochs > 0) {
    DIMMER_ASSIGN_OR_RETURN(
        routers, RunPass({.name = "refine", .epochs = options.refine_epochs, .before = routers},
                         *model, inputs_, stage, fingerprint, progress_));
    report["explained_variance_when_gated"] = Explained(routers);
  }
  std::vector<TensorToWrite> tensors;
  for (size_t layer = 0; layer < routers.size(); ++layer) {
    for (TensorToWrite& tensor : RouterTensors(routers[layer], static_cast<int64_t>(layer), options,
                                               inputs_.options.weight_dtype())) {
      tensors.push_back(std::move(tensor));
    }
  }
  DIMMER_RETURN_IF_ERROR(WriteSafetensors(stage.Path("routers.safetensors"), tensors, {}));
  return stage.MarkDone(fingerprint, {"routers.safetensors"}, report);
}

}  // namespace dimmer
