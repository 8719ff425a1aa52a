// dimmer.v1.Admin. Every change leaves an audit line in the log.
//
// Thread safety: gRPC calls the methods from its own threads; the state file is written on the
// background thread, which also puts changes in one order.
#ifndef DIMMER_SERVER_ADMIN_SERVICE_H_
#define DIMMER_SERVER_ADMIN_SERVICE_H_

#include "dimmer/v1/admin.grpc.pb.h"
#include "engine/engine.h"
#include "server/background.h"
#include "server/unary_call.h"
#include "server/watch_stats.h"

namespace dimmer {

using RawAdmin = v1::Admin::WithRawCallbackMethod_ListModels<
    v1::Admin::WithRawCallbackMethod_GetModel<v1::Admin::WithRawCallbackMethod_SetTau<
        v1::Admin::WithRawCallbackMethod_WatchStats<v1::Admin::Service>>>>;

class AdminService : public RawAdmin {
 public:
  // Nothing is owned.
  AdminService(Engine* engine, Background* background, const CallShared& shared)
      : engine_(engine), background_(background), shared_(shared), stats_(engine, shared.metrics) {}

  // Ends every WatchStats, those to come too, with Unavailable.
  void Shutdown() { stats_.Shutdown(); }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* bytes,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* bytes,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* SetTau(grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* bytes,
                                   grpc::ByteBuffer* response) override;
  // Not counted in dimmer_requests_total: how long an operator looks on is no duration of a
  // request.
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchStats(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* bytes) override;

 private:
  Engine* const engine_;
  Background* const background_;
  const CallShared shared_;
  StatsWatchers stats_;
};

}  // namespace dimmer

#endif  // DIMMER_SERVER_ADMIN_SERVICE_H_
