// inference.GRPCInferenceService: the Open Inference Protocol v2.
//
// Thread safety: gRPC calls the methods from its own threads; nothing is computed on them.
#ifndef DIMMER_SERVER_OIP_SERVICE_H_
#define DIMMER_SERVER_OIP_SERVICE_H_

#include <cstddef>
#include <string>

#include "engine/engine.h"
#include "inference/open_inference.grpc.pb.h"
#include "server/oip_stream.h"
#include "server/unary_call.h"

namespace dimmer {

namespace oip {
using Service = inference::GRPCInferenceService;
using Probes = Service::WithRawCallbackMethod_ServerLive<Service::WithRawCallbackMethod_ServerReady<
    Service::WithRawCallbackMethod_ModelReady<Service::Service>>>;
using Descriptions =
    Service::WithRawCallbackMethod_ServerMetadata<Service::WithRawCallbackMethod_ModelMetadata<
        Service::WithRawCallbackMethod_ModelConfig<Probes>>>;
using Raw = Service::WithRawCallbackMethod_ModelInfer<
    Service::WithRawCallbackMethod_ModelStreamInfer<Descriptions>>;
}  // namespace oip

class OipService : public oip::Raw {
 public:
  // `id` is the server's name in its metadata. Nothing is owned.
  OipService(Engine* engine, const CallShared& shared, std::string id, size_t max_texts)
      : engine_(engine),
        shared_(shared),
        id_(std::move(id)),
        max_texts_(max_texts),
        streams_(engine, shared, max_texts) {}

  // Ends every ModelStreamInfer, those to come too, once it has answered what it has taken.
  void Shutdown() { streams_.Shutdown(); }

  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  using Reactor = grpc::ServerUnaryReactor;
  Reactor* ServerLive(Context* context, const Bytes* bytes, Bytes* response) override;
  Reactor* ServerReady(Context* context, const Bytes* bytes, Bytes* response) override;
  Reactor* ModelReady(Context* context, const Bytes* bytes, Bytes* response) override;
  Reactor* ServerMetadata(Context* context, const Bytes* bytes, Bytes* response) override;
  Reactor* ModelMetadata(Context* context, const Bytes* bytes, Bytes* response) override;
  Reactor* ModelConfig(Context* context, const Bytes* bytes, Bytes* response) override;
  Reactor* ModelInfer(Context* context, const Bytes* bytes, Bytes* response) override;
  grpc::ServerBidiReactor<Bytes, Bytes>* ModelStreamInfer(Context* context) override {
    return streams_.Open(context);
  }

 private:
  Engine* const engine_;
  const CallShared shared_;
  const std::string id_;
  const size_t max_texts_;
  OipStreams streams_;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_OIP_SERVICE_H_
