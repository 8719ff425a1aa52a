// The trade-off curve of a converted model as an SVG image: quality against FLOPs, one point per
// tau, with its confidence band.
#ifndef DIMMER_TRAINING_TRADEOFF_PLOT_H_
#define DIMMER_TRAINING_TRADEOFF_PLOT_H_

#include <string>
#include <vector>

#include "engine/budget/calibration.h"

namespace dimmer {

struct TradeoffPlot {
  std::string title, subtitle;
  Calibration calibration;      // at least two points
  std::string axis;             // of the quality; empty: the metric in percent
  double scale = 100;           // from the quality to the axis
  double reference = 0.99;      // share of the first point's quality drawn as a line
  std::string reference_label;  // empty: "99% of the quality at tau 0"
  size_t reference_point = 0;   // the last point that keeps it; its cost is marked
  double default_tau = 0;       // ringed, if it is one of the points
};

// A complete SVG document of its own size and fonts. Pure function; the same plot gives the same
// bytes.
std::string RenderSvg(const TradeoffPlot& plot);

// Round axis positions: multiples of 1, 2 or 5 times a power of ten that cover [low, high] with
// about `count` steps. low < high.
std::vector<double> AxisTicks(double low, double high, int count);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_TRADEOFF_PLOT_H_
