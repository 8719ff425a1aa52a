// What `set-tau` prints.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_CTL_TAU_VIEW_H_
#define DIMMER_SERVER_CTL_TAU_VIEW_H_

#include <optional>
#include <string>
#include <vector>

#include "dimmer/v1/admin.pb.h"
#include "server/ctl/json.h"
#include "server/ctl/text.h"

namespace dimmer::ctl {

struct TauDifference {
  std::string model;
  v1::TauSettings before, after;
  std::optional<v1::Prediction> predicted_before, predicted_after;
  bool dry_run = false;
};

// What the calibration expects at `tau`; nullopt without a calibration.
std::optional<v1::Prediction> Predict(const v1::Calibration& calibration, double tau);

std::vector<Line> RenderTau(const TauDifference& difference);
Json ToJson(const TauDifference& difference);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_TAU_VIEW_H_
