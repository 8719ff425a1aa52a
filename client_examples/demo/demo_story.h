// The demonstration on a language model: a text at several budgets, shown as it comes.
#ifndef DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_STORY_H_
#define DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_STORY_H_

#include <nlohmann/json.hpp>
#include <string>

#include "client_examples/demo/demo_options.h"
#include "dimmer/v1/inference.grpc.pb.h"

namespace dimmer::demo {

// Streams to stdout, or adds to `rows` where JSON is asked for. What went wrong; "" is nothing.
std::string ShowGenerator(v1::Inference::Stub& stub, const std::string& model,
                          const Options& options, nlohmann::ordered_json& rows);

}  // namespace dimmer::demo

#endif  // DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_STORY_H_
