#include "server/oip_service.h"

#include <utility>

#include "engine/util/status.h"
#include "server/oip_call.h"
#include "server/oip_convert.h"

namespace dimmer {
namespace {

absl::Status SubmitInfer(Engine& engine, UnaryCall* call,
                         const inference::ModelInferRequest& message, size_t max_texts) {
  DIMMER_ASSIGN_OR_RETURN(OipCall decoded, DecodeOipCall(engine, message, max_texts, call));
  call->Submit(engine, std::move(decoded.request),
               [model = decoded.model, outputs = std::move(decoded.outputs), id = message.id()](
                   UnaryCall* answered, const Response& response) {
                 inference::ModelInferResponse answer;
                 answer.set_id(id);
                 EncodeInfer(response, model->model->info(), outputs, &answer);
                 answered->Reply(answer);
               });
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* OipService::ServerLive(Context* context, const Bytes* bytes,
                                                 Bytes* response) {
  return Serve<inference::ServerLiveRequest>(
      shared_, "ServerLive", context, bytes, response,
      [](UnaryCall* call, const inference::ServerLiveRequest&) {
        inference::ServerLiveResponse answer;
        answer.set_live(true);
        call->Reply(answer);
      },
      Admission::kAlways);
}

grpc::ServerUnaryReactor* OipService::ServerReady(Context* context, const Bytes* bytes,
                                                  Bytes* response) {
  return Serve<inference::ServerReadyRequest>(
      shared_, "ServerReady", context, bytes, response,
      [this](UnaryCall* call, const inference::ServerReadyRequest&) {
        inference::ServerReadyResponse answer;
        answer.set_ready(shared_.readiness->ServerReady());
        call->Reply(answer);
      },
      Admission::kAlways);
}

grpc::ServerUnaryReactor* OipService::ModelReady(Context* context, const Bytes* bytes,
                                                 Bytes* response) {
  return Serve<inference::ModelReadyRequest>(
      shared_, "ModelReady", context, bytes, response,
      [this](UnaryCall* call, const inference::ModelReadyRequest& request) {
        inference::ModelReadyResponse answer;
        answer.set_ready(shared_.readiness->ModelReady(request.name(), request.version()));
        call->Reply(answer);
      },
      Admission::kAlways);
}

grpc::ServerUnaryReactor* OipService::ServerMetadata(Context* context, const Bytes* bytes,
                                                     Bytes* response) {
  return Serve<inference::ServerMetadataRequest>(
      shared_, "ServerMetadata", context, bytes, response,
      [this](UnaryCall* call, const inference::ServerMetadataRequest&) {
        inference::ServerMetadataResponse answer;
        answer.set_name(id_);
        answer.set_version(DIMMER_VERSION);
        answer.add_extensions("parameters");
        call->Reply(answer);
      },
      Admission::kAlways);
}

grpc::ServerUnaryReactor* OipService::ModelMetadata(Context* context, const Bytes* bytes,
                                                    Bytes* response) {
  return Serve<inference::ModelMetadataRequest>(
      shared_, "ModelMetadata", context, bytes, response,
      [this](UnaryCall* call, const inference::ModelMetadataRequest& request) {
        const auto model = engine_->Find(request.name(), request.version());
        if (!model.ok()) {
          call->Fail(model.status());
          return;
        }
        call->SetModel((*model)->name, (*model)->version);
        inference::ModelMetadataResponse answer;
        answer.set_name((*model)->name);
        answer.add_versions((*model)->version);
        answer.set_platform(kOipPlatform);
        DescribeTensors((*model)->model->info(), &answer);
        call->Reply(answer);
      });
}

grpc::ServerUnaryReactor* OipService::ModelConfig(Context* context, const Bytes* bytes,
                                                  Bytes* response) {
  return Serve<inference::ModelConfigRequest>(
      shared_, "ModelConfig", context, bytes, response,
      [this](UnaryCall* call, const inference::ModelConfigRequest& request) {
        const auto model = engine_->Find(request.name(), request.version());
        if (!model.ok()) {
          call->Fail(model.status());
          return;
        }
        call->SetModel((*model)->name, (*model)->version);
        inference::ModelConfigResponse answer;
        DescribeConfig(**model, answer.mutable_config());
        call->Reply(answer);
      });
}

grpc::ServerUnaryReactor* OipService::ModelInfer(Context* context, const Bytes* bytes,
                                                 Bytes* response) {
  return Serve<inference::ModelInferRequest>(
      shared_, "ModelInfer", context, bytes, response,
      [this](UnaryCall* call, const inference::ModelInferRequest& request) {
        const absl::Status status = SubmitInfer(*engine_, call, request, max_texts_);
        if (!status.ok()) call->Fail(status);
      });
}

}  // namespace dimmer
