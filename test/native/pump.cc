// Pairs of sockets that a thread carries: nothing is lost or made up, ends and resets are handed on, and nothing stays open.

#include "core/pump.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <condition_variable>
#include <string>
#include <thread>

#include "check.h"
#include "processes.h"

using namespace cloister;

namespace {

struct Ends {
  UniqueFd outer, inner;
};

Ends tcp(int buffer = 0) {
  UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (buffer > 0) setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
  struct sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  CHECK_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  CHECK_EQ(listen(listener.get(), 1), 0);
  CHECK_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  UniqueFd inner(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (buffer > 0) setsockopt(inner.get(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
  CHECK_EQ(connect(inner.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  return {UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)), std::move(inner)};
}

Ends unix_pair() {
  int fds[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::string sample(size_t size, unsigned seed) {
  std::string text(size, '\0');
  for (char& each : text) each = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
  return text;
}

bool say_all(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t size = send(fd, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (size <= 0) return false;
    at += static_cast<size_t>(size);
  }
  return true;
}

void say(int fd, const std::string& text) { CHECK(say_all(fd, text)); }

// Up to the end, in pieces of this size. `error`: how it ends.
std::string hear(int fd, int& error, size_t piece = 65536) {
  std::string text, buffer(piece, '\0');
  for (;;) {
    const ssize_t size = recv(fd, buffer.data(), piece, 0);
    error = size < 0 ? errno : 0;
    if (size <= 0) return text;
    text.append(buffer, 0, static_cast<size_t>(size));
  }
}

std::string hear_all(int fd, size_t piece = 65536) {
  int error;
  std::string text = hear(fd, error, piece);
  CHECK_EQ(error, 0);
  return text;
}

std::string hear_exactly(int fd, size_t size) {
  std::string text(size, '\0');
  CHECK_EQ(recv(fd, text.data(), size, MSG_WAITALL), size);
  return text;
}

void finish(int fd) { CHECK_EQ(shutdown(fd, SHUT_WR), 0); }

void break_off(UniqueFd& fd) {
  const struct linger at_once = {1, 0};
  CHECK_EQ(setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
  fd.reset();
}

// A pump, and how many pairs it has told to be over.
class Carrier {
 public:
  explicit Carrier(size_t most_pipes = 256) : pump([this](uint64_t) { one_over(); }, most_pipes) {}

  void join(Ends& client, Ends& server, const std::string& of_client = "", const std::string& of_server = "") {
    CHECK_EQ(pump.add(++added_, std::move(client.inner), std::move(server.inner), bytes(of_client), bytes(of_server)),
             0);
  }
  void wait_for(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return over_ >= count; });
    CHECK_EQ(over_, count);
  }

 private:
  static std::vector<uint8_t> bytes(const std::string& text) { return {text.begin(), text.end()}; }
  void one_over() {
    std::lock_guard lock(mutex_);
    over_++;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int over_ = 0;
  uint64_t added_ = 0;

 public:
  Pump pump;
};

// Both ways at once, and each to its end. Only this thread counts checks.
void converse(Carrier& carrier, Ends client, Ends server, size_t size, size_t piece) {
  carrier.join(client, server);
  const std::string question = sample(size, 1), answer = sample(size + 1, 2);
  std::string heard;
  int error = 0;
  const auto speak = [](int fd, const std::string& text) { (void)(say_all(fd, text) && shutdown(fd, SHUT_WR) == 0); };
  std::thread asker([&] { speak(client.outer.get(), question); });
  std::thread answerer([&] { speak(server.outer.get(), answer); });
  std::thread listener([&] { heard = hear(client.outer.get(), error, piece); });
  CHECK(hear_all(server.outer.get(), piece) == question);
  asker.join();
  answerer.join();
  listener.join();
  CHECK_EQ(error, 0);
  CHECK(heard == answer);
}

void carries_both_ways() {
  Carrier carrier, without_pipes(0);
  converse(carrier, tcp(), tcp(), 8 << 20, 65536);
  converse(carrier, unix_pair(), tcp(), 1 << 20, 65536);
  converse(carrier, tcp(), unix_pair(), 1 << 20, 65536);
  // Whoever takes little at a time makes every write a part of one.
  converse(carrier, tcp(4096), tcp(4096), 1 << 19, 1021);
  carrier.wait_for(4);
  converse(without_pipes, tcp(), tcp(), 1 << 20, 65536);
  converse(without_pipes, tcp(4096), tcp(4096), 1 << 19, 1021);
  without_pipes.wait_for(2);
}

void says_first_what_was_read() {
  Carrier carrier;
  Ends client = tcp(), server = tcp();
  say(client.outer.get(), " and then");
  const std::string much = sample(1 << 18, 3);
  carrier.join(client, server, "first", much);
  finish(client.outer.get());
  finish(server.outer.get());
  CHECK(hear_all(server.outer.get()) == "first and then");
  CHECK(hear_all(client.outer.get()) == much);
}

void hands_on_one_end() {
  for (const bool turned : {false, true}) {
    Carrier carrier;
    Ends client = tcp(), server = tcp();
    carrier.join(turned ? server : client, turned ? client : server);
    say(client.outer.get(), "asked");
    finish(client.outer.get());
    CHECK(hear_all(server.outer.get()) == "asked");
    // The other direction goes on, as long as it likes.
    for (int i = 0; i < 100; i++) {
      say(server.outer.get(), "told");
      CHECK(hear_exactly(client.outer.get(), 4) == "told");
    }
    server.outer.reset();
    CHECK(hear_all(client.outer.get()).empty());
    carrier.wait_for(1);
  }
}

void hands_on_a_reset() {
  for (const bool turned : {false, true}) {
    Carrier carrier;
    Ends client = tcp(), server = tcp();
    carrier.join(turned ? server : client, turned ? client : server);
    say(client.outer.get(), "half");
    CHECK(hear_exactly(server.outer.get(), 4) == "half");
    break_off(client.outer);
    int error;
    CHECK(hear(server.outer.get(), error).empty());
    CHECK_EQ(error, ECONNRESET);
    carrier.wait_for(1);
  }
}

// Nobody reads from it any more, and nothing is written to it.
void hands_on_a_reset_after_an_end() {
  Carrier carrier;
  Ends client = tcp(), server = tcp();
  carrier.join(client, server);
  finish(client.outer.get());
  CHECK(hear_all(server.outer.get()).empty());
  break_off(client.outer);
  carrier.wait_for(1);
  struct pollfd broken = {server.outer.get(), 0, 0};
  CHECK_EQ(poll(&broken, 1, -1), 1);
  int error = 0;
  socklen_t size = sizeof(error);
  CHECK_EQ(getsockopt(server.outer.get(), SOL_SOCKET, SO_ERROR, &error, &size), 0);
  CHECK(error == ECONNRESET || error == EPIPE);
}

// tcp(7), MSG_OOB. The byte itself is passed over, as by every reader that does not ask for it.
void passes_over_urgent_data() {
  Carrier carrier;
  Ends client = tcp(), server = tcp();
  carrier.join(client, server);
  say(client.outer.get(), "before");
  CHECK(hear_exactly(server.outer.get(), 6) == "before");
  CHECK_EQ(send(client.outer.get(), "!", 1, MSG_OOB), 1);
  say(client.outer.get(), "after");
  CHECK(hear_exactly(server.outer.get(), 5) == "after");
  CHECK_EQ(send(client.outer.get(), "!", 1, MSG_OOB), 1);
  say(client.outer.get(), "the end");
  finish(client.outer.get());
  CHECK(hear_all(server.outer.get()) == "the end");
  // Both came before anybody looked.
  Ends late = tcp(), reader = tcp();
  CHECK_EQ(send(late.outer.get(), "!", 1, MSG_OOB), 1);
  say(late.outer.get(), "late");
  finish(late.outer.get());
  carrier.join(late, reader);
  CHECK(hear_all(reader.outer.get()) == "late");
}

// As much as finds room when nobody reads.
std::string say_until_full(int fd) {
  const std::string piece = sample(1 << 16, 4);
  std::string said;
  struct pollfd room = {fd, POLLOUT, 0};
  while (poll(&room, 1, 300) == 1) {
    const ssize_t size = send(fd, piece.data(), piece.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    CHECK(size > 0);
    said.append(piece, 0, static_cast<size_t>(size > 0 ? size : 0));
    if (said.size() > (size_t{256} << 20)) break;
  }
  return said;
}

void takes_no_more_than_is_read() {
  for (const size_t pipes : {256, 0}) {
    Carrier carrier(pipes);
    Ends client = tcp(), server = tcp();
    carrier.join(client, server);
    const std::string said = say_until_full(client.outer.get());
    CHECK(said.size() < (size_t{64} << 20));
    finish(client.outer.get());
    CHECK(hear_all(server.outer.get()) == said);
  }
}

void many_at_once(size_t pipes) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  const int count = limit.rlim_cur > 5000 ? 1000 : static_cast<int>(limit.rlim_cur / 5);
  Carrier carrier(pipes);
  std::vector<Ends> clients, servers;
  for (int i = 0; i < count; i++) {
    clients.push_back(i % 2 ? tcp() : unix_pair());
    servers.push_back(tcp());
    carrier.join(clients[i], servers[i]);
  }
  const auto text = [](int i) { return sample(20000, static_cast<unsigned>(i)); };
  for (int i = 0; i < count; i++) {
    say(clients[i].outer.get(), text(i));
    finish(clients[i].outer.get());
  }
  for (int i = 0; i < count; i++) {
    CHECK(hear_all(servers[i].outer.get()) == text(i));
    say(servers[i].outer.get(), text(-i));
    finish(servers[i].outer.get());
  }
  for (int i = 0; i < count; i++) CHECK(hear_all(clients[i].outer.get()) == text(-i));
  carrier.wait_for(count);
}

void many_that_do_not_read() {
  const int before = open_descriptors();
  constexpr int count = 20, pipes = 8;
  Carrier carrier(pipes);
  std::vector<Ends> clients, servers;
  std::vector<std::string> said;
  for (int i = 0; i < count; i++) {
    clients.push_back(tcp(4096));
    servers.push_back(tcp(4096));
    carrier.join(clients[i], servers[i]);
    said.push_back(say_until_full(clients[i].outer.get()));
    finish(clients[i].outer.get());
  }
  // Two for each pair on either side, the thread's own two, and no more pipes than it may have.
  CHECK_EQ(open_descriptors() - before, 4 * count + 2 + 2 * pipes);
  for (int i = 0; i < count; i++) CHECK(hear_all(servers[i].outer.get()) == said[i]);
  for (int i = 0; i < count; i++) servers[i].outer.reset();
  carrier.wait_for(count);
  // A pipe that is empty is nobody's, and with the last pair they go: by the time that the thread takes up the next.
  clients.clear();
  servers.clear();
  Ends client = tcp(), server = tcp();
  carrier.join(client, server);
  say(client.outer.get(), "x");
  CHECK(hear_exactly(server.outer.get(), 1) == "x");
  CHECK(open_descriptors() - before <= 4 + 2 + 2);
}

void many_that_are_idle() {
  const int before = open_descriptors();
  constexpr int count = 100;
  Carrier carrier;
  std::vector<Ends> clients, servers;
  for (int i = 0; i < count; i++) {
    clients.push_back(tcp());
    servers.push_back(tcp());
    carrier.join(clients[i], servers[i]);
    say(clients[i].outer.get(), "x");
    CHECK(hear_exactly(servers[i].outer.get(), 1) == "x");
  }
  // One pipe, for whoever has its turn.
  CHECK(open_descriptors() - before <= 4 * count + 2 + 2);
}

void stops_in_the_middle() {
  Carrier carrier;
  Ends idle = tcp(), other = tcp(), client = tcp(), server = tcp();
  carrier.join(idle, other);
  carrier.join(client, server);
  const std::string said = say_until_full(client.outer.get());
  carrier.pump.stop();
  int error;
  const std::string heard = hear(server.outer.get(), error);
  CHECK_EQ(error, ECONNRESET);
  CHECK(heard.size() < said.size());
  CHECK(said.compare(0, heard.size(), heard) == 0);
  CHECK(hear_all(other.outer.get()).empty());
  CHECK(hear_all(idle.outer.get()).empty());
  carrier.pump.stop();
}

double seconds_since(uint64_t begin) { return static_cast<double>(nanoseconds_now() - begin) / 1e9; }

// Two connections that share a pace go no faster than it, together; the other direction is free.
void keeps_a_pace() {
  constexpr double kRate = 4e6;
  constexpr size_t kSize = 1 << 20;
  for (const size_t pipes : {size_t{256}, size_t{0}}) {
    Carrier carrier(pipes);
    const std::shared_ptr<Pace> pace = std::make_shared<Pace>(kRate);
    Ends clients[2] = {tcp(), tcp()}, servers[2] = {tcp(), tcp()};
    const std::string text = sample(kSize, 5);
    const uint64_t begin = nanoseconds_now();
    std::thread speakers[2];
    for (int i = 0; i < 2; i++) {
      CHECK_EQ(carrier.pump.add(static_cast<uint64_t>(i + 1), std::move(clients[i].inner), std::move(servers[i].inner),
                                {}, {}, pace),
               0);
      speakers[i] = std::thread(
          [&, i] { (void)(say_all(clients[i].outer.get(), text) && shutdown(clients[i].outer.get(), SHUT_WR) == 0); });
    }
    for (Ends& server : servers) {
      CHECK(hear_all(server.outer.get()) == text);
      finish(server.outer.get());
    }
    // What a bucket has at first goes at once.
    CHECK(seconds_since(begin) >= (2.0 * kSize - kRate / 200) / kRate);
    for (std::thread& speaker : speakers) speaker.join();
    for (Ends& client : clients) CHECK(hear_all(client.outer.get()).empty());
    carrier.wait_for(2);
  }
}

void stops_while_it_waits_for_a_pace() {
  Carrier carrier;
  Ends client = tcp(), server = tcp();
  const std::shared_ptr<Pace> pace = std::make_shared<Pace>(1000);
  CHECK_EQ(carrier.pump.add(1, std::move(client.inner), std::move(server.inner), {}, {}, pace), 0);
  say(client.outer.get(), sample(100'000, 6));
  hear_exactly(server.outer.get(), 1000);
  carrier.pump.stop();
  int error;
  hear(server.outer.get(), error);
  CHECK_EQ(error, ECONNRESET);
}

void fails_without_descriptors() {
  Carrier carrier;
  Ends client = tcp(), server = tcp();
  struct rlimit limit, none;
  getrlimit(RLIMIT_NOFILE, &limit);
  none = limit;
  none.rlim_cur = 0;
  setrlimit(RLIMIT_NOFILE, &none);
  CHECK_EQ(carrier.pump.add(1, std::move(client.inner), std::move(server.inner), {}, {}), EMFILE);
  setrlimit(RLIMIT_NOFILE, &limit);
  for (const Ends* ends : {&client, &server}) {
    int error;
    hear(ends->outer.get(), error);
    CHECK_EQ(error, ECONNRESET);
  }
}

}  // namespace

int main() {
  const int before = open_descriptors();
  carries_both_ways();
  says_first_what_was_read();
  hands_on_one_end();
  hands_on_a_reset();
  hands_on_a_reset_after_an_end();
  passes_over_urgent_data();
  takes_no_more_than_is_read();
  many_at_once(256);
  many_at_once(2);
  many_that_do_not_read();
  many_that_are_idle();
  stops_in_the_middle();
  keeps_a_pace();
  stops_while_it_waits_for_a_pace();
  fails_without_descriptors();
  CHECK_EQ(open_descriptors(), before);
  return result();
}
