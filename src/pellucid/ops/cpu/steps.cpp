// The calls of a decode step in one parallel region: threads are woken once, and wait for each other only where one
// reads what another has written.

#include "steps.h"

#include <time.h>

extern "C" int omp_get_thread_num();
extern "C" int omp_get_num_threads();

static_assert(sizeof(Call) == 5 * 8, "as steps.py packs them");

namespace {

std::int64_t nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

}  // namespace

// Makes these calls in order on so many threads. 0, or what the last call that failed returned: the others were made.
// The nanoseconds of each are added to `spent`, where it is not null: from when the first thread begins it to when that
// begins the next. So what it waits for others counts where they were late.
extern "C" std::int64_t pellucid_calls(Call *calls, std::int64_t count, int threads, std::int64_t *spent) {
  std::int64_t failed = 0, begun = 0;
  for (std::int64_t i = 0; i < count; i++) calls[i].next = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int thread = omp_get_thread_num(), team = omp_get_num_threads();
    for (std::int64_t i = 0; i < count; i++) {
      Call &call = calls[i];
      if (call.wait && team > 1) {
#pragma omp barrier
      }
      if (spent && !thread) {
        const std::int64_t now = nanoseconds();
        if (i) spent[i - 1] += now - begun;
        begun = now;
      }
      if (thread && !call.shared) continue;
      const Team mine{call.shared ? thread : 0, call.shared ? team : 1, &call.next};
      if (const std::int64_t found = call.run(call.work, mine)) __atomic_store_n(&failed, found, __ATOMIC_RELAXED);
    }
  }
  if (spent && count) spent[count - 1] += nanoseconds() - begun;
  return failed;
}
