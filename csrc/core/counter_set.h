#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "../sys/unique_fd.h"
#include "file_text.h"

namespace cloister {

// A file, and the names of the counters in it; without names its text is wanted.
struct CounterFile {
  std::string path;
  std::optional<std::vector<std::string>> keys;
};

// Numbers and texts in the order in which they were asked for.
struct CounterLook {
  std::vector<double> numbers;
  std::vector<FileText> texts;
};

// Files that are read together, from any thread, and each from its own.
class CounterSet {
 public:
  CounterSet(std::vector<CounterFile> files, bool keep);

  CounterLook read();
  const std::vector<CounterFile>& files() const { return files_; }

 private:
  const std::vector<CounterFile> files_;
  const bool keep_;
  std::once_flag open_;
  std::vector<UniqueFd> opened_;
};

}  // namespace cloister
