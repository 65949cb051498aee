#pragma once

#include <cstddef>
#include <vector>

#include "../sys/unique_fd.h"

namespace cloister {

struct Pipe {
  UniqueFd read, write;
  explicit operator bool() const { return static_cast<bool>(read); }
};

// Pipes are lent while something is in them: an idle connection has none, and a thousand of which few are behind have few.
//
// There are never more than `most`: a user's pipes have 16384 pages together (fs.pipe-user-pages-soft, pipe(7)), and who has used
// them up gets small ones, everywhere, for the standard streams of programs, too. A pipe is 16 pages.
class PipePool {
 public:
  explicit PipePool(size_t most) : most_(most) {}

  Pipe take();                // none: all are lent, or the kernel has no more
  void give_back(Pipe pipe);  // empty
  void discard(Pipe pipe);    // with what is in it
  void clear();               // closes those that nobody has

  size_t made() const { return made_; }

 private:
  const size_t most_;
  size_t made_ = 0;
  std::vector<Pipe> idle_;
};

}  // namespace cloister
