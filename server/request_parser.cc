#include "server/request_parser.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/utf8.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

constexpr int kMaxDepth = 16;

// Walks the wire format along the descriptor, for the reason that parsing failed.
std::optional<std::string> FindBadString(const std::string& bytes, const Descriptor& type,
                                         const std::string& path, int depth) {
  UnknownFieldSet fields;
  if (depth > kMaxDepth || !fields.ParseFromString(bytes)) return std::nullopt;
  std::map<int, int> seen;
  for (int i = 0; i < fields.field_count(); ++i) {
    const UnknownField& field = fields.field(i);
    const FieldDescriptor* known = type.FindFieldByNumber(field.number());
    if (known == nullptr || field.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    std::string name = path + known->name();
    if (known->is_repeated() && !known->is_map()) {
      name += fmt::format("[{}]", seen[field.number()]++);
    }
    const std::string& value = field.length_delimited();
    if (known->type() == FieldDescriptor::TYPE_STRING) {
      const auto bad = FindInvalidUtf8(value);
      if (bad.has_value()) return fmt::format("{}: not UTF-8 at byte {}", name, *bad);
    } else if (known->type() == FieldDescriptor::TYPE_MESSAGE) {
      auto bad = FindBadString(value, *known->message_type(), name + ".", depth + 1);
      if (bad.has_value()) return bad;
    }
  }
  return std::nullopt;
}

std::string Flatten(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  std::string flat;
  if (!bytes.Dump(&slices).ok()) return flat;
  for (const grpc::Slice& slice : slices) {
    flat.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return flat;
}

}  // namespace

absl::Status ParseRequest(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  grpc::ByteBuffer shared = bytes;  // shares the slices; the reader wants it mutable
  {
    grpc::ProtoBufferReader reader(&shared);
    if (reader.status().ok() && message->ParseFromZeroCopyStream(&reader)) {
      return absl::OkStatus();
    }
  }
  const Descriptor& type = *message->GetDescriptor();
  const auto bad = FindBadString(Flatten(bytes), type, "", 0);
  if (bad.has_value()) return absl::InvalidArgumentError(*bad);
  return absl::InvalidArgumentError(
      fmt::format("request: found {} bytes that do not parse, expected a {}", bytes.Length(),
                  type.full_name()));
}

}  // namespace dimmer
