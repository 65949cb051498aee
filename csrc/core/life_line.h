#pragma once

#include <linux/futex.h>

#include <cstdint>

namespace cloister {

// A word that a thread marks as its own at its start: when the thread ends, however that comes, the kernel sets FUTEX_OWNER_DIED in
// it (robust-futex-ABI in the kernel's documentation). Children read it without a system call. The list of the C library is left
// alone: the thread that uses this takes no robust mutex.
class LifeLine {
 public:
  LifeLine();
  ~LifeLine();
  LifeLine(const LifeLine&) = delete;
  LifeLine& operator=(const LifeLine&) = delete;

  void take();  // by the thread
  const uint32_t* word() const { return memory_ == nullptr ? nullptr : &memory_->word; }

 private:
  // In shared memory: a child with an address space of its own reads it too.
  struct Memory {
    robust_list_head head;
    robust_list entry;
    uint32_t word;
  };
  Memory* memory_;
};

}  // namespace cloister
