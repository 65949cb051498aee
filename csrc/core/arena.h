#pragma once

#include <cstddef>
#include <cstdint>

#include "../child/interpreter.h"

namespace cloister {

// The memory of one spawn: what parent and child share, the plan, and the stacks of the joiner and the child. MAP_SHARED,
// so that a child without our address space (joining a time namespace) shares it too.
class Arena {
 public:
  // Returns nullptr when there is no memory. `size` is the plan's.
  static Arena* create(size_t plan_size);
  static void destroy(Arena* arena);

  Shared shared;
  ChildStart child;
  struct clone_args_storage {
    alignas(8) uint8_t bytes[128];
  } child_clone_args;

  uint8_t* plan() { return reinterpret_cast<uint8_t*>(this) + kPlanOffset; }
  uint8_t* joiner_stack() { return end() - 2 * kStackSize; }
  uint8_t* child_stack() { return end() - kStackSize; }

  static constexpr size_t kStackSize = 16384;

 private:
  static constexpr size_t kPlanOffset = 16384;
  uint8_t* end() { return reinterpret_cast<uint8_t*>(this) + mapped; }
  size_t mapped;
};

}  // namespace cloister
