// What `models` and `describe` print.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_CTL_MODEL_VIEW_H_
#define DIMMER_SERVER_CTL_MODEL_VIEW_H_

#include <vector>

#include "dimmer/v1/admin.pb.h"
#include "engine/budget/calibration.h"
#include "server/ctl/text.h"

namespace dimmer::ctl {

// Lines are cut to `columns` where their last column is free text.
std::vector<Line> RenderModels(const v1::ListModelsResponse& list, size_t columns);
std::vector<Line> RenderModel(const v1::Model& model, size_t columns, bool unicode);

// As the engine knows it, to interpolate as the server does.
Calibration ToCalibration(const v1::Calibration& calibration);

// "until 2026-01-31 12:00:00 UTC"; "for good" where it does not expire.
std::string Expiry(const v1::TauSettings& settings);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_MODEL_VIEW_H_
