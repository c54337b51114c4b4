// The C interface that Python calls, and the choice of the instruction level.

#include "kernels.h"
#include "steps.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace {

Level best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq"))
    return few_rows_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return few_rows_avx2;
#elif defined(__aarch64__)
  return few_rows_neon;
#endif
  return nullptr;
}

const Level level = best();

#if defined(__x86_64__)

bool has_pairs() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

bool has_tiles() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 22);
}

// Whether the processor multiplies bfloat16 in pairs (AVX512_BF16), or in tiles (AMX). Asked once: a virtual machine
// takes 30 microseconds to answer.
const bool pairs = has_pairs(), tiles = has_tiles();

#elif defined(__aarch64__)

bool has_pairs() {  // FEAT_BF16, as Linux numbers it
#if defined(__linux__)
  return getauxval(AT_HWCAP2) & 1ul << 14;
#else
  return false;
#endif
}

const bool pairs = has_pairs();

#endif

}  // namespace

// Which sources this is compiled from, as version.py says; a library of others is not used.
#ifdef PELLUCID_SOURCES
extern "C" const char *pellucid_sources() { return PELLUCID_SOURCES; }
#endif

// Floats in a vector: `wide` is a multiple of it. 0 where this processor has none of the levels.
extern "C" int pellucid_vector() {
#if defined(__x86_64__)
  if (level == few_rows_avx512) return 16;
  if (level == few_rows_avx2) return 8;
#elif defined(__aarch64__)
  return 4;
#endif
  return 0;
}

namespace {

Level panels_level(const Product &p) {
#if defined(__x86_64__)
  if (p.half) return level == few_rows_avx512 && pairs ? few_rows_dot : nullptr;
#endif
  return p.half ? nullptr : level;
}

// Leaves of a product the rows of one of the threads.
template <class P>
void keep_rows(P &p, std::int64_t x_stride, int thread, int threads) {
  const std::int64_t first = p.rows * thread / threads, size = p.half ? 2 : 4;
  p.x = (const char *)p.x + first * x_stride * size;
  p.y = (char *)p.y + first * p.out * size;
  p.rows = p.rows * (thread + 1) / threads - first;
}

// A thread's share: some of the panels, or of the rows where there are more of them than outputs.
bool share_of(Product p, Level run, int thread, int threads) {
  const std::int64_t panels = (p.out + p.wide - 1) / p.wide;
  if (p.rows <= p.out) return run(p, panels * thread / threads, panels * (thread + 1) / threads);
  keep_rows(p, p.in, thread, threads);
  return run(p, 0, panels);
}

// The same of outputs. Each thread lays out the rows and outputs that it multiplies, so what all of them lay out is the
// smaller of x and W.
bool share_of(RowProduct p, RowLevel run, int thread, int threads) {
  if (p.rows > p.out) {
    keep_rows(p, p.x_stride, thread, threads);
    return run(p, 0, p.rows ? p.out : 0);
  }
  const std::int64_t fours = (p.out + 3) / 4, end = fours * (thread + 1) / threads * 4;
  return run(p, fours * thread / threads * 4, end < p.out ? end : p.out);
}

// A product on so many threads; 1 where the processor has no such level, or there is no memory.
template <class P, class L>
int multiplied(const P &p, L run, int threads) {
  if (!run) return 1;
  bool done = true;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(&& : done) if (threads > 1)
  for (int thread = 0; thread < threads; thread++) done = share_of(p, run, thread, threads) && done;
  return !done;
}

}  // namespace

// y = x W^T + b on so many threads; 1, and y untouched, where no level takes such numbers, or such a `wide`.
extern "C" int pellucid_few_rows(const void *w, const void *x, const void *bias, void *y, std::int64_t rows,
                                 std::int64_t out, std::int64_t in, std::int64_t depth, std::int64_t wide,
                                 std::int64_t block, int half, int threads) {
  const Product p{w, x, bias, y, rows, out, in, depth, wide, block, half};
  return multiplied(p, panels_level(p), threads);
}

// Ways to multiply in bfloat16: 1 AVX2, 2 AVX-512, 3 AVX-512 with products in pairs, 4 NEON, 5 NEON with products in
// pairs; 0 where another's product is faster.
extern "C" int pellucid_bfloat16_best() {
#if defined(__x86_64__)
  if (!level || tiles) return 0;
  if (level != few_rows_avx512) return 1;
  // A product in pairs is one instruction for 32 products. Intel starts one in two cycles, and four multiply-adds of 16.
  return pairs && __builtin_cpu_is("amd") ? 3 : 2;
#elif defined(__aarch64__)
  return pairs ? 5 : 4;
#else
  return 0;
#endif
}

namespace {

RowLevel row_level(std::int64_t way) {
#if defined(__x86_64__)
  const bool wide = level == few_rows_avx512;
  if (way == 1 && level) return bfloat16_avx2;
  if (way == 2 && wide) return bfloat16_avx512;
  if (way == 3 && wide && pairs) return bfloat16_dot;
#elif defined(__aarch64__)
  if (way == 4) return bfloat16_neon;
  if (way == 5 && pairs) return bfloat16_neon_dot;
#endif
  return nullptr;
}

}  // namespace

// y = x W^T + b in bfloat16 on so many threads; 1, and y untouched, where the processor has not that way.
extern "C" int pellucid_bfloat16(const Half *w, const Half *x, const Half *bias, Half *y, std::int64_t rows,
                                 std::int64_t out, std::int64_t in, std::int64_t w_stride, std::int64_t x_stride, int way,
                                 int threads) {
  RowProduct p{{w, w_stride * 2, BFLOAT16}, x, bias, y, rows, out, in, x_stride, true};
  p.w.group = std::int64_t(1) << 60, p.w.height = 1;
  return multiplied(p, row_level(way), threads);
}

// The same for a packed matrix, or one of float16; x, bias and y in bfloat16 or float32.
extern "C" int pellucid_packed(const Matrix *w, const void *x, const void *bias, void *y, std::int64_t rows,
                               std::int64_t out, std::int64_t in, std::int64_t x_stride, int half, int way, int threads) {
  return multiplied(RowProduct{*w, x, bias, y, rows, out, in, x_stride, half != 0}, row_level(way), threads);
}

// The same products in a step.
struct RowWork {
  RowProduct product;
  std::int64_t way;
};

static_assert(sizeof(Product) == 11 * 8 && sizeof(RowWork) == 23 * 8, "as Python packs them");

extern "C" std::int64_t pellucid_rows_share(const void *work, const Team &team) {
  const RowWork &w = *static_cast<const RowWork *>(work);
  return !share_of(w.product, row_level(w.way), team.thread, team.threads);
}

extern "C" std::int64_t pellucid_few_rows_share(const void *work, const Team &team) {
  const Product &p = *static_cast<const Product *>(work);
  return !share_of(p, panels_level(p), team.thread, team.threads);
}
