// The three forms of a cgroup's counters, and texts that are none of them.

#include "core/counters.h"

#include <cmath>
#include <string>

#include "check.h"

using namespace cloister;

int main() {
  CHECK_EQ(counter_in("4096\n", ""), 4096);
  CHECK_EQ(counter_in("-1\n", ""), -1);
  CHECK_EQ(counter_in("17\n23\n", ""), 17);
  CHECK(std::isinf(counter_in("max\n", "")));
  for (const char* text : {"", "\n", "THAWED\n", "-\n", "."}) CHECK(std::isnan(counter_in(text, "")));
  // PAGE_COUNTER_MAX: more digits than a double has.
  CHECK(counter_in("9223372036854771712\n", "") > 9.2e18);

  const char* const flat = "anon 1\nanon_thp 2\nfile 3\nkernel 4";
  CHECK_EQ(counter_in(flat, "anon"), 1);
  CHECK_EQ(counter_in(flat, "anon_thp"), 2);
  CHECK_EQ(counter_in(flat, "kernel"), 4);
  for (const char* key : {"ano", "thp", "kernel_stack", "1"}) CHECK(std::isnan(counter_in(flat, key)));
  CHECK(std::isnan(counter_in("anon\n", "anon")));
  CHECK(std::isnan(counter_in("anon \n", "anon")));

  const char* const nested = "some avg10=0.25 avg60=12.50 avg300=100.00 total=77\nfull avg10=0.00 total=5\n";
  CHECK(counter_in(nested, "some avg10") == 0.25);
  CHECK(counter_in(nested, "some avg60") == 12.5);
  CHECK_EQ(counter_in(nested, "some total"), 77);
  CHECK_EQ(counter_in(nested, "full total"), 5);
  for (const char* key : {"full avg60", "some avg", "none total", "some "}) CHECK(std::isnan(counter_in(nested, key)));

  // Any cut of any of them is read to its end and no further (a sanitizer watches).
  for (const std::string& whole : {std::string(flat), std::string(nested), std::string("max\n")})
    for (size_t end = 0; end <= whole.size(); end++) {
      const std::string cut = whole.substr(0, end);
      for (const char* key : {"", "anon", "kernel", "some avg300", "full total"})
        (void)counter_in(std::string_view(cut), key);
    }
  return result();
}
