#include "descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstring>

#include "../sys/raw_syscall.h"
#include "environment.h"

namespace cloister {

namespace {

int int_at(const Napi::CallbackInfo& info, size_t i) { return info[i].As<Napi::Number>().Int32Value(); }

Napi::Value number(const Napi::CallbackInfo& info, double value) { return Napi::Number::New(info.Env(), value); }

Napi::Value result_of(const Napi::CallbackInfo& info, int result) { return number(info, result < 0 ? -errno : result); }

// A new descriptor, closed with the environment at the latest.
Napi::Value descriptor_of(const Napi::CallbackInfo& info, int result) {
  if (result >= 0) Environment::of(info.Env()).own(result);
  return result_of(info, result);
}

Napi::Value pair_of(const Napi::CallbackInfo& info, int result, const int* fds) {
  if (result < 0) return number(info, -errno);
  Napi::Array pair = Napi::Array::New(info.Env(), 2);
  Environment& environment = Environment::of(info.Env());
  pair[0u] = Napi::Number::New(info.Env(), environment.own(fds[0]));
  pair[1u] = Napi::Number::New(info.Env(), environment.own(fds[1]));
  return pair;
}

// pipe() → [read, write]
Napi::Value pipe(const Napi::CallbackInfo& info) {
  int fds[2];
  return pair_of(info, pipe2(fds, O_CLOEXEC), fds);
}

// socketPair(credentials) → two connected unix stream sockets; the first learns who has sent a message if that is true
Napi::Value socket_pair(const Napi::CallbackInfo& info) {
  int fds[2];
  const int result = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);
  const int on = 1;
  if (result == 0 && info.Length() > 0 && info[0].ToBoolean().Value())
    (void)setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
  return pair_of(info, result, fds);
}

// duplicate(fd, atLeast)
Napi::Value duplicate(const Napi::CallbackInfo& info) {
  return descriptor_of(info, fcntl(int_at(info, 0), F_DUPFD_CLOEXEC, int_at(info, 1)));
}

// openFile(path, flags = O_RDONLY). What fs.openSync opens in a worker, only fs.closeSync may close: Node closes the rest itself.
Napi::Value open_file(const Napi::CallbackInfo& info) {
  const int flags = info.Length() > 1 ? int_at(info, 1) : O_RDONLY;
  return descriptor_of(info, ::open(info[0].As<Napi::String>().Utf8Value().c_str(), flags | O_CLOEXEC | O_NOCTTY));
}

// writeText(fd, text): one write(2), as a file of the kernel's wants it.
Napi::Value write_text(const Napi::CallbackInfo& info) {
  const std::string text = info[1].As<Napi::String>().Utf8Value();
  return result_of(info, static_cast<int>(::write(int_at(info, 0), text.data(), text.size())));
}

Napi::Value event_fd(const Napi::CallbackInfo& info) {
  return descriptor_of(info, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

Napi::Value close(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).disown(int_at(info, 0));
  return result_of(info, ::close(int_at(info, 0)));
}

// handOver(fd): a stream of Node's will close it.
Napi::Value hand_over(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).disown(int_at(info, 0));
  return info[0];
}

// setOwner(fd, uid, gid): fchown(2)
Napi::Value set_owner(const Napi::CallbackInfo& info) {
  return result_of(info, fchown(int_at(info, 0), info[1].As<Napi::Number>().Uint32Value(),
                                info[2].As<Napi::Number>().Uint32Value()));
}

// openProcess(pid): pidfd_open(2)
Napi::Value open_process(const Napi::CallbackInfo& info) {
  const long fd = raw_syscall(SYS_pidfd_open, int_at(info, 0), 0);
  return number(info, static_cast<double>(Environment::of(info.Env()).own(static_cast<int>(fd))));
}

// signalProcess(pidfd, signal): pidfd_send_signal(2)
Napi::Value signal_process(const Napi::CallbackInfo& info) {
  return number(info, static_cast<double>(raw_syscall(SYS_pidfd_send_signal, int_at(info, 0), int_at(info, 1), 0, 0)));
}

// namespaceType(fd): the CLONE_NEW* flag; namespaceOwner(fd), namespaceParent(fd): a new descriptor. ioctl_ns(2)
Napi::Value namespace_type(const Napi::CallbackInfo& info) {
  return result_of(info, ioctl(int_at(info, 0), NS_GET_NSTYPE));
}
Napi::Value namespace_owner(const Napi::CallbackInfo& info) {
  return descriptor_of(info, ioctl(int_at(info, 0), NS_GET_USERNS));
}
Napi::Value namespace_parent(const Napi::CallbackInfo& info) {
  return descriptor_of(info, ioctl(int_at(info, 0), NS_GET_PARENT));
}

// lockRange(fd, start, length, shared): 0, or -EAGAIN if somebody else has it. An open file description lock, which ends with
// the last descriptor of that description, so with the process at the latest (fcntl(2)).
Napi::Value lock_range(const Napi::CallbackInfo& info) {
  struct flock lock = {};
  lock.l_type = info[3].ToBoolean() ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = info[1].As<Napi::Number>().Int64Value();
  lock.l_len = info[2].As<Napi::Number>().Int64Value();
  return result_of(info, fcntl(int_at(info, 0), F_OFD_SETLK, &lock));
}

Napi::Value unlock_range(const Napi::CallbackInfo& info) {
  struct flock lock = {};
  lock.l_type = F_UNLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = info[1].As<Napi::Number>().Int64Value();
  lock.l_len = info[2].As<Napi::Number>().Int64Value();
  return result_of(info, fcntl(int_at(info, 0), F_OFD_SETLK, &lock));
}

// setWindowSize(fd, columns, rows): ioctl_tty(2), TIOCSWINSZ
Napi::Value set_window_size(const Napi::CallbackInfo& info) {
  struct winsize size = {};
  size.ws_col = static_cast<unsigned short>(int_at(info, 1));
  size.ws_row = static_cast<unsigned short>(int_at(info, 2));
  return result_of(info, ioctl(int_at(info, 0), TIOCSWINSZ, &size));
}

// waitingBytes(fd): what can be read at once. FIONREAD, pipe(7)
Napi::Value waiting_bytes(const Napi::CallbackInfo& info) {
  int size = 0;
  const int result = ioctl(int_at(info, 0), FIONREAD, &size);
  return result_of(info, result < 0 ? result : size);
}

// One message of a child's: a descriptor, and who has sent it if the socket passes credentials. The descriptor, or -errno.
int receive(int socket, struct ucred* sender) {
  char byte;
  struct iovec data = {&byte, 1};
  alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))] = {};
  struct msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (size < 0) return -errno;
  int fd = -EPIPE;
  for (struct cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET) continue;
    if (header->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    if (header->cmsg_type == SCM_CREDENTIALS) memcpy(sender, CMSG_DATA(header), sizeof(*sender));
  }
  return fd;
}

// receiveDescriptor(socket): what a send_fd step has sent. -EAGAIN if nothing is there, -EPIPE at the end.
Napi::Value receive_descriptor(const Napi::CallbackInfo& info) {
  struct ucred sender;
  const int fd = receive(int_at(info, 0), &sender);
  return number(info, Environment::of(info.Env()).own(fd));
}

// receiveProcess(socket) → [pidfd, pid] of the process that has sent its own pidfd. The pid is the kernel's word, in our
// namespace, and is known even when that process is gone by now, which a pidfd does not tell any more. unix(7)
Napi::Value receive_process(const Napi::CallbackInfo& info) {
  struct ucred sender = {};
  const int fd = receive(int_at(info, 0), &sender);
  if (fd < 0) return number(info, fd);
  Napi::Array pair = Napi::Array::New(info.Env(), 2);
  pair[0u] = Napi::Number::New(info.Env(), Environment::of(info.Env()).own(fd));
  pair[1u] = Napi::Number::New(info.Env(), sender.pid);
  return pair;
}

// ignoredSignals(): those that this process ignores, which exec would hand on. A bit per signal, as SigIgn of proc(5).
Napi::Value ignored_signals(const Napi::CallbackInfo& info) {
  uint64_t mask = 0;
  for (int signal = 1; signal < NSIG; signal++) {
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) mask |= 1ull << (signal - 1);
  }
  return Napi::BigInt::New(info.Env(), mask);
}

// hasChanged(fd): proc_pid_mountinfo(5), poll
Napi::Value has_changed(const Napi::CallbackInfo& info) {
  struct pollfd watch = {int_at(info, 0), POLLPRI, 0};
  return Napi::Boolean::New(info.Env(), poll(&watch, 1, 0) > 0);
}

}  // namespace

void define_descriptors(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("pipe", pipe);
  add("socketPair", socket_pair);
  add("duplicate", duplicate);
  add("openFile", open_file);
  add("writeText", write_text);
  add("eventFd", event_fd);
  add("close", close);
  add("handOver", hand_over);
  add("setOwner", set_owner);
  add("openProcess", open_process);
  add("signalProcess", signal_process);
  add("namespaceType", namespace_type);
  add("namespaceOwner", namespace_owner);
  add("namespaceParent", namespace_parent);
  add("lockRange", lock_range);
  add("unlockRange", unlock_range);
  add("setWindowSize", set_window_size);
  add("waitingBytes", waiting_bytes);
  add("receiveDescriptor", receive_descriptor);
  add("receiveProcess", receive_process);
  add("ignoredSignals", ignored_signals);
  add("hasChanged", has_changed);
}

int receive_sent_descriptor(int socket) {
  struct ucred sender;
  return receive(socket, &sender);
}

}  // namespace cloister
