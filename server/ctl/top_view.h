// One frame of `dimmerctl top`.
//
// Thread safety: RenderTop() is a pure function; a TopHistory belongs to one thread.
#ifndef DIMMER_SERVER_CTL_TOP_VIEW_H_
#define DIMMER_SERVER_CTL_TOP_VIEW_H_

#include <map>
#include <string>
#include <vector>

#include "server/ctl/text.h"
#include "server/ctl/top_stats.h"

namespace dimmer::ctl {

// The last intervals of each model, for the small curves.
struct TopHistory {
  struct Curves {
    std::vector<double> requests, tau, saved, p50;  // oldest first
  };
  std::map<std::string, Curves> models;

  void Add(const std::vector<ModelWindow>& windows);
};

struct TopFrame {
  std::string address;
  v1::WatchStatsResponse now;
  std::vector<ModelWindow> windows;  // empty: the first interval is not over
  bool keys = false;                 // says how to leave
};

struct TopShape {
  size_t columns = 100;
  size_t rows = 0;  // 0: as many as there are
  bool unicode = true;
};

// No line is wider than `columns`. Where `rows` do not suffice the last line says so.
std::vector<Line> RenderTop(const TopFrame& frame, const TopHistory& history,
                            const TopShape& shape);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_TOP_VIEW_H_
