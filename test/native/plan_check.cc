// Every reason for which check_plan() refuses a plan, and that it accepts what it should.

#include "core/plan_check.h"

#include <functional>

#include "builder.h"
#include "check.h"

using namespace cloister;

namespace {

using Plan = std::vector<uint8_t>;

Builder sample() {
  Builder builder;
  builder.add(StepKind::openat, {kCwd, "/dev/null", number(O_RDONLY), number(0)}, {.out = 0}).end_parent();
  builder.add(StepKind::sethostname, {Bytes{"inside"}});
  builder.add(StepKind::umask, {number(022)}, {.tolerate = {1, 2}, .skip_if_tolerated = 1});
  builder.add(StepKind::close, {SlotRef{0}});
  builder.add(StepKind::exec, {Words{"/bin/true", "/usr/bin/true"}, Words{"true", "one"}, Words{}});
  builder.uid_map = "0 1000 1\n";
  builder.gid_map = "0 1000 1\n";
  builder.oom_score_adj = "500";
  return builder;
}

const char* checked(Plan plan) { return check_plan(plan.data(), plan.size()); }

// The sample, spoilt.
const char* refusal(const std::function<void(Plan&)>& spoil) {
  Plan plan = sample().encode();
  spoil(plan);
  return checked(std::move(plan));
}

void accepts() {
  CHECK(checked(sample().encode()) == nullptr);
  CHECK(checked(Builder().encode()) == nullptr);
  Builder with_joiner;
  with_joiner.end_parent().add(StepKind::setns, {SlotRef{0}, number(0)}).end_join().header.joiner = 1;
  CHECK(checked(with_joiner.encode()) == nullptr);
}

void relocates() {
  Plan plan = sample().encode();
  CHECK(check_plan(plan.data(), plan.size()) == nullptr);
  const auto vector = [&](int arg) {
    return reinterpret_cast<const char* const*>(plan.data() + step_of(plan, 4).args[arg]);
  };
  CHECK_TEXT(vector(0)[0], "/bin/true");
  CHECK_TEXT(vector(0)[1], "/usr/bin/true");
  CHECK(vector(0)[2] == nullptr);
  CHECK_TEXT(vector(1)[1], "one");
  CHECK(vector(1)[2] == nullptr);
  CHECK(vector(2)[0] == nullptr);
  // Addresses are no offsets.
  CHECK_TEXT(check_plan(plan.data(), plan.size()), "vector entry out of range");
}

void refuses_headers() {
  CHECK_TEXT(checked(Plan(sizeof(PlanHeader))), "plan too short or too long");
  CHECK_TEXT(checked(Plan()), "plan too short or too long");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).magic++; }), "not a plan");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).size++; }), "plan of another size");
  CHECK_TEXT(refusal([](Plan& plan) { plan.push_back(0); }), "plan of another size");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).slot_count = kMaxSlots + 1; }), "too many slots");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).parent_end = 2; }), "sections out of order");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).join_end = 6; }), "sections out of order");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).map_helpers = 2; }), "flag out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).own_memory = 2; }), "flag out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).vfork = 2; }), "flag out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).joiner = 2; }), "flag out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).step_count = UINT32_MAX; }), "data out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).vectors_end = header_of(plan).size; }), "data out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).vectors_end -= 4; }), "data out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).vectors_end = 8; }), "data out of range");
  CHECK_TEXT(refusal([](Plan& plan) { plan.back() = 'x'; }), "data without an end");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).join_end = 2; }), "steps of a joiner, but no joiner");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).uid_map = 8; }), "id map out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).gid_map = header_of(plan).size; }), "id map out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).map_helpers = 1; }), "id map out of range");
  // A command without a word: the end of the last vector.
  CHECK_TEXT(refusal([](Plan& plan) {
               header_of(plan).map_helpers = 1;
               header_of(plan).uid_map = header_of(plan).gid_map = header_of(plan).vectors_end - 8;
             }),
             "id map out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).oom_score_adj = -2; }), "oom_score_adj out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).net_slot = 8; }), "network slot out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).report_slot = 8; }), "report slot out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).net_slot = -2; }), "network slot out of range");
  CHECK_TEXT(refusal([](Plan& plan) { header_of(plan).cgroup_slot = 8; }), "cgroup slot out of range");
}

void refuses_steps() {
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 0).kind = static_cast<uint16_t>(StepKind::count); }),
             "unknown kind of step");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 0).out = 8; }), "result slot out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 0).out = -2; }), "result slot out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 0).skip = 1; }), "skip past the end of a section");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 4).skip = 1; }), "skip past the end of a section");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 3).args[0] = 8; }), "descriptor slot out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 3).args[0] = -2; }), "descriptor slot out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 0).args[1] = header_of(plan).vectors_end - 1; }),
             "string out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 0).args[1] = header_of(plan).size; }), "string out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 0).args[1] = INT64_MIN; }), "string out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 4).args[0] += 4; }), "vector out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 4).args[0] = -1; }), "vector out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 4).args[2] = header_of(plan).vectors_end; }),
             "vector out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 1).args[0] += int64_t{10000} << 32; }), "bytes out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 1).args[0] = INT64_MIN; }), "bytes out of range");
  CHECK_TEXT(refusal([](Plan& plan) { step_of(plan, 1).args[0] = int64_t{1} << 32; }), "bytes out of range");

  const auto groups = [](int64_t count, Argument list) {
    return checked(Builder().add(StepKind::setgroups, {number(count), std::move(list)}).encode());
  };
  CHECK(groups(2, Bytes{std::string(8, '\0')}) == nullptr);
  CHECK(groups(0, null_string()) == nullptr);
  CHECK_TEXT(groups(3, Bytes{std::string(8, '\0')}), "more groups than bytes");
  CHECK_TEXT(groups(-1, Bytes{std::string(8, '\0')}), "more groups than bytes");
  CHECK_TEXT(groups(65537, null_string()), "more groups than bytes");

  const auto filter = [](Argument program) {
    return checked(Builder().add(StepKind::install_filter, {number(0), std::move(program)}).encode());
  };
  const char* const parts = "a filter of other than whole instructions";
  CHECK(filter(Bytes{std::string(8, '\0')}) == nullptr);
  CHECK(filter(Bytes{std::string(size_t{4096} * 8, '\0')}) == nullptr);
  CHECK_TEXT(filter(Bytes{std::string(size_t{4097} * 8, '\0')}), parts);
  CHECK_TEXT(filter(Bytes{std::string(12, '\0')}), parts);
  CHECK_TEXT(filter(null_string()), parts);
}

void refuses_vectors() {
  const auto vector_word = [](Plan& plan, int index) { return plan.data() + step_of(plan, 4).args[0] + index * 8; };
  CHECK_TEXT(refusal([&](Plan& plan) { memset(vector_word(plan, 1), 0, 8); }), "vector entry out of range");
  CHECK_TEXT(refusal([&](Plan& plan) { memcpy(vector_word(plan, 6), vector_word(plan, 0), 8); }),
             "vector without an end");
}

}  // namespace

int main() {
  accepts();
  relocates();
  refuses_headers();
  refuses_steps();
  refuses_vectors();
  return result();
}
