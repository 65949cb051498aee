#pragma once

#include <string_view>

namespace cloister {

// One counter of a cgroup's file; NaN if it is not there.
//   ""            the file is the number, its first line
//   "anon"        flat keyed: a line `anon 4096`
//   "some avg10"  nested keyed: a line `some avg10=0.00 avg60=…`
// The forms are those of Documentation/admin-guide/cgroup-v2.rst, "Interface File Formats"; 'max' is infinity.
double counter_in(std::string_view text, std::string_view key);

}  // namespace cloister
