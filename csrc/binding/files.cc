#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "../sys/raw_syscall.h"
#include "environment.h"

// An entry is always a directory's descriptor and one name of raw bytes: a path could lead through a symlink, and a string could
// not hold every name. A name with a slash, and "..", is refused here, so that no mistake above leads out of the tree.

namespace cloister {

namespace {

using Info = Napi::CallbackInfo;

int int_at(const Info& info, size_t i) { return info[i].As<Napi::Number>().Int32Value(); }
int64_t int64_at(const Info& info, size_t i) { return info[i].As<Napi::Number>().Int64Value(); }
uint32_t uint_at(const Info& info, size_t i) { return info[i].As<Napi::Number>().Uint32Value(); }

Napi::Value number(const Info& info, int64_t value) {
  return Napi::Number::New(info.Env(), static_cast<double>(value));
}
Napi::Value result_of(const Info& info, int64_t result) { return number(info, result < 0 ? -errno : result); }

Napi::Value descriptor_of(const Info& info, int fd) {
  if (fd < 0) return number(info, -errno);
  return number(info, Environment::of(info.Env()).own(fd));
}

// Bytes as a C string. `ok` is false if a NUL would cut them short.
struct Text {
  std::string bytes;
  bool ok;
  Text(const Info& info, size_t i) {
    const Napi::Uint8Array array = info[i].As<Napi::Uint8Array>();
    bytes.assign(reinterpret_cast<const char*>(array.Data()), array.ByteLength());
    ok = bytes.find('\0') == std::string::npos;
  }
  const char* get() const { return bytes.c_str(); }
};

struct Name : Text {
  Name(const Info& info, size_t i) : Text(info, i) { ok = ok && bytes != ".." && bytes.find('/') == std::string::npos; }
};

// The object that a descriptor is for, also one opened with O_PATH, which the f* calls refuse. proc_pid_fd(5)
struct Link {
  char path[32];
  explicit Link(int fd) { snprintf(path, sizeof(path), "/proc/self/fd/%d", fd); }
};

#define REFUSE_UNLESS(condition) \
  if (!(condition)) return number(info, -EINVAL)

// list(fd) → names of a directory but "." and "..", each with a NUL behind it
Napi::Value list(const Info& info) {
  const int fd = int_at(info, 0);
  if (lseek(fd, 0, SEEK_SET) < 0) return number(info, -errno);
  std::string names;
  alignas(struct dirent64) char buffer[32768];
  for (;;) {
    const long size = syscall(SYS_getdents64, fd, buffer, sizeof(buffer));
    if (size < 0) return number(info, -errno);
    if (size == 0) break;
    for (long at = 0; at < size;) {
      const struct dirent64* entry = reinterpret_cast<struct dirent64*>(buffer + at);
      if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
        names.append(entry->d_name, strlen(entry->d_name) + 1);
      at += entry->d_reclen;
    }
  }
  return Napi::Buffer<char>::Copy(info.Env(), names.data(), names.size());
}

// status(fd, name, into): statx(2), never of what a symlink leads to; with an empty name, of the descriptor itself.
Napi::Value status(const Info& info) {
  const Name name(info, 1);
  REFUSE_UNLESS(name.ok);
  Napi::Float64Array into = info[2].As<Napi::Float64Array>();
  REFUSE_UNLESS(into.ElementLength() >= 16);
  struct statx found;
  const int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (name.bytes.empty() ? AT_EMPTY_PATH : 0);
  if (statx(int_at(info, 0), name.get(), flags, STATX_BASIC_STATS, &found) < 0) return number(info, -errno);
  double* out = into.Data();
  *out++ = found.stx_mode;
  *out++ = found.stx_nlink;
  *out++ = found.stx_uid;
  *out++ = found.stx_gid;
  *out++ = static_cast<double>(found.stx_size);
  *out++ = found.stx_rdev_major;
  *out++ = found.stx_rdev_minor;
  *out++ = static_cast<double>(found.stx_mtime.tv_sec);
  *out++ = found.stx_mtime.tv_nsec;
  *out++ = static_cast<double>(found.stx_ctime.tv_sec);
  *out++ = found.stx_ctime.tv_nsec;
  *out++ = found.stx_dev_major;
  *out++ = found.stx_dev_minor;
  // A double holds 53 bits of the 64.
  *out++ = static_cast<double>(found.stx_ino >> 32);
  *out++ = static_cast<double>(found.stx_ino & 0xffffffff);
  *out++ = static_cast<double>(found.stx_blocks);
  return number(info, 0);
}

// open(fd, name, flags, mode, resolve): openat2(2); with an empty name, the directory itself
Napi::Value open_at(const Info& info) {
  const Name name(info, 1);
  REFUSE_UNLESS(name.ok);
  struct open_how how = {};
  how.flags = uint_at(info, 2) | O_NOFOLLOW | O_CLOEXEC;
  how.mode = uint_at(info, 3);
  how.resolve = uint_at(info, 4) | RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const char* entry = name.bytes.empty() ? "." : name.get();
  return descriptor_of(info, static_cast<int>(syscall(SYS_openat2, int_at(info, 0), entry, &how, sizeof(how))));
}

// reopen(fd, flags): the same object with other rights, not whatever has its name by now
Napi::Value reopen(const Info& info) {
  return descriptor_of(info, ::open(Link(int_at(info, 0)).path, int_at(info, 1) | O_CLOEXEC | O_NOCTTY));
}

Napi::Value make_directory(const Info& info) {
  const Name name(info, 1);
  REFUSE_UNLESS(name.ok);
  return result_of(info, mkdirat(int_at(info, 0), name.get(), uint_at(info, 2)));
}

// makeNode(fd, name, mode, major, minor)
Napi::Value make_node(const Info& info) {
  const Name name(info, 1);
  REFUSE_UNLESS(name.ok);
  return result_of(info,
                   mknodat(int_at(info, 0), name.get(), uint_at(info, 2), makedev(uint_at(info, 3), uint_at(info, 4))));
}

// makeLink(fd, name, target)
Napi::Value make_link(const Info& info) {
  const Name name(info, 1);
  const Text target(info, 2);
  REFUSE_UNLESS(name.ok && target.ok);
  return result_of(info, symlinkat(target.get(), int_at(info, 0), name.get()));
}

Napi::Value read_link(const Info& info) {
  const Name name(info, 1);
  REFUSE_UNLESS(name.ok);
  char target[PATH_MAX];
  const ssize_t size = readlinkat(int_at(info, 0), name.get(), target, sizeof(target));
  if (size < 0) return number(info, -errno);
  return Napi::Buffer<char>::Copy(info.Env(), target, static_cast<size_t>(size));
}

// link(fromFd, fromName, fd, name): linkat(2), of a symlink itself
Napi::Value link_at(const Info& info) {
  const Name from(info, 1);
  const Name name(info, 3);
  REFUSE_UNLESS(from.ok && name.ok);
  return result_of(info, linkat(int_at(info, 0), from.get(), int_at(info, 2), name.get(), 0));
}

// unlink(fd, name, flags)
Napi::Value unlink_at(const Info& info) {
  const Name name(info, 1);
  REFUSE_UNLESS(name.ok);
  return result_of(info, unlinkat(int_at(info, 0), name.get(), int_at(info, 2)));
}

// rename(fromFd, fromName, fd, name, flags): renameat2(2)
Napi::Value rename_at(const Info& info) {
  const Name from(info, 1);
  const Name name(info, 3);
  REFUSE_UNLESS(from.ok && name.ok);
  return result_of(info,
                   syscall(SYS_renameat2, int_at(info, 0), from.get(), int_at(info, 2), name.get(), uint_at(info, 4)));
}

// setOwner(fd, name, uid, gid); with an empty name, of the descriptor itself
Napi::Value set_owner(const Info& info) {
  const Name name(info, 1);
  REFUSE_UNLESS(name.ok);
  const int flags = AT_SYMLINK_NOFOLLOW | (name.bytes.empty() ? AT_EMPTY_PATH : 0);
  return result_of(info, fchownat(int_at(info, 0), name.get(), uint_at(info, 2), uint_at(info, 3), flags));
}

// setMode(fd, mode)
Napi::Value set_mode(const Info& info) {
  const int fd = int_at(info, 0);
  // fchmod(2) refuses a descriptor of O_PATH, chmod(2) by /proc takes one: fchmodat2 is newer (6.6).
  const int result = fchmod(fd, uint_at(info, 1));
  return result_of(info, result == 0 || errno != EBADF ? result : chmod(Link(fd).path, uint_at(info, 1)));
}

// setTime(fd, name, seconds, nanoseconds): of the last modification
Napi::Value set_time(const Info& info) {
  const Name name(info, 1);
  REFUSE_UNLESS(name.ok);
  const struct timespec times[2] = {{0, UTIME_OMIT}, {int64_at(info, 2), static_cast<long>(int64_at(info, 3))}};
  // An empty name: utimensat(2) with AT_EMPTY_PATH is newer (5.8) than what openat2 asks for, but not by much.
  const int flags = AT_SYMLINK_NOFOLLOW | (name.bytes.empty() ? AT_EMPTY_PATH : 0);
  return result_of(info, utimensat(int_at(info, 0), name.get(), times, flags));
}

// listAttributes(fd) → names, each with a NUL behind it
Napi::Value list_attributes(const Info& info) {
  const Link link(int_at(info, 0));
  // XATTR_LIST_MAX is 64 KiB: the kernel never gives more.
  char names[65536];
  const ssize_t size = listxattr(link.path, names, sizeof(names));
  if (size < 0) return number(info, -errno);
  return Napi::Buffer<char>::Copy(info.Env(), names, static_cast<size_t>(size));
}

Napi::Value get_attribute(const Info& info) {
  const Link link(int_at(info, 0));
  const Text name(info, 1);
  REFUSE_UNLESS(name.ok);
  char value[65536];  // XATTR_SIZE_MAX
  const ssize_t size = getxattr(link.path, name.get(), value, sizeof(value));
  if (size < 0) return number(info, -errno);
  return Napi::Buffer<char>::Copy(info.Env(), value, static_cast<size_t>(size));
}

Napi::Value set_attribute(const Info& info) {
  const Text name(info, 1);
  REFUSE_UNLESS(name.ok);
  const Napi::Uint8Array value = info[2].As<Napi::Uint8Array>();
  return result_of(info, setxattr(Link(int_at(info, 0)).path, name.get(), value.Data(), value.ByteLength(), 0));
}

Napi::Value remove_attribute(const Info& info) {
  const Text name(info, 1);
  REFUSE_UNLESS(name.ok);
  return result_of(info, removexattr(Link(int_at(info, 0)).path, name.get()));
}

// seek(fd, offset, 'data' or 'hole' as a boolean): lseek(2), SEEK_DATA and SEEK_HOLE
Napi::Value seek(const Info& info) {
  return result_of(info,
                   lseek(int_at(info, 0), int64_at(info, 1), info[2].ToBoolean().Value() ? SEEK_DATA : SEEK_HOLE));
}

// A part of a Uint8Array: array, offset, length.
bool part_of(const Info& info, size_t i, uint8_t** start, size_t* length) {
  Napi::Uint8Array array = info[i].As<Napi::Uint8Array>();
  const int64_t offset = int64_at(info, i + 1);
  const int64_t size = int64_at(info, i + 2);
  const int64_t all = static_cast<int64_t>(array.ByteLength());
  if (offset < 0 || size < 0 || offset > all || size > all - offset) return false;
  *start = array.Data() + offset;
  *length = static_cast<size_t>(size);
  return true;
}

// read(fd, buffer, offset, length, position): a position below 0 is that of the descriptor
Napi::Value read_at(const Info& info) {
  uint8_t* start;
  size_t length;
  REFUSE_UNLESS(part_of(info, 1, &start, &length));
  const int64_t position = int64_at(info, 4);
  return result_of(
      info, position < 0 ? ::read(int_at(info, 0), start, length) : pread(int_at(info, 0), start, length, position));
}

Napi::Value write_at(const Info& info) {
  uint8_t* start;
  size_t length;
  REFUSE_UNLESS(part_of(info, 1, &start, &length));
  const int64_t position = int64_at(info, 4);
  return result_of(
      info, position < 0 ? ::write(int_at(info, 0), start, length) : pwrite(int_at(info, 0), start, length, position));
}

// copyRange(from, to, offset, length): copy_file_range(2), at the same offset of both
Napi::Value copy_range(const Info& info) {
  loff_t from = int64_at(info, 2);
  loff_t to = from;
  return result_of(
      info, copy_file_range(int_at(info, 0), &from, int_at(info, 1), &to, static_cast<size_t>(int64_at(info, 3)), 0));
}

Napi::Value truncate(const Info& info) { return result_of(info, ftruncate(int_at(info, 0), int64_at(info, 1))); }

Napi::Value sync_file(const Info& info) { return result_of(info, fsync(int_at(info, 0))); }

Napi::Value sync_filesystem(const Info& info) { return result_of(info, syncfs(int_at(info, 0))); }

// preparePipe(fd, size): reading and writing do not wait; as many bytes fit in it, if we may have so much (fcntl(2), F_SETPIPE_SZ)
Napi::Value prepare_pipe(const Info& info) {
  const int fd = int_at(info, 0);
  (void)fcntl(fd, F_SETPIPE_SZ, int_at(info, 1));
  return result_of(info, fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
}

// wait(fd, forWriting, milliseconds): poll(2). 0 if nothing has happened. A worker that is told to end does so between two calls.
Napi::Value wait(const Info& info) {
  struct pollfd watch = {int_at(info, 0), static_cast<short>(info[1].ToBoolean().Value() ? POLLOUT : POLLIN), 0};
  return result_of(info, poll(&watch, 1, int_at(info, 2)));
}

}  // namespace

void define_files(Napi::Env env, Napi::Object exports) {
  Napi::Object files = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*function)(const Info&)) {
    files.Set(name, Napi::Function::New(env, function, name));
  };
  add("list", list);
  add("status", status);
  add("open", open_at);
  add("reopen", reopen);
  add("makeDirectory", make_directory);
  add("makeNode", make_node);
  add("makeLink", make_link);
  add("readLink", read_link);
  add("link", link_at);
  add("unlink", unlink_at);
  add("rename", rename_at);
  add("setOwner", set_owner);
  add("setMode", set_mode);
  add("setTime", set_time);
  add("listAttributes", list_attributes);
  add("getAttribute", get_attribute);
  add("setAttribute", set_attribute);
  add("removeAttribute", remove_attribute);
  add("seek", seek);
  add("read", read_at);
  add("write", write_at);
  add("copyRange", copy_range);
  add("truncate", truncate);
  add("syncFile", sync_file);
  add("syncFilesystem", sync_filesystem);
  add("preparePipe", prepare_pipe);
  add("wait", wait);
  exports.Set("files", files);
}

}  // namespace cloister
