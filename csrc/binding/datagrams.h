#pragma once

#include <napi.h>

#include <memory>

#include "../sys/unique_fd.h"
#include "watch.h"

namespace cloister {

// A UDP socket that tells where each datagram was going, which Node's own does not: ip(7), IP_RECVORIGDSTADDR. Takes the descriptor.
// Datagrams(fd, callback(data, from, fromPort, to, toPort))
class Datagrams : public Napi::ObjectWrap<Datagrams> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit Datagrams(const Napi::CallbackInfo& info);

  void end();

 private:
  void on_event();
  // False: nothing is left to be read.
  bool receive();
  Napi::Value close(const Napi::CallbackInfo& info);

  UniqueFd fd_;
  Watch* watch_ = nullptr;
  Napi::FunctionReference callback_;
  std::shared_ptr<Napi::AsyncContext> context_;
};

// sendPacket(fd, packet, address): a whole IP packet, by a raw socket. raw(7)
Napi::Value send_packet(const Napi::CallbackInfo& info);

}  // namespace cloister
