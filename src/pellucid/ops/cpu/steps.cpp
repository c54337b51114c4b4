// The calls of a decode step in one parallel region: threads are woken once, and wait for each other only where one
// reads what another has written.

#include "steps.h"

extern "C" int omp_get_thread_num();
extern "C" int omp_get_num_threads();

static_assert(sizeof(Call) == 5 * 8, "as steps.py packs them");

// Makes these calls in order on so many threads. 0, or what the last call that failed returned: the others were made.
extern "C" std::int64_t pellucid_calls(Call *calls, std::int64_t count, int threads) {
  std::int64_t failed = 0;
  for (std::int64_t i = 0; i < count; i++) calls[i].next = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int thread = omp_get_thread_num(), team = omp_get_num_threads();
    for (std::int64_t i = 0; i < count; i++) {
      Call &call = calls[i];
      if (call.wait && team > 1) {
#pragma omp barrier
      }
      if (thread && !call.shared) continue;
      const Team mine{call.shared ? thread : 0, call.shared ? team : 1, &call.next};
      if (const std::int64_t found = call.run(call.work, mine)) __atomic_store_n(&failed, found, __ATOMIC_RELAXED);
    }
  }
  return failed;
}
