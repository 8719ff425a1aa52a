// What the demonstration is asked for.
#ifndef DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_OPTIONS_H_
#define DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "dimmer/v1/inference.pb.h"

namespace dimmer::demo {

// One budget that is tried.
struct Setting {
  std::string name;  // "flop_fraction 0.5"
  v1::Budget budget;
};

struct Options {
  std::string target = "127.0.0.1:8001";
  std::string admin = "127.0.0.1:8003";
  std::string model;               // "": all of the server
  std::vector<std::string> texts;  // none: the demonstration's own
  std::vector<Setting> settings;   // none: the demonstration's own
  uint32_t max_tokens = 120;       // of a story
  uint64_t seed = 7;               // of a story
  uint32_t wait_secs = 30;
  bool json = false;
};

}  // namespace dimmer::demo

#endif  // DIMMER_CLIENT_EXAMPLES_DEMO_DEMO_OPTIONS_H_
