#pragma once

#include <cstddef>
#include <cstdint>

namespace cloister {

// Checks a whole plan once, so that the interpreter may trust it: every offset, count, slot and string end. Vectors become
// addresses in place, so a plan can be checked once only, where it will be run. The reason it is refused, or nullptr.
const char* check_plan(uint8_t* plan, size_t size);

}  // namespace cloister
