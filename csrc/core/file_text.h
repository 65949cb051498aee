#pragma once

#include <string>

namespace cloister {

// A file by a descriptor of the caller's, or by its path where that is -1.
struct FileText {
  int fd = -1;
  std::string path;
  std::string text;
  int error = 0;
};

// The whole of it into `text`, of a directory its number of links; or a negative errno into `error`.
void read_whole(FileText& file);

}  // namespace cloister
