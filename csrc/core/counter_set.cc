#include "counter_set.h"

#include <errno.h>
#include <fcntl.h>

#include <utility>

#include "counters.h"

namespace cloister {

CounterSet::CounterSet(std::vector<CounterFile> files, bool keep) : files_(std::move(files)), keep_(keep) {}

CounterLook CounterSet::read() {
  if (keep_)
    std::call_once(open_, [this] {
      opened_.reserve(files_.size());
      for (const CounterFile& each : files_)
        opened_.emplace_back(open(each.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    });
  CounterLook look;
  for (size_t i = 0; i < files_.size(); i++) {
    FileText file;
    if (!keep_) file.path = files_[i].path;
    if (keep_) file.fd = opened_[i].get();
    if (keep_ && file.fd < 0)
      file.error = -ENOENT;
    else
      read_whole(file);
    if (!files_[i].keys)
      look.texts.push_back(std::move(file));
    else
      for (const std::string& key : *files_[i].keys) look.numbers.push_back(counter_in(file.text, key));
  }
  return look;
}

}  // namespace cloister
