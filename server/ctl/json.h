// Protobuf messages as JSON for people's scripts.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_CTL_JSON_H_
#define DIMMER_SERVER_CTL_JSON_H_

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>
#include <string>

namespace dimmer::ctl {

using Json = nlohmann::ordered_json;

// Every field that has a value or a default, under its name in the .proto. Unlike protobuf's own
// JSON, 64-bit numbers are numbers: what is counted here stays far below 2^53.
Json ToJson(const google::protobuf::Message& message);

// One line, or indented; bytes that are not UTF-8 are replaced.
std::string Dump(const Json& json);
std::string DumpLine(const Json& json);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_JSON_H_
