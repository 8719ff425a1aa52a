// How dimmer-demo shows a classifier's answers: a table for people, or JSON.
//
// Thread safety: pure functions.
#ifndef DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_TABLE_H_
#define DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_TABLE_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "client_examples/demo/demo_options.h"
#include "dimmer/v1/inference.pb.h"

namespace dimmer::demo {

// One text under one budget.
struct Answer {
  std::string text;
  std::string setting;
  v1::Classification result;
};

// Answers come text by text, each under the same settings in the same order. Fits 110 columns, a
// few more for models with many layers. `color`: with escape sequences.
std::string Table(const std::vector<Answer>& answers, const std::vector<Setting>& settings,
                  bool color);

void AddRows(const std::string& model, const std::vector<Answer>& answers,
             nlohmann::ordered_json& rows);

}  // namespace dimmer::demo

#endif  // DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_TABLE_H_
