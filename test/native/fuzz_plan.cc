// Spoilt plans. What check_plan() accepts is then read as the interpreter and the parent read it, without the calls: a read
// outside of the plan is AddressSanitizer's to find.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "child/plan.h"
#include "core/plan_check.h"

using namespace cloister;

namespace {

volatile uint64_t sink;

void require(bool condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "a plan was accepted, but: %s\n", what);
  abort();
}

void read_bytes(const uint8_t* at, size_t length) {
  uint64_t sum = 0;
  for (size_t i = 0; i < length; i++) sum += at[i];
  sink = sink + sum;
}

void read_string(const uint8_t* plan, int64_t offset) {
  if (offset >= 0) sink = sink + strlen(reinterpret_cast<const char*>(plan + (offset & 0xffffffff)));
}

void read_vector(const uint8_t* plan, int64_t offset) {
  const char* const* words = reinterpret_cast<const char* const*>(plan + (offset & 0xffffffff));
  for (; *words != nullptr; words++) sink = sink + strlen(*words);
}

// As core/id_map.cc goes through the words of newuidmap and newgidmap.
void read_helper(const uint8_t* plan, int64_t offset) {
  const char* const* argv = reinterpret_cast<const char* const*>(plan + offset);
  require(argv[0] != nullptr, "an id map helper has no name");
  sink = sink + strlen(argv[0]);
  for (int i = 1; argv[i] != nullptr; i++) sink = sink + strlen(argv[i]);
}

void read_step(const uint8_t* plan, const PlanHeader& header, uint32_t index, uint32_t section_end) {
  const Step& step = plan_steps(plan)[index];
  const char* signature = kStepShapes[step.kind].signature;
  require(step.out < static_cast<int32_t>(kMaxSlots), "a result has no slot");
  require(static_cast<uint64_t>(index) + step.skip < section_end, "a skip leaves its section");
  for (int i = 0; signature[i] != '\0'; i++) {
    const int64_t arg = step.args[i];
    switch (signature[i]) {
      case 'd': require(arg < static_cast<int64_t>(header.slot_count), "a descriptor has no slot"); break;
      case 's': read_string(plan, arg); break;
      case 'v': read_vector(plan, arg); break;
      case 'b':
        if (arg >= 0) read_bytes(plan + (arg & 0xffffffff), static_cast<uint64_t>(arg) >> 32);
        break;
    }
  }
  if (step.kind == static_cast<uint16_t>(StepKind::setgroups) && step.args[1] >= 0)
    read_bytes(plan + (step.args[1] & 0xffffffff), static_cast<size_t>(step.args[0]) * 4);
}

void read_plan(const uint8_t* plan) {
  const PlanHeader& header = *reinterpret_cast<const PlanHeader*>(plan);
  for (uint32_t i = 0; i < header.step_count; i++) {
    const uint32_t end = i < header.parent_end ? header.parent_end
                         : i < header.join_end ? header.join_end
                                               : header.step_count;
    read_step(plan, header, i, end);
  }
  for (const int64_t map : {header.uid_map, header.gid_map}) {
    if (header.map_helpers)
      read_helper(plan, map);
    else
      read_string(plan, map);
  }
  read_string(plan, header.oom_score_adj);
  require(header.net_slot < static_cast<int64_t>(kMaxSlots), "the network has no slot");
  require(header.cgroup_slot < static_cast<int64_t>(kMaxSlots), "the cgroup has no slot");
}

// Most spoilt plans would be refused for these three: they are put right.
void mend(uint8_t* data, size_t size) {
  if (size < sizeof(PlanHeader) + 1) return;
  const uint32_t length = static_cast<uint32_t>(size);
  memcpy(data, &kPlanMagic, 4);
  memcpy(data + 4, &length, 4);
  data[size - 1] = 0;
}

}  // namespace

static bool accepts(const uint8_t* data, size_t size) {
  // Exactly as long as the plan, so that its end is guarded.
  const std::unique_ptr<uint8_t, decltype(&free)> plan(static_cast<uint8_t*>(malloc(size == 0 ? 1 : size)), free);
  if (size > 0) memcpy(plan.get(), data, size);
  if (check_plan(plan.get(), size) != nullptr) return false;
  read_plan(plan.get());
  return true;
}

#ifndef CLOISTER_OWN_MUTATOR

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)accepts(data, size);
  return 0;
}

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 16 != 0) mend(data, size);
  return size;
}

#else

#include <dirent.h>

#include <random>
#include <string>
#include <vector>

namespace {

using Plan = std::vector<uint8_t>;

std::vector<Plan> read_corpus(const std::string& path) {
  std::vector<Plan> plans;
  DIR* folder = opendir(path.c_str());
  if (folder == nullptr) return plans;
  while (const struct dirent* entry = readdir(folder)) {
    if (entry->d_name[0] == '.') continue;
    FILE* file = fopen((path + "/" + entry->d_name).c_str(), "rb");
    Plan plan(65536);
    plan.resize(fread(plan.data(), 1, plan.size(), file));
    fclose(file);
    plans.push_back(std::move(plan));
  }
  closedir(folder);
  return plans;
}

// Numbers at which a check might be wrong by one, or overflow.
uint64_t interesting(std::mt19937_64& random, size_t size) {
  const uint64_t numbers[] = {0,
                              1,
                              7,
                              8,
                              63,
                              64,
                              1599,
                              1600,
                              1601,
                              65536,
                              INT32_MAX,
                              UINT32_MAX,
                              UINT64_MAX,
                              size,
                              size - 1,
                              size - 8,
                              uint64_t{1} << 32,
                              uint64_t{1} << 63};
  return random() % 3 == 0 ? random() % (size + 16) : numbers[random() % (sizeof(numbers) / sizeof(*numbers))];
}

void spoil(Plan& plan, std::mt19937_64& random) {
  const int widths[] = {1, 2, 4, 8};
  for (int changes = 1 + random() % 4; changes > 0 && plan.size() > 16; changes--) {
    const size_t width = widths[random() % 4];
    const size_t at = random() % (plan.size() / width) * width;
    const uint64_t value = interesting(random, plan.size());
    switch (random() % 8) {
      case 0: plan.resize(plan.size() - random() % 16 % plan.size()); break;
      case 1: plan.resize(plan.size() + random() % 16); break;
      case 2: plan[at] ^= 1 << random() % 8; break;
      case 3: memmove(&plan[at], &plan[random() % (plan.size() - width + 1)], width); break;
      default:
        if (at + width <= plan.size()) memcpy(&plan[at], &value, width);
    }
  }
  if (random() % 16 != 0) mend(plan.data(), plan.size());
}

}  // namespace

int main(int argc, char** argv) {
  const long runs = argc > 1 ? atol(argv[1]) : 100000;
  const std::vector<Plan> corpus = read_corpus(argc > 2 ? argv[2] : "corpus");
  if (corpus.empty()) {
    fprintf(stderr, "no plans to start from\n");
    return 1;
  }
  std::mt19937_64 random(1);
  long accepted = 0;
  for (const Plan& plan : corpus) require(accepts(plan.data(), plan.size()), "a plan of the corpus is refused");
  for (long i = 0; i < runs; i++) {
    Plan plan = corpus[random() % corpus.size()];
    spoil(plan, random);
    accepted += accepts(plan.data(), plan.size());
  }
  printf("%ld plans, %ld accepted\n", runs, accepted);
  return accepted > 0 ? 0 : 1;
}

#endif
