#include "plan_check.h"

#include <fcntl.h>

#include <cstring>
#include <initializer_list>

#include "../child/plan.h"

namespace cloister {

namespace {

struct Bounds {
  uint64_t vectors, data, end;
};

bool is_string(int64_t offset, const Bounds& in) {
  // The plan's last byte is 0, so that a string that starts inside it ends inside it.
  return offset == -1 ||
         (offset >= 0 && static_cast<uint64_t>(offset) >= in.data && static_cast<uint64_t>(offset) < in.end);
}

bool is_vector(int64_t offset, const Bounds& in) {
  return offset >= 0 && offset % 8 == 0 && static_cast<uint64_t>(offset) >= in.vectors &&
         static_cast<uint64_t>(offset) < in.data;
}

// A vector with a first word: what is executed.
bool is_command(int64_t offset, const Bounds& in, const uint8_t* plan) {
  int64_t first = -1;
  if (is_vector(offset, in)) memcpy(&first, plan + offset, sizeof(first));
  return first != -1;
}

bool is_bytes(int64_t arg, const Bounds& in) {
  if (arg == -1) return true;
  if (arg < 0) return false;
  const uint64_t offset = arg & 0xffffffff, length = static_cast<uint64_t>(arg) >> 32;
  return offset >= in.data && offset + length <= in.end;
}

bool is_descriptor(int64_t arg, uint32_t slot_count) {
  return arg == AT_FDCWD || arg == -1 || (arg >= 0 && arg < slot_count);
}

const char* check_step(const Step& step, uint32_t left_in_section, uint32_t slot_count, const Bounds& in) {
  if (step.kind >= static_cast<uint16_t>(StepKind::count)) return "unknown kind of step";
  if (step.out < -1 || step.out >= static_cast<int32_t>(slot_count)) return "result slot out of range";
  if (step.skip > left_in_section) return "skip past the end of a section";
  const char* signature = kStepShapes[step.kind].signature;
  for (int i = 0; signature[i] != '\0'; i++) {
    const int64_t arg = step.args[i];
    switch (signature[i]) {
      case 'd':
        if (!is_descriptor(arg, slot_count)) return "descriptor slot out of range";
        break;
      case 's':
        if (!is_string(arg, in)) return "string out of range";
        break;
      case 'v':
        if (!is_vector(arg, in)) return "vector out of range";
        break;
      case 'b':
        if (!is_bytes(arg, in)) return "bytes out of range";
        break;
    }
  }
  if (step.kind == static_cast<uint16_t>(StepKind::setgroups) &&
      (step.args[0] < 0 || step.args[0] > 65536 || (step.args[1] != -1 && step.args[0] * 4 > step.args[1] >> 32)))
    return "more groups than bytes";
  // struct sock_fprog has 16 bits for the number; the kernel takes 4,096 (BPF_MAXINSNS).
  if (step.kind == static_cast<uint16_t>(StepKind::install_filter) &&
      (step.args[1] == -1 || (step.args[1] >> 32) % 8 != 0 || step.args[1] >> 32 > 4096 * 8))
    return "a filter of other than whole instructions";
  return nullptr;
}

// One pass over all vectors, so that none can be turned into addresses twice.
const char* relocate_vectors(uint8_t* plan, const Bounds& in) {
  int64_t word = -1;
  for (uint64_t at = in.vectors; at < in.data; at += 8) {
    memcpy(&word, plan + at, 8);
    if (!is_string(word, in)) return "vector entry out of range";
    const char* address = word == -1 ? nullptr : reinterpret_cast<const char*>(plan + word);
    memcpy(plan + at, &address, 8);
  }
  return word == -1 ? nullptr : "vector without an end";
}

}  // namespace

const char* check_plan(uint8_t* plan, size_t size) {
  if (size < sizeof(PlanHeader) + 1 || size > UINT32_MAX) return "plan too short or too long";
  const PlanHeader& header = *reinterpret_cast<const PlanHeader*>(plan);
  if (header.magic != kPlanMagic) return "not a plan";
  if (header.size != size) return "plan of another size";
  if (header.slot_count > kMaxSlots) return "too many slots";
  if (header.parent_end > header.join_end || header.join_end > header.step_count) return "sections out of order";
  if (header.map_helpers > 1 || header.own_memory > 1 || header.joiner > 1 || header.vfork > 1)
    return "flag out of range";
  const uint64_t steps_end = sizeof(PlanHeader) + static_cast<uint64_t>(header.step_count) * sizeof(Step);
  const Bounds in = {steps_end, header.vectors_end, size};
  if (steps_end > in.data || in.data >= size || in.data % 8 != 0) return "data out of range";
  if (plan[size - 1] != 0) return "data without an end";
  if (!header.joiner && header.join_end != header.parent_end) return "steps of a joiner, but no joiner";
  for (const int64_t map : {header.uid_map, header.gid_map})
    if (header.map_helpers ? !is_command(map, in, plan) : !is_string(map, in)) return "id map out of range";
  if (header.report_slot < -1 || header.report_slot >= header.slot_count) return "report slot out of range";
  if (header.net_slot < -1 || header.net_slot >= header.slot_count) return "network slot out of range";
  if (header.cgroup_slot < -1 || header.cgroup_slot >= header.slot_count) return "cgroup slot out of range";
  if (!is_string(header.oom_score_adj, in)) return "oom_score_adj out of range";
  const Step* steps = plan_steps(plan);
  for (uint32_t i = 0; i < header.step_count; i++) {
    const uint32_t section_end =
        i < header.parent_end ? header.parent_end : (i < header.join_end ? header.join_end : header.step_count);
    if (const char* reason = check_step(steps[i], section_end - i - 1, header.slot_count, in)) return reason;
  }
  return relocate_vectors(plan, in);
}

}  // namespace cloister
