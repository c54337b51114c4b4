// The C interface that Python calls, and the choice of the instruction level.

#include "kernels.h"

namespace {

Level best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq"))
    return few_rows_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return few_rows_avx2;
#endif
  return nullptr;
}

const Level level = best();

}  // namespace

// Floats in a vector: `wide` is a multiple of it. 0 where this processor has none of the levels.
extern "C" int pellucid_vector() {
#if defined(__x86_64__)
  if (level == few_rows_avx512) return 16;
  if (level == few_rows_avx2) return 8;
#endif
  return 0;
}

// y = x W^T + b on so many threads; 1, and y untouched, where the level does not take so many rows, or such a `wide`.
extern "C" int pellucid_few_rows(const float *w, const float *x, const float *bias, float *y, std::int64_t rows,
                                 std::int64_t out, std::int64_t in, std::int64_t depth, std::int64_t wide,
                                 std::int64_t block, int threads) {
  const Product p{w, x, bias, y, rows, out, in, depth, wide, block};
  const std::int64_t panels = (out + wide - 1) / wide;
  if (threads == 1) return !level(p, 0, panels);
  bool done = true;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(&& : done)
  for (int thread = 0; thread < threads; thread++)
    done = level(p, panels * thread / threads, panels * (thread + 1) / threads) && done;
  return !done;
}
