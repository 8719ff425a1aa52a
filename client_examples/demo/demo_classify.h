// The demonstration on a classifier: texts at several budgets, as a table.
#ifndef DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_CLASSIFY_H_
#define DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_CLASSIFY_H_

#include <nlohmann/json.hpp>
#include <string>

#include "client_examples/demo/demo_options.h"
#include "dimmer/v1/inference.grpc.pb.h"

namespace dimmer::demo {

// Prints the table, or adds to `rows` where JSON is asked for. What went wrong; "" is nothing.
std::string ShowClassifier(v1::Inference::Stub& stub, const std::string& model,
                           const Options& options, nlohmann::ordered_json& rows);

}  // namespace dimmer::demo

#endif  // DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_CLASSIFY_H_
