#pragma once

#include <sys/types.h>

#include "../child/plan.h"

namespace cloister {

struct IdMapResult {
  Phase phase;
  int error;  // positive errno, 0
};

// user_namespaces(7), "Defining user and group ID mappings": writes /proc/PID/uid_map and gid_map (and oom_score_adj) as the
// plan's header says, itself or through newuidmap(1) and newgidmap(1).
IdMapResult write_id_maps(pid_t pid, const PlanHeader& header, const uint8_t* plan);

}  // namespace cloister
