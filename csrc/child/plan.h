#pragma once

// The layout of a plan, as lib/plan/builder.ts writes it: header, steps, vectors, data. One contiguous buffer in the
// machine's byte order; offsets count from its start. check_plan() (core/plan_check.h) vouches for everything in it.

#include <cstdint>

namespace cloister {

enum class StepKind : uint16_t {
#define CALL(name, number, signature) name,
#define SPECIAL(name, signature) name,
#include "steps.def"
#undef CALL
#undef SPECIAL
  count
};

struct StepShape {
  const char* name;
  long number;  // -1: a SPECIAL
  const char* signature;
};

// Indexed by StepKind.
extern const StepShape kStepShapes[static_cast<int>(StepKind::count)];

enum StepFlags : uint16_t {
  kSkipIfDone = 1,       // after success pass over the next `skip` steps
  kSkipIfTolerated = 2,  // the same after a tolerated errno
};

struct Step {
  uint16_t kind;
  uint16_t flags;
  int16_t out;  // the slot that takes the result, or -1
  uint16_t skip;
  int16_t tolerate[4];  // errnos that are no failure; 0 ends the list
  int64_t args[6];  // i: the value; d: a slot, AT_FDCWD or -1; s, v: an offset or -1; b: length << 32 | offset or -1
};
static_assert(sizeof(Step) == 64);

constexpr uint32_t kPlanMagic = 0x4c504c43;  // "CLPL"
// An overlay of 500 layers, where each has two descriptors and a number that it is named by, and what else there is.
constexpr uint32_t kMaxSlots = 1600;

struct PlanHeader {
  uint32_t magic;
  uint32_t size;
  uint32_t step_count;
  uint32_t parent_end;  // steps [0, parent_end) run in the parent before the clone
  uint32_t join_end;    // [parent_end, join_end) in a joiner that shares the descriptor table, then the child's
  uint32_t slot_count;
  uint32_t vectors_end;           // the vectors lie between the steps and here, the data from here to the end
  uint32_t joiner;                // 1: there is one
  uint64_t clone_flags;           // 0: there is no child; the plan ends with the joiner
  uint64_t join_flags;            // of the joiner's own clone; with CLONE_NEWUSER the id maps are the joiner's
  uint64_t keep[kMaxSlots / 64];  // bit per slot: the parent keeps what it holds after the parent's and joiner's steps
  int64_t uid_map;                // text for /proc/PID/uid_map, or a vector for newuidmap; -1: the parent writes none
  int64_t gid_map;
  int64_t oom_score_adj;  // text for /proc/PID/oom_score_adj, or -1
  int64_t report_slot;    // takes the write end of the report pipe, which exec must close last, or -1
  int64_t net_slot;       // a network namespace that the parent is in while it clones, or -1
  int64_t cgroup_slot;    // the directory of a cgroup v2 that the child is born in, or -1
  uint32_t map_helpers;   // 1: uid_map and gid_map are argument vectors of newuidmap and newgidmap, without the pid
  uint32_t own_memory;    // 1: the joiner and child do not share our address space (joining a time namespace)
  uint32_t vfork;         // 1: the parent sleeps until the child has executed; a joiner's child has own_memory instead
  uint32_t unused;
};
static_assert(sizeof(PlanHeader) == 312);

inline bool keeps(const PlanHeader& header, uint32_t slot) { return header.keep[slot / 64] >> slot % 64 & 1; }

inline const Step* plan_steps(const uint8_t* plan) { return reinterpret_cast<const Step*>(plan + sizeof(PlanHeader)); }

// What a step that failed left behind. It lies in memory shared with the parent, which reads it after the report pipe's
// end of file; nothing is sent.
enum class Phase : uint32_t {
  step,
  clone_joiner,
  clone_child,
  setgroups,
  uid_map,
  gid_map,
  oom_score_adj,
  newuidmap,
  newgidmap,
  setns
};

struct Report {
  int32_t error;   // positive errno; 0: nothing failed
  uint32_t phase;  // Phase: a step of the plan, or what the addon does between them
  uint32_t step;
  int32_t candidate;  // exec: which path gave the error; overlay_lowers: twice the name, and 1 if it was opened
  uint32_t head_size;
  uint8_t head[1024];  // exec: the first bytes of that file
};

enum class ChildState : uint32_t { created, running, executing };

struct Shared {
  uint32_t state;  // ChildState, written by the child
  uint32_t ids;    // futex: 0 not written yet, 1 written, 2 failed
  int32_t pid;     // in the parent's pid namespace
  int32_t pidfd;
  const uint32_t* owner;  // the lock word of the thread that clones (core/life_line.h), or nullptr
  Report report;
  int32_t slots[kMaxSlots];
};

}  // namespace cloister
