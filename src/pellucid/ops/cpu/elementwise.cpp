// The C interface to the elementwise kernels, and the choice of the instruction level.

#include "elementwise.h"

#include <cstring>

#include "steps.h"

namespace {

enum Level { BEST, AVX2, AVX512, NEON };  // as in elementwise.py

const Elementwise *supported(int level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx512 && (level == BEST || level == AVX512)) return &elementwise_avx512;
  if (avx2 && (level == BEST || level == AVX2)) return &elementwise_avx2;
#elif defined(__aarch64__)
  if (level == BEST || level == NEON) return &elementwise_neon;
#endif
  return nullptr;
}

const Elementwise *const levels[] = {supported(BEST), supported(AVX2), supported(AVX512), supported(NEON)};

static_assert(sizeof(Norming) == 80 && sizeof(Turning) == 80 && sizeof(Looking) == 64 && sizeof(Pointwise) == 64,
              "as elementwise.py packs them");

// Each row by one of the threads.
template <class Work>
void shared(void (*run)(const Work &, std::int64_t, std::int64_t), const Work &work) {
  const int threads = work.how.threads;
  if (threads < 2) return run(work, 0, work.rows);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; thread++)
    run(work, work.rows * thread / threads, work.rows * (thread + 1) / threads);
}

// The same in a step.
template <class Work>
std::int64_t share(void (*run)(const Work &, std::int64_t, std::int64_t), const Work &work, const Team &team) {
  run(work, work.rows * team.thread / team.threads, work.rows * (team.thread + 1) / team.threads);
  return 0;
}

// As elementwise.py packs it: rows of a table, whatever its numbers are.
struct Gathering {
  const char *table;       // [count, bytes]
  const std::int64_t *at;  // [rows]
  char *to;                // [rows, bytes]
  std::int64_t rows, count, bytes;
};

}  // namespace

// Whether there are kernels of this level for this processor.
extern "C" int pellucid_has_elementwise(int level) { return levels[level] != nullptr; }

extern "C" void pellucid_norm(const Norming *work) { shared(levels[work->how.level]->norm, *work); }
extern "C" void pellucid_turn(const Turning *work) { shared(levels[work->how.level]->turn, *work); }
extern "C" void pellucid_look_up(const Looking *work) { shared(levels[work->how.level]->look_up, *work); }
extern "C" void pellucid_pointwise(const Pointwise *work) { shared(levels[work->how.level]->pointwise, *work); }

extern "C" std::int64_t pellucid_norm_share(const void *work, const Team &team) {
  return share(levels[BEST]->norm, *static_cast<const Norming *>(work), team);
}

extern "C" std::int64_t pellucid_turn_share(const void *work, const Team &team) {
  return share(levels[BEST]->turn, *static_cast<const Turning *>(work), team);
}

extern "C" std::int64_t pellucid_look_up_share(const void *work, const Team &team) {
  return share(levels[BEST]->look_up, *static_cast<const Looking *>(work), team);
}

extern "C" std::int64_t pellucid_pointwise_share(const void *work, const Team &team) {
  return share(levels[BEST]->pointwise, *static_cast<const Pointwise *>(work), team);
}

// row + 1 where there is no such row of the table.
extern "C" std::int64_t pellucid_gather_share(const void *work, const Team &team) {
  const Gathering &g = *static_cast<const Gathering *>(work);
  for (std::int64_t row = team.thread; row < g.rows; row += team.threads) {
    if (g.at[row] < 0 || g.at[row] >= g.count) return row + 1;
    std::memcpy(g.to + row * g.bytes, g.table + g.at[row] * g.bytes, g.bytes);
  }
  return 0;
}
