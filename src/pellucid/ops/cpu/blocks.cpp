// The C interface to products with GGUF's blocks, and the choice of the instruction level.

#include "blocks.h"
#include "steps.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace {

constexpr std::int64_t SHARE = 32;  // outputs that one thread takes at least

enum Level { NONE, AVX2, VNNI, NEON, NEON_DOT };  // as in blocks.py

int best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    return VNNI;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#elif defined(__aarch64__) && defined(__linux__)
  return getauxval(AT_HWCAP) & 1ul << 20 ? NEON_DOT : NEON;  // FEAT_DotProd, as Linux numbers it
#elif defined(__aarch64__)
  return NEON;
#endif
  return NONE;
}

const int level = best();

BlockKernel kernel(std::int64_t kind, int which) {
#if defined(__x86_64__)
  if (which == VNNI && level == VNNI) return blocks_avx512(kind);
  if (which == AVX2 && level >= AVX2) return blocks_avx2(kind);
#elif defined(__aarch64__)
  if (which == NEON_DOT && level == NEON_DOT) return blocks_neon_dot(kind);
  if (which == NEON) return blocks_neon(kind);
#endif
  return {nullptr, nullptr};
}

}  // namespace

extern "C" int pellucid_blocks_best() { return level; }

// Whether this level multiplies by this kind of block.
extern "C" int pellucid_blocks_has(std::int64_t kind, int which) { return kernel(kind, which).multiply != nullptr; }

// Bytes of scratch for each row of x.
extern "C" std::int64_t pellucid_blocks_scratch(std::int64_t in) { return kept_bytes(in); }

// The product on so many threads; 1, and y untouched, where the level has not that kind.
extern "C" int pellucid_blocks(const BlockProduct *product, int which, int threads) {
  const BlockProduct &p = *product;
  const BlockKernel found = kernel(p.kind, which);
  if (!found.multiply) return 1;
  const std::int64_t blocks = (p.in + 255) / 256, shares = (p.out + SHARE - 1) / SHARE;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static)
    for (int thread = 0; thread < threads; thread++)
      found.keep(p, blocks * thread / threads, blocks * (thread + 1) / threads);
#pragma omp for schedule(static)
    for (int thread = 0; thread < threads; thread++) {
      const std::int64_t end = shares * (thread + 1) / threads * SHARE;
      found.multiply(p, shares * thread / threads * SHARE, end < p.out ? end : p.out);
    }
  }
  return 0;
}

// A product in a step: x in 8 bits first, then the outputs.
extern "C" std::int64_t pellucid_blocks_keep(const void *work, const Team &team) {
  const BlockProduct &p = *static_cast<const BlockProduct *>(work);
  const std::int64_t blocks = (p.in + 255) / 256;
  kernel(p.kind, level).keep(p, blocks * team.thread / team.threads, blocks * (team.thread + 1) / team.threads);
  return 0;
}

extern "C" std::int64_t pellucid_blocks_multiply(const void *work, const Team &team) {
  const BlockProduct &p = *static_cast<const BlockProduct *>(work);
  const std::int64_t shares = (p.out + SHARE - 1) / SHARE, end = shares * (team.thread + 1) / team.threads * SHARE;
  kernel(p.kind, level).multiply(p, shares * team.thread / team.threads * SHARE, end < p.out ? end : p.out);
  return 0;
}
