#pragma once

// Plans written by hand, as lib/plan/builder.ts writes them.

#include <fcntl.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <variant>
#include <vector>

#include "child/plan.h"

namespace cloister {

struct SlotRef {
  int32_t slot;
};
using Words = std::vector<std::string>;
struct Bytes {
  std::string bytes;
};
using Argument = std::variant<int64_t, SlotRef, const char*, Bytes, Words>;

inline constexpr SlotRef kCwd = {AT_FDCWD};
inline Argument number(int64_t value) { return value; }
inline Argument null_string() { return static_cast<const char*>(nullptr); }

class Builder {
 public:
  struct Options {
    int16_t out = -1;
    std::vector<int16_t> tolerate = {};
    uint16_t skip_if_done = 0;
    uint16_t skip_if_tolerated = 0;
  };

  Builder& add(StepKind kind, std::vector<Argument> args, Options options) {
    steps_.push_back({kind, std::move(args), std::move(options)});
    return *this;
  }
  Builder& add(StepKind kind, std::vector<Argument> args) { return add(kind, std::move(args), Options()); }

  // The steps so far are the parent's; the joiner's. Without a call all are the child's.
  Builder& end_parent() {
    header.parent_end = header.join_end = static_cast<uint32_t>(steps_.size());
    return *this;
  }
  Builder& end_join() {
    header.join_end = static_cast<uint32_t>(steps_.size());
    return *this;
  }
  Builder& keep(uint32_t slot) {
    header.keep[slot / 64] |= uint64_t{1} << slot % 64;
    return *this;
  }

  // Aligned like the arena's.
  std::vector<uint8_t> encode() const {
    const size_t steps_end = sizeof(PlanHeader) + steps_.size() * sizeof(Step);
    size_t vector_words = 0;
    for (const Planned& step : steps_)
      for (const Argument& arg : step.args)
        if (const Words* words = std::get_if<Words>(&arg)) vector_words += words->size() + 1;
    PlanHeader head = header;
    head.vectors_end = static_cast<uint32_t>(steps_end + vector_words * 8);

    std::string data;
    std::vector<int64_t> vectors;
    const auto offset_of = [&](const std::string& bytes) {
      data.resize((data.size() + 7) & ~size_t{7});
      const int64_t offset = static_cast<int64_t>(head.vectors_end + data.size());
      data += bytes;
      return offset;
    };
    const auto string_at = [&](const char* text) {
      return text == nullptr ? -1 : offset_of(std::string(text, strlen(text) + 1));
    };

    std::vector<Step> steps;
    for (const Planned& planned : steps_) {
      Step step = {};
      step.kind = static_cast<uint16_t>(planned.kind);
      step.out = planned.options.out;
      if (planned.options.skip_if_done) step.flags |= kSkipIfDone;
      if (planned.options.skip_if_tolerated) step.flags |= kSkipIfTolerated;
      step.skip = planned.options.skip_if_done | planned.options.skip_if_tolerated;
      for (size_t i = 0; i < planned.options.tolerate.size(); i++) step.tolerate[i] = planned.options.tolerate[i];
      int at = 0;
      const char* signature = kStepShapes[step.kind].signature;
      for (const Argument& arg : planned.args) {
        while (signature[at] == 'n') at++;
        int64_t& value = step.args[at++];
        if (const auto* word = std::get_if<int64_t>(&arg)) value = *word;
        if (const auto* slot = std::get_if<SlotRef>(&arg)) value = slot->slot;
        if (const auto* text = std::get_if<const char*>(&arg)) value = string_at(*text);
        if (const auto* bytes = std::get_if<Bytes>(&arg))
          value = static_cast<int64_t>(bytes->bytes.size()) << 32 | offset_of(bytes->bytes);
        if (const auto* words = std::get_if<Words>(&arg)) {
          value = static_cast<int64_t>(steps_end + vectors.size() * 8);
          for (const std::string& word : *words) vectors.push_back(string_at(word.c_str()));
          vectors.push_back(-1);
        }
      }
      steps.push_back(step);
    }
    if (uid_map) head.uid_map = string_at(uid_map);
    if (gid_map) head.gid_map = string_at(gid_map);
    if (oom_score_adj) head.oom_score_adj = string_at(oom_score_adj);
    if (oom_score_adj) head.vfork = 1;
    data += '\0';

    head.step_count = static_cast<uint32_t>(steps.size());
    head.size = static_cast<uint32_t>(head.vectors_end + data.size());
    std::vector<uint8_t> plan(head.size);
    memcpy(plan.data(), &head, sizeof(head));
    if (!steps.empty()) memcpy(plan.data() + sizeof(head), steps.data(), steps.size() * sizeof(Step));
    if (!vectors.empty()) memcpy(plan.data() + steps_end, vectors.data(), vectors.size() * 8);
    memcpy(plan.data() + head.vectors_end, data.data(), data.size());
    return plan;
  }

  PlanHeader header = {
      .magic = kPlanMagic,
      .slot_count = 8,
      .uid_map = -1,
      .gid_map = -1,
      .oom_score_adj = -1,
      .report_slot = -1,
      .net_slot = -1,
      .cgroup_slot = -1,
  };
  const char* uid_map = nullptr;
  const char* gid_map = nullptr;
  const char* oom_score_adj = nullptr;

 private:
  struct Planned {
    StepKind kind;
    std::vector<Argument> args;
    Options options;
  };
  std::vector<Planned> steps_;
};

inline PlanHeader& header_of(std::vector<uint8_t>& plan) { return *reinterpret_cast<PlanHeader*>(plan.data()); }
inline Step& step_of(std::vector<uint8_t>& plan, int index) {
  return reinterpret_cast<Step*>(plan.data() + sizeof(PlanHeader))[index];
}

}  // namespace cloister
