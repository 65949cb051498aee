#pragma once

#include "event_source.h"

namespace cloister {

// A UDP socket that tells where each datagram was going, which Node's own does not: ip(7), IP_RECVORIGDSTADDR. Takes the descriptor.
// Datagrams(fd, callback(data, from, fromPort, to, toPort))
class Datagrams : public FileEvents<Datagrams> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit Datagrams(const Napi::CallbackInfo& info);

 private:
  void on_event();
  // False: nothing is left to be read.
  bool receive();
};

// sendPacket(fd, packet, address): a whole IP packet, by a raw socket. raw(7)
Napi::Value send_packet(const Napi::CallbackInfo& info);

}  // namespace cloister
