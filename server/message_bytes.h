// Messages as the bytes that gRPC sends.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_MESSAGE_BYTES_H_
#define DIMMER_SERVER_MESSAGE_BYTES_H_

#include <absl/status/status.h>
#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

namespace dimmer {

// Internal: what gRPC's serializer says.
absl::Status ToBytes(const google::protobuf::Message& message, grpc::ByteBuffer* bytes);

}  // namespace dimmer

#endif  // DIMMER_SERVER_MESSAGE_BYTES_H_
