#include "server/ctl/text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace dimmer::ctl {
namespace {

// Reads one code point; negative where the bytes are not UTF-8. `*size` is at least 1.
int32_t Decode(std::string_view text, size_t* size) {
  utf8proc_int32_t code = -1;
  const auto read = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                     static_cast<utf8proc_ssize_t>(text.size()), &code);
  *size = read > 0 ? static_cast<size_t>(read) : 1;
  return read > 0 ? code : -1;
}

size_t Columns(int32_t code) { return static_cast<size_t>(std::max(0, utf8proc_charwidth(code))); }

bool Steers(int32_t code) {
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_CC:  // control
    case UTF8PROC_CATEGORY_CF:  // format, such as a change of the writing direction
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return true;
    default:
      return false;
  }
}

std::string Scaled(double value, const char* format) {
  constexpr std::array<const char*, 6> kPrefixes = {"", " k", " M", " G", " T", " P"};
  size_t prefix = 0;
  while (std::abs(value) >= 1000 && prefix + 1 < kPrefixes.size()) {
    value /= 1000;
    ++prefix;
  }
  return fmt::format(fmt::runtime(format), value) + kPrefixes[prefix];
}

bool Same(const Ink& a, const Ink& b) {
  return a.color == b.color && a.bold == b.bold && a.dim == b.dim;
}

// With '?' for what is not UTF-8, or would steer the terminal and is not in `kept`.
std::string Replaced(std::string_view text, std::string_view kept) {
  std::string out;
  while (!text.empty()) {
    size_t size = 1;
    const int32_t code = Decode(text, &size);
    const bool stays = code < 0x80 && code >= 0 && kept.find(char(code)) != std::string_view::npos;
    if (code < 0 || (Steers(code) && !stays)) {
      out += '?';
    } else {
      out += text.substr(0, size);
    }
    text.remove_prefix(size);
  }
  return out;
}

}  // namespace

std::string Printable(std::string_view text) { return Replaced(text, ""); }

std::string PrintableText(std::string_view text) { return Replaced(text, "\n\t"); }

size_t Width(std::string_view text) {
  size_t width = 0;
  while (!text.empty()) {
    size_t size = 1;
    width += Columns(Decode(text, &size));
    text.remove_prefix(size);
  }
  return width;
}

size_t Width(const Line& line) {
  size_t width = 0;
  for (const Span& span : line) width += Width(span.text);
  return width;
}

std::string Clip(std::string_view text, size_t width) {
  if (Width(text) <= width) return std::string(text);
  if (width == 0) return "";
  size_t used = 0, end = 0;
  while (end < text.size()) {
    size_t size = 1;
    const size_t columns = Columns(Decode(text.substr(end), &size));
    if (used + columns > width - 1) break;
    used += columns;
    end += size;
  }
  return std::string(text.substr(0, end)) + "~";
}

Line Clip(const Line& line, size_t width) {
  if (Width(line) <= width) return line;
  Line out;
  size_t used = 0;
  for (size_t i = 0; i < line.size() && used < width; ++i) {
    const size_t rest = Width(Line(line.begin() + static_cast<ptrdiff_t>(i) + 1, line.end()));
    const size_t own = Width(line[i].text);
    // The span that meets the edge is cut, and shows it.
    const bool whole = used + own < width || (used + own == width && rest == 0);
    out.push_back({whole ? line[i].text : Clip(line[i].text + "~", width - used), line[i].ink});
    used += Width(out.back().text);
    if (!whole) break;
  }
  return out;
}

std::string Left(std::string_view text, size_t width) {
  const size_t own = Width(text);
  return std::string(text) + std::string(own < width ? width - own : 0, ' ');
}

std::string Right(std::string_view text, size_t width) {
  const size_t own = Width(text);
  return std::string(own < width ? width - own : 0, ' ') + std::string(text);
}

Line Spread(Line left, const Line& right, size_t width) {
  const size_t used = Width(left) + Width(right);
  if (Width(right) == 0 || used + 1 > width) return Clip(left, width);
  left.push_back({std::string(width - used, ' '), kPlain});
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

std::string Paint(const Line& line, bool color) {
  std::string out;
  for (const Span& span : line) {
    if (!color || Same(span.ink, kPlain)) {
      out += span.text;
      continue;
    }
    std::string codes;
    if (span.ink.bold) codes += ";1";
    if (span.ink.dim) codes += ";2";
    if (span.ink.color != 0) codes += fmt::format(";38;5;{}", span.ink.color);
    out += fmt::format("\033[{}m{}\033[0m", codes.substr(1), span.text);
  }
  return out;
}

std::string Paint(const std::vector<Line>& lines, bool color) {
  std::string out;
  for (const Line& line : lines) {
    std::string text = Paint(line, color);
    if (!color) text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
  return out;
}

std::string Flops(double flops, const std::string& unit) {
  const std::string text = Scaled(flops, flops < 1000 ? "{:.0f}" : "{:.1f}");
  const bool prefixed = text.find(' ') != std::string::npos;
  return unit.empty() ? text : text + (prefixed ? "" : " ") + unit;
}

std::string Percent(double share, int digits) {
  return fmt::format("{:.{}f}%", 100 * share, digits);
}

std::string Seconds(double seconds) {
  if (seconds < 0.9995e-3) return fmt::format("{:.0f} us", seconds * 1e6);
  if (seconds < 0.9995) return fmt::format("{:.{}f} ms", seconds * 1e3, seconds < 0.1 ? 1 : 0);
  return fmt::format("{:.2f} s", seconds);
}

std::string Rate(double per_second) { return Scaled(per_second, "{:.1f}"); }

std::string Bytes(double bytes) {
  constexpr std::array<const char*, 5> kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string Number(double value) { return fmt::format("{:.6g}", value); }

std::string Interval(double low, double high) {
  return fmt::format("[{}, {}]", Number(low), Number(high));
}

std::string Bar(double share, size_t width, bool unicode) {
  constexpr std::array<const char*, 8> kEighths = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  if (!(share > 0) || width == 0) return "";
  const double columns = std::min(share, 1.0) * double(width);
  if (!unicode) return std::string(std::max<size_t>(1, size_t(std::lround(columns))), '#');
  const auto eighths = std::max<size_t>(1, static_cast<size_t>(std::lround(columns * 8)));
  std::string bar;
  for (size_t i = 0; i < eighths / 8; ++i) bar += "█";
  return bar + kEighths[eighths % 8];
}

std::string Sparkline(const std::vector<double>& values, double top, size_t width, bool unicode) {
  constexpr std::array<const char*, 8> kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  constexpr std::array<const char*, 8> kAscii = {"_", ".", ":", "-", "=", "+", "*", "#"};
  std::string out;
  for (size_t i = values.size() - std::min(width, values.size()); i < values.size(); ++i) {
    const double share = top > 0 && values[i] > 0 ? std::min(values[i] / top, 1.0) : 0;
    const auto level = static_cast<size_t>(std::lround(share * 7));
    out += unicode ? kBlocks[level] : kAscii[level];
  }
  return out;
}

}  // namespace dimmer::ctl
