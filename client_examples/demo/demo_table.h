// How dimmer-demo shows its answers: a table for people, or JSON.
//
// Thread safety: pure functions.
#ifndef DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_TABLE_H_
#define DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_TABLE_H_

#include <string>
#include <vector>

#include "dimmer/v1/inference.pb.h"

namespace dimmer::demo {

// One budget that is tried.
struct Setting {
  std::string name;  // "flop_fraction 0.5"
  v1::Budget budget;
};

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

std::string Json(const std::vector<Answer>& answers);

}  // namespace dimmer::demo

#endif  // DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_TABLE_H_
