#include "device_program.h"

#include <errno.h>
#include <linux/bpf.h>

#include "../sys/raw_syscall.h"
#include "environment.h"

// Who may open which device in a cgroup v2: a program of type BPF_PROG_TYPE_CGROUP_DEVICE, bpf(2).

namespace cloister {

namespace {

#ifndef BPF_F_REPLACE
#define BPF_F_REPLACE (1U << 2)
#endif

long bpf(int command, union bpf_attr* attributes) {
  return raw_syscall(SYS_bpf, command, reinterpret_cast<long>(attributes), sizeof(*attributes));
}

int int_at(const Napi::CallbackInfo& info, size_t i) { return info[i].As<Napi::Number>().Int32Value(); }

Napi::Value number(const Napi::CallbackInfo& info, long value) {
  return Napi::Number::New(info.Env(), static_cast<double>(value));
}

// loadDeviceProgram(instructions): a descriptor
Napi::Value load(const Napi::CallbackInfo& info) {
  const Napi::Uint8Array instructions = info[0].As<Napi::Uint8Array>();
  static const char license[] = "MIT";
  union bpf_attr attributes = {};
  attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attributes.insns = reinterpret_cast<uint64_t>(instructions.Data());
  attributes.insn_cnt = static_cast<uint32_t>(instructions.ByteLength() / sizeof(struct bpf_insn));
  attributes.license = reinterpret_cast<uint64_t>(license);
  const long fd = bpf(BPF_PROG_LOAD, &attributes);
  return number(info, Environment::of(info.Env()).own(static_cast<int>(fd)));
}

// attachDeviceProgram(group, program, replaced): `replaced` -1 for the first. The program stays for as long as the group.
Napi::Value attach(const Napi::CallbackInfo& info) {
  union bpf_attr attributes = {};
  attributes.target_fd = static_cast<uint32_t>(int_at(info, 0));
  attributes.attach_bpf_fd = static_cast<uint32_t>(int_at(info, 1));
  attributes.attach_type = BPF_CGROUP_DEVICE;
  attributes.attach_flags = BPF_F_ALLOW_MULTI;
  if (int_at(info, 2) >= 0) {
    // In one step: between a detach and an attach every device would be allowed.
    attributes.attach_flags |= BPF_F_REPLACE;
    attributes.replace_bpf_fd = static_cast<uint32_t>(int_at(info, 2));
  }
  return number(info, bpf(BPF_PROG_ATTACH, &attributes));
}

}  // namespace

void define_device_program(Napi::Env env, Napi::Object exports) {
  exports.Set("loadDeviceProgram", Napi::Function::New(env, load, "loadDeviceProgram"));
  exports.Set("attachDeviceProgram", Napi::Function::New(env, attach, "attachDeviceProgram"));
}

}  // namespace cloister
