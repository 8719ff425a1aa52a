#include "server/ctl/json.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>

#include <cmath>

namespace dimmer::ctl {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// JSON has no NaN and no infinity.
Json Finite(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

// A float's shortest decimals, not those of the double next to it.
Json Finite(float value) { return Finite(std::stod(fmt::format("{}", value))); }

// `index` -1: not repeated.
Json Value(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& at = *message.GetReflection();
  const bool many = index >= 0;
  const FieldDescriptor* f = &field;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return many ? at.GetRepeatedInt32(message, f, index) : at.GetInt32(message, f);
    case FieldDescriptor::CPPTYPE_INT64:
      return many ? at.GetRepeatedInt64(message, f, index) : at.GetInt64(message, f);
    case FieldDescriptor::CPPTYPE_UINT32:
      return many ? at.GetRepeatedUInt32(message, f, index) : at.GetUInt32(message, f);
    case FieldDescriptor::CPPTYPE_UINT64:
      return many ? at.GetRepeatedUInt64(message, f, index) : at.GetUInt64(message, f);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Finite(many ? at.GetRepeatedDouble(message, f, index) : at.GetDouble(message, f));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return Finite(many ? at.GetRepeatedFloat(message, f, index) : at.GetFloat(message, f));
    case FieldDescriptor::CPPTYPE_BOOL:
      return many ? at.GetRepeatedBool(message, f, index) : at.GetBool(message, f);
    case FieldDescriptor::CPPTYPE_ENUM:
      return (many ? at.GetRepeatedEnum(message, f, index) : at.GetEnum(message, f))->name();
    case FieldDescriptor::CPPTYPE_STRING:
      return many ? at.GetRepeatedString(message, f, index) : at.GetString(message, f);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ToJson(many ? at.GetRepeatedMessage(message, f, index) : at.GetMessage(message, f));
  }
  return nullptr;
}

Json Map(const Message& message, const FieldDescriptor& field) {
  Json object = Json::object();
  const Reflection& at = *message.GetReflection();
  for (int i = 0; i < at.FieldSize(message, &field); ++i) {
    const Message& entry = at.GetRepeatedMessage(message, &field, i);
    const Json key = Value(entry, *field.message_type()->map_key(), -1);
    object[key.is_string() ? key.get<std::string>() : key.dump()] =
        Value(entry, *field.message_type()->map_value(), -1);
  }
  return object;
}

// Timestamp, Duration, Struct: as protobuf's JSON writes them.
Json WellKnown(const Message& message) {
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(message, &text).ok()) return nullptr;
  return Json::parse(text, nullptr, false);
}

}  // namespace

Json ToJson(const Message& message) {
  const google::protobuf::Descriptor& type = *message.GetDescriptor();
  if (type.full_name().rfind("google.protobuf.", 0) == 0) return WellKnown(message);
  const Reflection& at = *message.GetReflection();
  Json object = Json::object();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.is_map()) {
      object[field.name()] = Map(message, field);
    } else if (field.is_repeated()) {
      Json list = Json::array();
      for (int j = 0; j < at.FieldSize(message, &field); ++j) {
        list.push_back(Value(message, field, j));
      }
      object[field.name()] = std::move(list);
    } else if (!field.has_presence() || at.HasField(message, &field)) {
      object[field.name()] = Value(message, field, -1);
    }
  }
  return object;
}

std::string Dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string DumpLine(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace dimmer::ctl
