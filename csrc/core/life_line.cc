#include "life_line.h"

#include <sys/mman.h>

#include "../sys/raw_syscall.h"

namespace cloister {

LifeLine::LifeLine() {
  void* memory = mmap(nullptr, sizeof(Memory), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memory_ = memory == MAP_FAILED ? nullptr : static_cast<Memory*>(memory);
}

LifeLine::~LifeLine() {
  if (memory_ != nullptr) munmap(memory_, sizeof(Memory));
}

void LifeLine::take() {
  if (memory_ == nullptr) return;
  memory_->word = static_cast<uint32_t>(raw_syscall(SYS_gettid));
  memory_->entry.next = &memory_->head.list;
  memory_->head.list.next = &memory_->entry;
  memory_->head.futex_offset = reinterpret_cast<char*>(&memory_->word) - reinterpret_cast<char*>(&memory_->entry);
  memory_->head.list_op_pending = nullptr;
  raw_syscall(SYS_set_robust_list, reinterpret_cast<long>(&memory_->head), sizeof(robust_list_head));
}

}  // namespace cloister
