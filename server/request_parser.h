// Parses requests ourselves, so that a malformed one is answered as the API says.
//
// gRPC's generated handlers answer bytes that do not parse with UNIMPLEMENTED and no message, and
// in proto3 a `string` that is not UTF-8 does not parse. The services therefore use gRPC's raw
// methods (generated as WithRawCallbackMethod_*), which hand over the bytes; the .proto files, the
// reflected types and the wire stay as they are.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_REQUEST_PARSER_H_
#define DIMMER_SERVER_REQUEST_PARSER_H_

#include <absl/status/status.h>
#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

namespace dimmer {

// InvalidArgument: names the first `string` field that is not UTF-8 ("texts[1]: not UTF-8 at byte
// 7"), or says that the bytes are not a message of this type.
absl::Status ParseRequest(const grpc::ByteBuffer& bytes, google::protobuf::Message* message);

}  // namespace dimmer

#endif  // DIMMER_SERVER_REQUEST_PARSER_H_
