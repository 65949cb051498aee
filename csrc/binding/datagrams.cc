#include "datagrams.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/in6.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

namespace cloister {

namespace {

constexpr size_t kLargest = 65535;
// In one turn of the loop: a flood must not keep everything else from its turn.
constexpr int kAtOnce = 64;

struct Place {
  char address[INET6_ADDRSTRLEN] = "";
  uint16_t port = 0;
};

Place place_of(const void* socket_address) {
  Place place;
  sa_family_t family;
  memcpy(&family, socket_address, sizeof(family));
  if (family == AF_INET) {
    struct sockaddr_in v4;
    memcpy(&v4, socket_address, sizeof(v4));
    inet_ntop(AF_INET, &v4.sin_addr, place.address, sizeof(place.address));
    place.port = ntohs(v4.sin_port);
  } else {
    struct sockaddr_in6 v6;
    memcpy(&v6, socket_address, sizeof(v6));
    inet_ntop(AF_INET6, &v6.sin6_addr, place.address, sizeof(place.address));
    place.port = ntohs(v6.sin6_port);
  }
  return place;
}

}  // namespace

Napi::Function Datagrams::define(Napi::Env env) {
  return DefineClass(env, "Datagrams", {InstanceMethod("close", &Datagrams::close)});
}

// The loop waits for the sandbox, not for this.
Datagrams::Datagrams(const Napi::CallbackInfo& info) : FileEvents(info, "cloister:datagrams", info[1]) {
  begin([this] { on_event(); }, false);
}

void Datagrams::on_event() {
  for (int count = 0; count < kAtOnce && fd_; count++)
    if (!receive()) return;
}

bool Datagrams::receive() {
  Napi::Env env = Env();
  Napi::HandleScope scope(env);
  static thread_local uint8_t buffer[kLargest];
  struct sockaddr_storage from = {};
  struct iovec data = {buffer, sizeof(buffer)};
  alignas(struct cmsghdr) char control[256];
  struct msghdr message = {};
  message.msg_name = &from;
  message.msg_namelen = sizeof(from);
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t size = recvmsg(fd_.get(), &message, MSG_DONTWAIT);
  // An error of the network is told once, and what comes after it can be read.
  if (size < 0) return errno != EAGAIN;
  for (struct cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    const bool v4 = header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_ORIGDSTADDR;
    const bool v6 = header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_ORIGDSTADDR;
    if (!v4 && !v6) continue;
    const Place source = place_of(&from), destination = place_of(CMSG_DATA(header));
    tell({Napi::Buffer<uint8_t>::Copy(env, buffer, static_cast<size_t>(size)), Napi::String::New(env, source.address),
          Napi::Number::New(env, source.port), Napi::String::New(env, destination.address),
          Napi::Number::New(env, destination.port)});
    break;
  }
  return true;
}

Napi::Value send_packet(const Napi::CallbackInfo& info) {
  const Napi::Uint8Array packet = info[1].As<Napi::Uint8Array>();
  const Napi::Uint8Array address = info[2].As<Napi::Uint8Array>();
  const ssize_t sent =
      sendto(info[0].As<Napi::Number>().Int32Value(), packet.Data(), packet.ByteLength(), MSG_DONTWAIT | MSG_NOSIGNAL,
             reinterpret_cast<const struct sockaddr*>(address.Data()), static_cast<socklen_t>(address.ByteLength()));
  return Napi::Number::New(info.Env(), sent < 0 ? -errno : static_cast<double>(sent));
}

}  // namespace cloister
