#include "pump.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

namespace cloister {

namespace {

constexpr int kEvents = 256;

void prepare(int socket) {
  // splice(2) waits for a socket that may wait, whatever its own flags say.
  (void)fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK);
  // Whoever sent has decided already what to gather (tcp(7)). A unix socket refuses, and gathers nothing.
  const int on = 1;
  (void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

int error_of(int socket) {
  int error = 0;
  socklen_t size = sizeof(error);
  return getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) != 0 ? errno : error;
}

// close(2) is a reset now: the peer reads ECONNRESET, not an end that could be taken for a whole answer. socket(7), SO_LINGER
void reset_at_close(int socket) {
  const struct linger at_once = {1, 0};
  (void)setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

}  // namespace

int Pump::add(uint64_t id, UniqueFd one, UniqueFd other, std::vector<uint8_t> first_of_one,
              std::vector<uint8_t> first_of_other, std::shared_ptr<Pace> pace_of_one,
              std::shared_ptr<Pace> pace_of_other) {
  if (const int error = start()) {
    reset_at_close(one.get());
    reset_at_close(other.get());
    return error;
  }
  const int fds[2] = {one.get(), other.get()};
  std::unique_ptr<Pair> pair(new Pair{
      id,
      {{nullptr, std::move(one), Flow(fds[0], fds[1], std::move(first_of_one), std::move(pace_of_one))},
       {nullptr, std::move(other), Flow(fds[1], fds[0], std::move(first_of_other), std::move(pace_of_other))}}});
  {
    std::lock_guard lock(mutex_);
    added_.push_back(std::move(pair));
  }
  eventfd_write(wake_.get(), 1);
  return 0;
}

int Pump::start() {
  if (started_) return 0;
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return errno;
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return errno;
  struct epoll_event event = {};
  event.events = EPOLLIN;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0) return errno;
  epoll_ = std::move(epoll);
  wake_ = std::move(wake);
  stopping_ = false;
  const int error = pthread_create(&thread_, nullptr, main, this);
  started_ = error == 0;
  return error;
}

void Pump::stop() {
  if (!started_) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  eventfd_write(wake_.get(), 1);
  pthread_join(thread_, nullptr);
  started_ = false;
  epoll_.reset();
  wake_.reset();
}

void* Pump::main(void* self) {
  // Signals stay with Node's threads; SIGPIPE, which splice(2) cannot be told not to send, with this one.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  (void)prctl(PR_SET_NAME, "cloister-pump");
  static_cast<Pump*>(self)->loop();
  return nullptr;
}

void Pump::loop() {
  struct epoll_event events[kEvents];
  for (;;) {
    const int count = epoll_wait(epoll_.get(), events, kEvents, timeout());
    for (int i = 0; i < count; i++) {
      End* end = static_cast<End*>(events[i].data.ptr);
      if (end == nullptr) {
        if (!take_added()) return end_all();
      } else {
        if (events[i].events & EPOLLPRI) end->flow.has_urgent();
        if (events[i].events & EPOLLERR) end->broken = true;
        queue(*end->pair);
      }
    }
    queue_paced();
    const std::vector<Pair*> turn = std::exchange(queue_, {});
    for (Pair* pair : turn) {
      pair->queued = false;
      run(*pair);
    }
    gone_.clear();
    if (pairs_.empty()) pipes_.clear();
  }
}

bool Pump::take_added() {
  eventfd_t count;
  (void)eventfd_read(wake_.get(), &count);
  std::vector<std::unique_ptr<Pair>> added;
  bool stopping;
  {
    std::lock_guard lock(mutex_);
    added.swap(added_);
    stopping = stopping_;
  }
  for (std::unique_ptr<Pair>& pair : added) adopt(std::move(pair));
  return !stopping;
}

void Pump::adopt(std::unique_ptr<Pair> owned) {
  Pair& pair = *owned;
  pairs_.emplace(pair.id, std::move(owned));
  for (End& end : pair.ends) {
    end.pair = &pair;
    prepare(end.socket.get());
    // Each change is told once, and acted upon until nothing moves: interest in a socket that must wait need not be taken back.
    struct epoll_event event = {};
    event.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLET;
    event.data.ptr = &end;
    // No room for one more (fs.epoll.max_user_watches): nobody would ever hear of it.
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, end.socket.get(), &event) != 0) return break_off(pair);
  }
  queue(pair);
}

void Pump::queue(Pair& pair) {
  if (pair.queued || pair.gone) return;
  pair.queued = true;
  queue_.push_back(&pair);
}

int Pump::timeout() {
  if (!queue_.empty()) return 0;
  if (paced_.empty()) return -1;
  const uint64_t now = nanoseconds_now();
  // Rounded up: too early would be once more for nothing.
  return paced_until_ <= now ? 0
                             : static_cast<int>(std::min<uint64_t>((paced_until_ - now + 999'999) / 1'000'000, 60'000));
}

void Pump::wait_for_pace(Pair& pair, uint64_t nanoseconds) {
  paced_.insert(&pair);
  paced_until_ = std::min(paced_until_, nanoseconds_now() + nanoseconds);
}

// All of them: most share their pace with others, and who finds nothing left waits on.
void Pump::queue_paced() {
  if (paced_.empty() || nanoseconds_now() < paced_until_) return;
  paced_until_ = UINT64_MAX;
  for (Pair* pair : std::exchange(paced_, {})) queue(*pair);
}

void Pump::run(Pair& pair) {
  bool failed = false, done = true, more = false;
  uint64_t wait = UINT64_MAX;
  // Both, even if the first fails: what has come from the one that is broken is handed on before that is.
  for (End& end : pair.ends) {
    const Flow::State state = end.flow.run(pipes_);
    failed = failed || state == Flow::State::failed;
    done = done && state == Flow::State::done;
    more = more || state == Flow::State::more;
    if (state == Flow::State::paced) wait = std::min(wait, end.flow.wait());
    // While it is read, reading tells.
    if (end.broken && end.flow.is_done()) failed = failed || error_of(end.socket.get()) != 0;
  }
  if (done)
    end(pair);
  else if (failed)
    break_off(pair);
  else if (more)
    queue(pair);
  else if (wait != UINT64_MAX)
    wait_for_pace(pair, wait);
}

void Pump::break_off(Pair& pair) {
  for (End& end : pair.ends) reset_at_close(end.socket.get());
  end(pair);
}

void Pump::end(Pair& pair) {
  for (End& end : pair.ends) {
    end.flow.drop(pipes_);
    // A process that is being made may have copies, and as long events would come.
    (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, end.socket.get(), nullptr);
    end.socket.reset();
  }
  pair.gone = true;
  paced_.erase(&pair);
  const auto found = pairs_.find(pair.id);
  gone_.push_back(std::move(found->second));
  pairs_.erase(found);
  ended_(pair.id);
}

// What can be delivered is; to a socket that does not take what it should get, this is no end but a reset.
void Pump::end_all() {
  for (auto& [id, pair] : pairs_) {
    Flow::State states[2];
    for (int i = 0; i < 2; i++) states[i] = pair->ends[i].flow.run(pipes_);
    for (int i = 0; i < 2; i++) {
      const Flow& flow = pair->ends[i].flow;
      if (flow.holds() || states[i] == Flow::State::more || states[i] == Flow::State::paced ||
          states[i] == Flow::State::failed)
        reset_at_close(pair->ends[1 - i].socket.get());
    }
    for (End& end : pair->ends) end.flow.drop(pipes_);
  }
  pairs_.clear();
  queue_.clear();
  paced_.clear();
  gone_.clear();
  pipes_.clear();
}

}  // namespace cloister
