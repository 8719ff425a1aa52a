#include "server/admin_service.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>

#include "engine/util/status.h"
#include "server/convert.h"

namespace dimmer {
namespace {

void FillModel(const Engine& engine, const ModelStatus& status, v1::Model* out) {
  const auto tau = engine.GetTau(status.name);
  FromModelStatus(status, tau.ok() ? &tau->state : nullptr, engine.load(status.name), out);
}

absl::StatusOr<ModelStatus> FindStatus(const Engine& engine, const std::string& model,
                                       const std::string& version) {
  for (const ModelStatus& status : engine.Models()) {
    if (status.name == model && (version.empty() || status.version == version)) return status;
  }
  return UnknownModel(model, version);
}

std::string Describe(const TauSettings& settings, const std::vector<MoeCost>& modules) {
  std::string layers;
  for (size_t i = 0; i < std::min(settings.layer_tau.size(), modules.size()); ++i) {
    if (settings.layer_tau[i] < 0) continue;
    layers += fmt::format(" layer{}.{}={}", modules[i].layer, ModuleName(modules[i].module),
                          settings.layer_tau[i]);
  }
  return fmt::format("default_tau={} min_tau={} max_tau={}{}", settings.default_tau,
                     settings.min_tau, settings.max_tau, layers);
}

// Who, when (the line's time), from, to.
void Audit(const std::string& peer, const ServedModel& served,
           const absl::StatusOr<TauAnswer>& from, const absl::StatusOr<TauAnswer>& to,
           const TauChange& change) {
  const std::string& model = served.name;
  const std::vector<MoeCost>& modules = served.model->info().cost.moe;
  const std::string before = from.ok() ? Describe(from->state.settings, modules) : "unknown";
  if (!to.ok()) {
    spdlog::warn("audit: SetTau refused, model={} peer={} from=({}): {}", model, peer, before,
                 Message(to.status()));
    return;
  }
  spdlog::info("audit: SetTau{} model={} peer={} from=({}) to=({}) revision={} ttl={}s",
               change.dry_run ? " (dry run)" : "", model, peer, before,
               Describe(to->state.settings, modules), to->state.settings.revision,
               std::chrono::duration<double>(change.ttl).count());
}

void RunSetTau(Engine& engine, UnaryCall* call, const std::string& model, const TauChange& change) {
  const auto served = engine.Find(model, "");
  if (!served.ok()) {
    call->Fail(served.status());
    return;
  }
  const auto before = engine.GetTau(model);
  const auto after = engine.SetTau(model, change);
  Audit(call->peer(), **served, before, after, change);
  if (!after.ok()) {
    call->Fail(after.status());
    return;
  }
  v1::SetTauResponse answer;
  answer.set_model(model);
  FromTauAnswer(*after, (*served)->model->info().cost, &answer);
  call->Reply(answer);
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::ListModels(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* bytes,
                                                   grpc::ByteBuffer* response) {
  return Serve<v1::ListModelsRequest>(
      shared_, "ListModels", context, bytes, response,
      [this](UnaryCall* call, const v1::ListModelsRequest&) {
        auto models = engine_->Models();
        std::sort(models.begin(), models.end(),
                  [](const ModelStatus& a, const ModelStatus& b) { return a.name < b.name; });
        v1::ListModelsResponse answer;
        for (const ModelStatus& status : models) FillModel(*engine_, status, answer.add_models());
        call->Reply(answer);
      },
      Admission::kAlways);
}

grpc::ServerUnaryReactor* AdminService::GetModel(grpc::CallbackServerContext* context,
                                                 const grpc::ByteBuffer* bytes,
                                                 grpc::ByteBuffer* response) {
  return Serve<v1::GetModelRequest>(
      shared_, "GetModel", context, bytes, response,
      [this](UnaryCall* call, const v1::GetModelRequest& request) {
        const auto status = FindStatus(*engine_, request.model(), request.version());
        if (!status.ok()) {
          call->Fail(status.status());
          return;
        }
        call->SetModel(status->name, status->version);
        v1::GetModelResponse answer;
        FillModel(*engine_, *status, answer.mutable_model());
        call->Reply(answer);
      },
      Admission::kAlways);
}

grpc::ServerUnaryReactor* AdminService::SetTau(grpc::CallbackServerContext* context,
                                               const grpc::ByteBuffer* bytes,
                                               grpc::ByteBuffer* response) {
  return Serve<v1::SetTauRequest>(
      shared_, "SetTau", context, bytes, response,
      [this](UnaryCall* call, const v1::SetTauRequest& request) {
        const auto served = engine_->Find(request.model(), "");
        absl::Status status = served.status();
        if (status.ok()) {
          call->SetModel((*served)->name, (*served)->version);
          const auto change = ToTauChange(request);
          status = change.status();
          if (status.ok()) {
            status =
                background_->Run([this, call, model = request.model(),
                                  change = *change] { RunSetTau(*engine_, call, model, change); },
                                 [call](const absl::Status& failed) { call->Fail(failed); });
          }
        }
        if (!status.ok()) call->Fail(status);
      },
      Admission::kAlways);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* AdminService::WatchStats(
    grpc::CallbackServerContext* /*context*/, const grpc::ByteBuffer* bytes) {
  return stats_.Watch(bytes);
}

}  // namespace dimmer
