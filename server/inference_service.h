// dimmer.v1.Inference.
//
// Thread safety: gRPC calls the methods from its own threads; nothing is computed on them.
#ifndef DIMMER_SERVER_INFERENCE_SERVICE_H_
#define DIMMER_SERVER_INFERENCE_SERVICE_H_

#include <cstddef>

#include "dimmer/v1/inference.grpc.pb.h"
#include "engine/engine.h"
#include "server/background.h"
#include "server/unary_call.h"

namespace dimmer {

// The raw methods: see server/request_parser.h.
using RawInference = v1::Inference::WithRawCallbackMethod_Classify<
    v1::Inference::WithRawCallbackMethod_Embed<v1::Inference::WithRawCallbackMethod_Generate<
        v1::Inference::WithRawCallbackMethod_Tokenize<v1::Inference::Service>>>>;

class InferenceService : public RawInference {
 public:
  // Nothing is owned.
  InferenceService(Engine* engine, Background* background, const CallShared& shared,
                   size_t max_texts)
      : engine_(engine), background_(background), shared_(shared), max_texts_(max_texts) {}

  grpc::ServerUnaryReactor* Classify(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* bytes,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* bytes,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* bytes) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* bytes,
                                     grpc::ByteBuffer* response) override;

 private:
  Engine* const engine_;
  Background* const background_;
  const CallShared shared_;
  const size_t max_texts_;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_INFERENCE_SERVICE_H_
