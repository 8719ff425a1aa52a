#include "server/inference_service.h"

#include <utility>

#include "engine/util/status.h"
#include "server/convert.h"
#include "server/generate_call.h"
#include "server/task_model.h"

namespace dimmer {
namespace {

using Texts = google::protobuf::RepeatedPtrField<std::string>;

std::vector<std::string> ToVector(const Texts& texts) { return {texts.begin(), texts.end()}; }

// What Classify and Embed have in common.
template <typename Message>
absl::StatusOr<Request> ToRequest(const Message& message, Task task, const ServedModel& model,
                                  const UnaryCall& call) {
  Request request;
  request.model = model.name;
  request.version = model.version;
  request.task = task;
  request.texts = ToVector(message.texts());
  request.budget = ToBudget(message.budget());
  DIMMER_RETURN_IF_ERROR(ValidateBudget(request.budget));
  request.truncate = message.truncate();
  request.deadline = call.deadline();
  return request;
}

absl::Status CheckPairs(const v1::ClassifyRequest& request) {
  if (request.text_pairs_size() == 0 || request.text_pairs_size() == request.texts_size()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("text_pairs: found {}, expected none or one for each of the {} texts",
                  request.text_pairs_size(), request.texts_size()));
}

void ReplyClassified(UnaryCall* call, const Response& response, const ServedModel& model,
                     uint32_t top_k) {
  v1::ClassifyResponse answer;
  for (const Result& result : response.results) {
    v1::Classification* added = answer.add_results();
    FromScores(result.scores, model.model->info().labels, top_k, added->mutable_labels());
    FromUsage(result.usage, added->mutable_usage());
  }
  FromUsage(response.usage, answer.mutable_usage());
  answer.set_model(response.model);
  answer.set_version(response.version);
  call->Reply(answer);
}

void ReplyEmbedded(UnaryCall* call, const Response& response) {
  v1::EmbedResponse answer;
  for (const Result& result : response.results) {
    v1::Embedding* added = answer.add_results();
    added->mutable_values()->Add(result.embedding.begin(), result.embedding.end());
    FromUsage(result.usage, added->mutable_usage());
  }
  FromUsage(response.usage, answer.mutable_usage());
  answer.set_model(response.model);
  answer.set_version(response.version);
  call->Reply(answer);
}

absl::Status SubmitClassify(Engine& engine, UnaryCall* call, const v1::ClassifyRequest& message,
                            size_t max_texts) {
  DIMMER_RETURN_IF_ERROR(call->SetRequestId(message.request_id()));
  DIMMER_ASSIGN_OR_RETURN(auto model, FindForTask(engine, message.model(), message.version(),
                                                  Task::kClassification, call));
  DIMMER_RETURN_IF_ERROR(CheckCount("texts", message.texts_size(), max_texts));
  DIMMER_RETURN_IF_ERROR(CheckPairs(message));
  DIMMER_ASSIGN_OR_RETURN(Request request,
                          ToRequest(message, Task::kClassification, *model, *call));
  request.text_pairs = ToVector(message.text_pairs());
  call->Submit(engine, std::move(request),
               [model, top_k = message.top_k()](UnaryCall* answered, const Response& response) {
                 ReplyClassified(answered, response, *model, top_k);
               });
  return absl::OkStatus();
}

absl::Status SubmitEmbed(Engine& engine, UnaryCall* call, const v1::EmbedRequest& message,
                         size_t max_texts) {
  DIMMER_RETURN_IF_ERROR(call->SetRequestId(message.request_id()));
  DIMMER_ASSIGN_OR_RETURN(
      auto model, FindForTask(engine, message.model(), message.version(), Task::kEmbedding, call));
  DIMMER_RETURN_IF_ERROR(CheckCount("texts", message.texts_size(), max_texts));
  DIMMER_ASSIGN_OR_RETURN(Request request, ToRequest(message, Task::kEmbedding, *model, *call));
  call->Submit(engine, std::move(request), ReplyEmbedded);
  return absl::OkStatus();
}

void RunTokenize(const Engine& engine, UnaryCall* call, const v1::TokenizeRequest& request) {
  const auto tokens =
      engine.Tokenize(request.model(), ToVector(request.texts()), request.add_special_tokens(),
                      [call] { return call->StillWanted(); });
  if (!tokens.ok()) {
    call->Fail(tokens.status());
    return;
  }
  v1::TokenizeResponse answer;
  for (const Engine::Tokens& row : *tokens) {
    v1::TokenIds* added = answer.add_results();
    added->mutable_ids()->Add(row.ids.begin(), row.ids.end());
    added->mutable_tokens()->Add(row.tokens.begin(), row.tokens.end());
  }
  call->Reply(answer);
}

}  // namespace

grpc::ServerUnaryReactor* InferenceService::Classify(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* bytes,
                                                     grpc::ByteBuffer* response) {
  return Serve<v1::ClassifyRequest>(shared_, "Classify", context, bytes, response,
                                    [this](UnaryCall* call, const v1::ClassifyRequest& request) {
                                      const absl::Status status =
                                          SubmitClassify(*engine_, call, request, max_texts_);
                                      if (!status.ok()) call->Fail(status);
                                    });
}

grpc::ServerUnaryReactor* InferenceService::Embed(grpc::CallbackServerContext* context,
                                                  const grpc::ByteBuffer* bytes,
                                                  grpc::ByteBuffer* response) {
  return Serve<v1::EmbedRequest>(shared_, "Embed", context, bytes, response,
                                 [this](UnaryCall* call, const v1::EmbedRequest& request) {
                                   const absl::Status status =
                                       SubmitEmbed(*engine_, call, request, max_texts_);
                                   if (!status.ok()) call->Fail(status);
                                 });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::Generate(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes) {
  return StartGenerate(*engine_, shared_, context, bytes);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* bytes,
                                                     grpc::ByteBuffer* response) {
  return Serve<v1::TokenizeRequest>(
      shared_, "Tokenize", context, bytes, response,
      [this](UnaryCall* call, const v1::TokenizeRequest& request) {
        const auto model = engine_->Find(request.model(), "");
        absl::Status status = model.status();
        if (status.ok()) {
          call->SetModel((*model)->name, (*model)->version);
          status = CheckCount("texts", request.texts_size(), max_texts_);
        }
        if (status.ok()) {
          status = background_->Run([this, call, request] { RunTokenize(*engine_, call, request); },
                                    [call](const absl::Status& failed) { call->Fail(failed); });
        }
        if (!status.ok()) call->Fail(status);
      });
}

}  // namespace dimmer
