#include "counters.h"

#include <cmath>
#include <limits>

namespace cloister {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// By hand: strtod asks the locale, and from_chars of a double is younger than C++20 compilers are.
double number_at(std::string_view text) {
  if (text.substr(0, 3) == "max") return std::numeric_limits<double>::infinity();
  const bool negative = !text.empty() && text[0] == '-';
  size_t at = negative ? 1 : 0;
  double value = 0;
  bool any = false;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; at++, any = true)
    value = value * 10 + (text[at] - '0');
  if (!any) return kNone;
  if (at < text.size() && text[at] == '.') {
    double parts = 0, unit = 1;
    for (at++; at < text.size() && text[at] >= '0' && text[at] <= '9'; at++, unit *= 10)
      parts = parts * 10 + (text[at] - '0');
    value += parts / unit;
  }
  return negative ? -value : value;
}

// What follows the first word of the line that begins with it.
std::string_view line_of(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    if (line.size() > name.size() && line[name.size()] == ' ' && line.substr(0, name.size()) == name)
      return line.substr(name.size() + 1);
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return {};
}

}  // namespace

double counter_in(std::string_view text, std::string_view key) {
  if (key.empty()) return number_at(text);
  const size_t space = key.find(' ');
  std::string_view rest = line_of(text, key.substr(0, space));
  if (space == std::string_view::npos) return number_at(rest);
  const std::string_view name = key.substr(space + 1);
  while (!rest.empty()) {
    const size_t end = rest.find(' ');
    const std::string_view pair = rest.substr(0, end);
    if (pair.size() > name.size() && pair[name.size()] == '=' && pair.substr(0, name.size()) == name)
      return number_at(pair.substr(name.size() + 1));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return kNone;
}

}  // namespace cloister
