#include "file_text.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../sys/unique_fd.h"

namespace cloister {

void read_whole(FileText& file) {
  UniqueFd opened;
  int fd = file.fd;
  if (fd < 0) {
    opened.reset(open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    fd = opened.get();
    if (fd < 0) {
      file.error = -errno;
      return;
    }
  }
  // A file of a cgroup is written anew when it is read from its start; few are longer than a page (seq_read).
  char buffer[16384];
  for (off_t at = 0;;) {
    const ssize_t size = pread(fd, buffer, sizeof(buffer), at);
    if (size < 0 && errno == EINTR) continue;
    struct stat about;
    if (size < 0 && errno == EISDIR && fstat(fd, &about) == 0) {
      file.text = std::to_string(about.st_nlink);
      return;
    }
    if (size < 0) file.error = -errno;
    if (size <= 0) return;
    file.text.append(buffer, static_cast<size_t>(size));
    at += size;
  }
}

}  // namespace cloister
