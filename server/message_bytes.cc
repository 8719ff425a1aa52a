#include "server/message_bytes.h"

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/proto_buffer_writer.h>

namespace dimmer {

absl::Status ToBytes(const google::protobuf::Message& message, grpc::ByteBuffer* bytes) {
  bool own_buffer = false;
  bytes->Clear();
  const grpc::Status written =
      grpc::GenericSerialize<grpc::ProtoBufferWriter, google::protobuf::Message>(message, bytes,
                                                                                 &own_buffer);
  return written.ok() ? absl::OkStatus()
                      : absl::InternalError("answer: " + written.error_message());
}

}  // namespace dimmer
