#include "read_files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "../sys/unique_fd.h"

namespace cloister {

namespace {

struct File {
  int fd = -1;  // of the caller's, kept open until the promise settles; -1: `path`
  std::string path;
  std::string text;
  int error = 0;
};

void read_whole(File& file) {
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

// All files in one visit to libuv's pool: Node's own fs.promises.readFile makes four for each.
class Reading : public Napi::AsyncWorker {
 public:
  Reading(Napi::Env env, std::vector<File> files)
      : Napi::AsyncWorker(env, "cloister:readFiles"), deferred_(env), files_(std::move(files)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    for (File& file : files_) read_whole(file);
  }

  void OnOK() override {
    Napi::Array result = Napi::Array::New(Env(), files_.size());
    for (uint32_t i = 0; i < files_.size(); i++) {
      const File& file = files_[i];
      if (file.error != 0)
        result[i] = Napi::Number::New(Env(), file.error);
      else
        result[i] = Napi::String::New(Env(), file.text);
    }
    deferred_.Resolve(result);
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  std::vector<File> files_;
};

}  // namespace

Napi::Value read_files(const Napi::CallbackInfo& info) {
  const Napi::Array list = info[0].As<Napi::Array>();
  std::vector<File> files(list.Length());
  for (uint32_t i = 0; i < list.Length(); i++) {
    const Napi::Value entry = list.Get(i);
    if (entry.IsNumber())
      files[i].fd = entry.As<Napi::Number>().Int32Value();
    else
      files[i].path = entry.As<Napi::String>().Utf8Value();
  }
  Reading* reading = new Reading(info.Env(), std::move(files));
  const Napi::Promise promise = reading->promise();
  reading->Queue();
  return promise;
}

}  // namespace cloister
