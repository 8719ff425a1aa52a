#include "training/tradeoff_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace dimmer {
namespace {

constexpr double kWidth = 760, kHeight = 480;
constexpr double kTauLabel = 46;  // room for "tau 0" at the right end
constexpr double kLeft = 72, kRight = 28, kTop = 72, kBottom = 64;
constexpr std::string_view kInk = "#1f2933", kMuted = "#66727f", kGrid = "#e4e8ec";
constexpr std::string_view kCurve = "#0b62a4", kBand = "#0b62a4", kMark = "#c2410c";

std::string Escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

struct Box {
  double left, top, right, bottom;
  bool Overlaps(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
};

class Canvas {
 public:
  explicit Canvas(const TradeoffPlot& plot) : plot_(plot) {
    double low = points().front().quality_low;
    double high = points().front().quality_high;
    double right = 1;
    double left = 1;
    for (const CalibrationPoint& point : points()) {
      low = std::min(low, point.quality_low);
      high = std::max(high, point.quality_high);
      left = std::min(left, point.flop_fraction);
      right = std::max(right, point.flop_fraction);
    }
    // A flat curve still gets an axis of some width.
    constexpr double kLeast = 0.01;
    low = std::min(low, high - kLeast);
    high += 0.08 * (high - low);  // room for labels above the curve
    y_ticks_ = AxisTicks(plot.scale * low, plot.scale * high, 7);
    x_ticks_ = AxisTicks(100 * std::min(left, right - kLeast), 100 * right, 8);
  }

  std::string Render() {
    svg_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
        "height=\"{1}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" "
        "fill=\"{2}\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
        kWidth, kHeight, kInk);
    Text(kLeft, 30, plot_.title, "start", kInk, "font-size=\"18\" font-weight=\"bold\"");
    Text(kLeft, 51, plot_.subtitle, "start", kMuted);
    Axes();
    Band();
    Reference();
    Curve();
    return svg_ + "</svg>\n";
  }

 private:
  const std::vector<CalibrationPoint>& points() const { return plot_.calibration.points; }
  double X(double percent) const {
    const double t = (percent - x_ticks_.front()) / (x_ticks_.back() - x_ticks_.front());
    return kLeft + t * (kWidth - kLeft - kRight);
  }
  double Y(double percent) const {
    const double t = (percent - y_ticks_.front()) / (y_ticks_.back() - y_ticks_.front());
    return kHeight - kBottom - t * (kHeight - kTop - kBottom);
  }
  double X(const CalibrationPoint& point) const { return X(100 * point.flop_fraction); }
  double Y(const CalibrationPoint& point) const { return Y(plot_.scale * point.quality); }

  void Text(double x, double y, std::string_view text, std::string_view anchor,
            std::string_view color, std::string_view more = "") {
    svg_ +=
        fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" fill=\"{}\" {}>{}</text>\n",
                    x, y, anchor, color, more, Escape(text));
  }

  void Line(double x1, double y1, double x2, double y2, std::string_view color,
            std::string_view more = "") {
    svg_ += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" {}/>\n", x1,
        y1, x2, y2, color, more);
  }

  void Axes() {
    const double bottom = kHeight - kBottom;
    for (double tick : y_ticks_) {
      Line(kLeft, Y(tick), kWidth - kRight, Y(tick), kGrid);
      Text(kLeft - 9, Y(tick) + 4.5, fmt::format("{:g}", tick), "end", kMuted);
    }
    for (double tick : x_ticks_) {
      Line(X(tick), kTop, X(tick), bottom, kGrid);
      Text(X(tick), bottom + 20, fmt::format("{:g}", tick), "middle", kMuted);
    }
    Line(kLeft, bottom, kWidth - kRight, bottom, kMuted);
    Line(kLeft, kTop, kLeft, bottom, kMuted);
    Text((kLeft + kWidth - kRight) / 2, kHeight - 18,
         "whole-model FLOPs, routers included (% of dense)", "middle", kInk);
    const double middle = (kTop + bottom) / 2;
    Text(22, middle,
         plot_.axis.empty() ? fmt::format("{} (%)", plot_.calibration.metric) : plot_.axis,
         "middle", kInk, fmt::format("transform=\"rotate(-90 22 {:.1f})\"", middle));
  }

  void Band() {
    std::string path;
    for (const CalibrationPoint& point : points()) {
      path += fmt::format("{:.1f},{:.1f} ", X(point), Y(plot_.scale * point.quality_high));
    }
    for (size_t i = points().size(); i-- > 0;) {
      path +=
          fmt::format("{:.1f},{:.1f} ", X(points()[i]), Y(plot_.scale * points()[i].quality_low));
    }
    path.pop_back();
    svg_ +=
        fmt::format("<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"0.14\"/>\n", path, kBand);
  }

  // The quality that counts as kept, and what it costs.
  void Reference() {
    const double quality = plot_.scale * plot_.reference * points().front().quality;
    const CalibrationPoint& point = points()[plot_.reference_point];
    const double cost = 100 * point.flop_fraction;
    constexpr std::string_view kDash = "stroke-width=\"1.3\" stroke-dasharray=\"6 4\"";
    Line(kLeft, Y(quality), kWidth - kRight, Y(quality), kMark, kDash);
    Line(X(cost), Y(point), X(cost), kHeight - kBottom, kMark, kDash);
    // On the side of the line where no curve is: losses grow upwards from tau 0.
    const bool above = plot_.reference > 1;
    const double right = kWidth - kRight - (above ? kTauLabel : 4);
    const double base = Y(quality) + (above ? -6 : 16);
    Text(right, base,
         plot_.reference_label.empty()
             ? fmt::format("{:g}% of the quality at tau 0", 100 * plot_.reference)
             : plot_.reference_label,
         "end", kMark);
    taken_.push_back({right - 186, base - 14, right, base + 4});
    const std::string label = fmt::format("{:.1f}% of FLOPs at tau {:g}", cost, point.tau);
    Text(X(cost) + 7, kHeight - kBottom - 9, label, "start", kMark, "font-weight=\"bold\"");
    taken_.push_back({X(cost) - 4, Y(point), X(cost) + 190, kHeight - kBottom});
  }

  void Curve() {
    std::string path;
    for (const CalibrationPoint& point : points()) {
      path += fmt::format("{:.1f},{:.1f} ", X(point), Y(point));
    }
    path.pop_back();
    svg_ += fmt::format(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\" "
        "stroke-linejoin=\"round\"/>\n",
        path, kCurve);
    for (size_t i = 0; i < points().size(); ++i) Marker(i);
    // The ends and the marked points get their labels first; others where there is room.
    std::vector<size_t> order = {0, plot_.reference_point, points().size() - 1};
    for (size_t i = 0; i < points().size(); ++i) {
      if (points()[i].tau == plot_.default_tau) order.insert(order.begin(), i);
    }
    for (size_t i = 0; i < points().size(); ++i) order.push_back(i);
    std::vector<bool> labelled(points().size(), false);
    for (size_t i : order) {
      if (!labelled[i]) Label(i);
      labelled[i] = true;
    }
  }

  void Marker(size_t i) {
    const CalibrationPoint& point = points()[i];
    if (point.tau == plot_.default_tau) {
      svg_ += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"8\" fill=\"none\" stroke=\"{}\" "
          "stroke-width=\"1.6\"/>\n",
          X(point), Y(point), kCurve);
    }
    svg_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.6\" fill=\"{}\"/>\n", X(point),
                        Y(point), i == plot_.reference_point ? kMark : kCurve);
  }

  void Label(size_t i) {
    const CalibrationPoint& point = points()[i];
    std::string text = fmt::format("{:g}", point.tau);
    const bool is_default = point.tau == plot_.default_tau;
    if (i == 0 || is_default) text = "tau " + text;
    if (is_default) text += " (default)";
    const double width = 6.6 * static_cast<double>(text.size()) + 4;
    // Close to the point or not at all.
    const double x = X(point);
    const double y = Y(point);
    const double half = width / 2;
    const Box places[] = {{x - half, y - 26, x + half, y - 9},
                          {x + 9, y - 8, x + 9 + width, y + 9},
                          {x - 9 - width, y - 8, x - 9, y + 9},
                          {x - half, y + 9, x + half, y + 26}};
    for (const Box& box : places) {
      if (box.left < kLeft || box.right > kWidth || box.top < kTop - 12 ||
          box.bottom > kHeight - kBottom || Taken(box, i)) {
        continue;
      }
      Text((box.left + box.right) / 2, box.bottom - 4, text, "middle", kInk, "font-size=\"12\"");
      taken_.push_back(box);
      return;
    }
  }

  bool Taken(const Box& box, size_t self) const {
    for (const Box& other : taken_) {
      if (box.Overlaps(other)) return true;
    }
    for (size_t i = 0; i < points().size(); ++i) {
      const CalibrationPoint& point = points()[i];
      const Box dot{X(point) - 5, Y(point) - 5, X(point) + 5, Y(point) + 5};
      if (i != self && box.Overlaps(dot)) return true;
      if (i > 0 && Crosses(points()[i - 1], point, box)) return true;
    }
    return false;
  }

  // Whether the curve between two points passes through the box.
  bool Crosses(const CalibrationPoint& a, const CalibrationPoint& b, const Box& box) const {
    constexpr int kSteps = 48;
    for (int i = 0; i <= kSteps; ++i) {
      const double t = static_cast<double>(i) / kSteps;
      const double x = std::lerp(X(a), X(b), t);
      const double y = std::lerp(Y(a), Y(b), t);
      if (box.Overlaps({x - 1, y - 1, x + 1, y + 1})) return true;
    }
    return false;
  }

  const TradeoffPlot& plot_;
  std::vector<double> x_ticks_, y_ticks_;  // percent, and the quality's scale
  std::vector<Box> taken_;
  std::string svg_;
};

}  // namespace

std::vector<double> AxisTicks(double low, double high, int count) {
  const double raw = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> ticks;
  for (double i = std::floor(low / step + 1e-9); (i - 1) * step < high - 1e-9 * step; ++i) {
    ticks.push_back(i * step);
  }
  return ticks;
}

std::string RenderSvg(const TradeoffPlot& plot) { return Canvas(plot).Render(); }

}  // namespace dimmer
