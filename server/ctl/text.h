// Text for a terminal: pieces with ink, put on lines, measured in columns, painted last.
//
// Thread safety: pure functions.
#ifndef DIMMER_SERVER_CTL_TEXT_H_
#define DIMMER_SERVER_CTL_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dimmer::ctl {

struct Ink {
  uint8_t color = 0;  // of the 256 that terminals know; 0: the terminal's own
  bool bold = false;
  bool dim = false;
};

inline constexpr Ink kPlain;
inline constexpr Ink kBold = {.bold = true};
inline constexpr Ink kDim = {.dim = true};
inline constexpr Ink kLight = {.color = 214, .bold = true};  // the light's amber
inline constexpr Ink kGood = {.color = 71};
inline constexpr Ink kBad = {.color = 203, .bold = true};

struct Span {
  std::string text;
  Ink ink;
};
using Line = std::vector<Span>;

// What was written elsewhere, safe to print: control characters, which could steer the terminal,
// and bytes that are not UTF-8 become '?'.
std::string Printable(std::string_view text);
// The same for text of many lines: '\n' and '\t' stay.
std::string PrintableText(std::string_view text);

// Columns, for printable UTF-8.
size_t Width(std::string_view text);
size_t Width(const Line& line);
// At most `width` columns; cut text ends in '~'.
std::string Clip(std::string_view text, size_t width);
Line Clip(const Line& line, size_t width);
// Padded with spaces to `width` columns; longer text stays as it is.
std::string Left(std::string_view text, size_t width);
std::string Right(std::string_view text, size_t width);
// `left`, and `right` at the end of `width` columns; without `right` where both do not fit.
Line Spread(Line left, const Line& right, size_t width);

// With escape sequences if `color`; no newline.
std::string Paint(const Line& line, bool color);
// All lines, each with a newline.
std::string Paint(const std::vector<Line>& lines, bool color);

std::string Flops(double flops, const std::string& unit = "");  // "299.4 M", "299.4 MFLOPs"
std::string Percent(double share, int digits);                  // "47.3%"
std::string Seconds(double seconds);                            // "870 us", "4.1 ms", "1.20 s"
std::string Rate(double per_second);                            // "0.4", "182.4", "12.3 k"
std::string Bytes(double bytes);                                // "87.5 MiB"
std::string Number(double value);                               // as short as says it: "0.05", "0"
std::string Interval(double low, double high);                  // "[0, 1]"

// A bar of at most `width` columns for `share` in [0, 1], in eighths of a column; '#' where only
// ASCII can be shown. More than nothing always shows.
std::string Bar(double share, size_t width, bool unicode);
// One column per value, the last `width` of them, from 0 to `top`.
std::string Sparkline(const std::vector<double>& values, double top, size_t width, bool unicode);

}  // namespace dimmer::ctl

#endif  // DIMMER_SERVER_CTL_TEXT_H_
