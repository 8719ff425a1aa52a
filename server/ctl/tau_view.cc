#include "server/ctl/tau_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "server/ctl/model_view.h"

namespace dimmer::ctl {
namespace {

constexpr size_t kKey = 16, kColumn = 22;

using Layers = std::map<std::pair<uint32_t, std::string>, double>;

Layers ByLayer(const v1::TauSettings& settings) {
  Layers layers;
  for (const v1::LayerTau& layer : settings.layers()) {
    layers[{layer.layer(), layer.module()}] = layer.tau();
  }
  return layers;
}

void Add(std::vector<Line>& lines, const std::string& key, const std::string& before,
         const std::string& after) {
  const bool changed = before != after;
  lines.push_back({{"  " + Left(key, kKey), kDim},
                   {Left(before, kColumn), kPlain},
                   {changed ? "-> " : "   ", kDim},
                   {after, changed ? kLight : kPlain}});
}

std::string Quality(const v1::Prediction& predicted) {
  return fmt::format("{} [{:.1f}, {:.1f}]", Percent(predicted.quality(), 1),
                     100 * predicted.quality_low(), 100 * predicted.quality_high());
}

Line Title(const TauDifference& difference) {
  const v1::TauSettings& after = difference.after;
  Line line = {{Printable(difference.model), kBold}};
  if (difference.dry_run) {
    line.push_back({": dry run, nothing was changed", kPlain});
  } else if (after.revision() == difference.before.revision()) {
    line.push_back({fmt::format(": revision {}, as it was", after.revision()), kPlain});
  } else {
    line.push_back(
        {fmt::format(": revision {} is in force, {}", after.revision(), Expiry(after)), kPlain});
  }
  return line;
}

}  // namespace

std::optional<v1::Prediction> Predict(const v1::Calibration& calibration, double tau) {
  const Calibration table = ToCalibration(calibration);
  if (table.empty()) return std::nullopt;
  const CalibrationPoint point = table.At(tau);
  v1::Prediction predicted;
  predicted.set_flop_fraction(point.flop_fraction);
  predicted.set_quality(point.quality);
  predicted.set_quality_low(point.quality_low);
  predicted.set_quality_high(point.quality_high);
  predicted.set_metric(table.metric);
  return predicted;
}

std::vector<Line> RenderTau(const TauDifference& difference) {
  const v1::TauSettings& before = difference.before;
  const v1::TauSettings& after = difference.after;
  std::vector<Line> lines = {Title(difference)};
  lines.push_back({{Left("", kKey + 2) + Left("before", kColumn) + "   after", kDim}});
  Add(lines, "default tau", Number(before.default_tau()), Number(after.default_tau()));
  Add(lines, "bounds", Interval(before.min_tau(), before.max_tau()),
      Interval(after.min_tau(), after.max_tau()));
  Layers layers_before = ByLayer(before), layers_after = ByLayer(after);
  Layers all = layers_before;
  all.insert(layers_after.begin(), layers_after.end());
  for (const auto& [place, tau] : all) {
    const auto show = [&place = place](const Layers& layers) {
      const auto found = layers.find(place);
      return found == layers.end() ? std::string("as the default") : Number(found->second);
    };
    Add(lines, fmt::format("layer {} {}", place.first, Printable(place.second)),
        show(layers_before), show(layers_after));
  }
  Add(lines, "holds", Expiry(before), Expiry(after));
  if (!difference.predicted_after.has_value()) {
    lines.push_back({{"  no calibration, no prediction", kDim}});
    return lines;
  }
  const v1::Prediction& new_point = *difference.predicted_after;
  const v1::Prediction& old_point = difference.predicted_before.value_or(new_point);
  lines.push_back({{fmt::format("  what the calibration predicts at the default tau{}",
                                all.empty() ? "" : " (single layers left out of account)"),
                    kDim}});
  Add(lines, "FLOPs of dense", Percent(old_point.flop_fraction(), 1),
      Percent(new_point.flop_fraction(), 1));
  Add(lines, Printable(new_point.metric()), Quality(old_point), Quality(new_point));
  return lines;
}

Json ToJson(const TauDifference& difference) {
  const auto predicted = [](const std::optional<v1::Prediction>& prediction) {
    return prediction ? ToJson(*prediction) : Json(nullptr);
  };
  return {{"model", difference.model},
          {"dry_run", difference.dry_run},
          {"before",
           {{"settings", ToJson(difference.before)},
            {"predicted", predicted(difference.predicted_before)}}},
          {"after",
           {{"settings", ToJson(difference.after)},
            {"predicted", predicted(difference.predicted_after)}}}};
}

}  // namespace dimmer::ctl
