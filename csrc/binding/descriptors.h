#pragma once

#include <napi.h>

namespace cloister {

// Small calls on descriptors that Node has no function for. Each returns a negative errno instead of throwing.
void define_descriptors(Napi::Env env, Napi::Object exports);

// What a send_fd step has sent; -EAGAIN if nothing is there, -EPIPE at the end.
int receive_sent_descriptor(int socket);

}  // namespace cloister
