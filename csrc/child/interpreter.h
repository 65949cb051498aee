#pragma once

#include "plan.h"

namespace cloister {

// Runs steps [from, to). 0, or -1 with shared->report filled in. Does not return from a successful exec.
int run_steps(const uint8_t* plan, uint32_t from, uint32_t to, int32_t* slots, Shared* shared);

struct ChildStart {
  const uint8_t* plan;
  Shared* shared;
  const void* stack_top;     // of the child that a joiner makes
  const void* clone_args;    // its struct clone_args
  uint32_t clears_handlers;  // 1: the kernel has not (clone.h)
  int32_t slots[kMaxSlots];  // the child's own copy
};

// Entry points of the cloned processes (clone.h). Neither returns.
[[noreturn]] void child_main(void* start);
[[noreturn]] void joiner_main(void* start);

}  // namespace cloister
