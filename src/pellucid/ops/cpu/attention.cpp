// The C interface to paged attention, and the choice of the instruction level.

#include "attention.h"
#include "steps.h"

#include <cstdlib>
#include <cstring>

namespace {

constexpr double WORTH_SHARING = 1 << 19;  // multiply-adds, from which a second thread pays

static_assert(sizeof(Attending) == 41 * 8 && sizeof(Writing) == 18 * 8, "as paged.py packs them");

constexpr int PIECES_EACH = 4;  // for each thread at least, so that long rows hold nobody up

enum Level { BEST, AVX2, AVX512, NEON, DOT };  // as in paged.py

Attention supported(int level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  // Intel starts a product in pairs in two cycles, and four multiply-adds of 16.
  const bool dot = avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
  if (dot && (level == BEST || level == DOT)) return attention_dot;
  if (avx512 && (level == BEST || level == AVX512)) return attention_avx512;
  if (avx2 && (level == BEST || level == AVX2)) return attention_avx2;
#elif defined(__aarch64__)
  if (level == BEST || level == NEON) return attention_neon;
#endif
  return nullptr;
}

const Attention levels[] = {supported(BEST), supported(AVX2), supported(AVX512), supported(NEON), supported(DOT)};

// Whether a row's queries are there, and all pages that they see.
bool sound(const Attending &a, std::int64_t row) {
  const std::int64_t length = a.lengths[row], end = a.ends[row];
  if (length < 0 || end < 0) return false;
  if (length == 0) return true;
  if ((a.causal || a.window || a.chunk) ? end < length : end == 0) return false;
  if (!a.tables) return a.starts[row] >= 0 && a.starts[row] + end <= a.pages;
  if (end > a.entries * a.page) return false;
  for (std::int64_t i = first_seen(a, end - length) / a.page; i * a.page < end; i++) {
    const std::int32_t page = a.tables[row * a.entries + i];
    if (page < 0 ? ~page >= a.codes.pages : page >= a.pages) return false;
  }
  return true;
}

// How the work is cut: rows, blocks of their queries, and some key heads at a time. Bits do not depend on it.
struct Cut {
  std::int64_t blocks, kv_heads, parts, pieces;

  Cut(const Attending &a, std::int64_t most, int threads) {  // queries that share a key head
    blocks = (most + BLOCK - 1) / BLOCK;
    kv_heads = most < BLOCK ? MOST_QUERIES / (most ? most : 1) : MOST_QUERIES / BLOCK;
    const std::int64_t each = a.rows * blocks == 1 ? 1 : PIECES_EACH;
    const std::int64_t fair = a.rows * blocks * a.kv_heads / (threads * each);
    if (threads > 1 && kv_heads > fair) kv_heads = fair ? fair : 1;
    if (kv_heads > a.kv_heads) kv_heads = a.kv_heads;
    parts = (a.kv_heads + kv_heads - 1) / kv_heads;
    pieces = a.rows * blocks * parts;
  }
};

// What a call asks for, after a look at all of it.
struct Asked {
  std::int64_t failure = 0, most = 0;  // queries that share a key head
  double work = 0;                     // multiply-adds

  explicit Asked(const Attending &a) {
    std::int64_t tokens = 0;
    double seen = 0;
    for (std::int64_t row = 0; row < a.rows; row++) {
      if (!sound(a, row)) {
        failure = row + 1;
        return;
      }
      const std::int64_t length = a.lengths[row];
      most = length > most ? length : most;
      tokens += length;
      seen += double(length) * (a.ends[row] - first_seen(a, a.ends[row] - length));
    }
    if (tokens != a.queries) failure = -1;
    most *= a.heads / a.kv_heads;
    work = seen * a.heads * (a.channels + a.values);
  }
};

void attend(const Attending &a, const Cut &cut, std::int64_t which, const std::int64_t *starts, int level,
            float *scratch) {
  const std::int64_t row = which / (cut.blocks * cut.parts), block = which / cut.parts % cut.blocks;
  const std::int64_t begin = block * BLOCK, left = a.lengths[row] * (a.heads / a.kv_heads) - begin;
  if (left <= 0) return;
  const std::int64_t kv_begin = which % cut.parts * cut.kv_heads, kv_end = kv_begin + cut.kv_heads;
  const std::int64_t count = left < BLOCK ? left : BLOCK, stop = kv_end < a.kv_heads ? kv_end : a.kv_heads;
  levels[level](a, {row, begin, count, kv_begin, stop, starts[row]}, scratch);
}

}  // namespace

// Whether there is a kernel of this level for this processor.
extern "C" int pellucid_attends(int level) { return levels[level] != nullptr; }

// How many kinds of numbers there are, and bytes that a call packs: a library that was built from other sources is not called.

// Attends, on so many threads at most. 0, or else and with `out` untouched: -1 where queries are missing or too many,
// -2 without memory, b + 1 where row b has no such queries or pages.
extern "C" std::int64_t pellucid_attend(const Attending *asked, int level, int threads) {
  const Attending &a = *asked;
  const Asked found(a);
  if (found.failure) return found.failure;
  if (found.work < WORTH_SHARING) threads = 1;
  const Cut cut(a, found.most, threads);
  if (threads > cut.pieces) threads = cut.pieces > 1 ? cut.pieces : 1;

  const std::int64_t scratch = scratch_of(a), bytes = (scratch * threads * 4 + a.rows * 8 + 63) / 64 * 64;
  float *memory = static_cast<float *>(std::aligned_alloc(64, bytes));
  if (!memory) return -2;
  std::int64_t *starts = reinterpret_cast<std::int64_t *>(memory + scratch * threads);
  for (std::int64_t row = 0, start = 0; row < a.rows; start += a.lengths[row++]) starts[row] = start;

  if (threads == 1) {
    for (std::int64_t which = 0; which < cut.pieces; which++) attend(a, cut, which, starts, level, memory);
  } else {
    std::int64_t next = 0;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++)
      for (std::int64_t which; (which = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < cut.pieces;)
        attend(a, cut, which, starts, level, memory + thread * scratch);
  }
  std::free(memory);
  return 0;
}

// A thread's share of the same in a step, of rows with one query each. Bits do not depend on the threads.
extern "C" std::int64_t pellucid_attend_share(const void *asked, const Team &team) {
  const Attending &a = *static_cast<const Attending *>(asked);
  const Asked found(a);
  if (found.failure) return found.failure;
  const Cut cut(a, found.most, team.threads);
  float *scratch = nullptr;  // and behind it the first token of each row
  for (std::int64_t which; (which = __atomic_fetch_add(team.next, 1, __ATOMIC_RELAXED)) < cut.pieces;) {
    if (!scratch) {
      scratch = static_cast<float *>(std::aligned_alloc(64, (scratch_of(a) * 4 + a.rows * 8 + 63) / 64 * 64));
      if (!scratch) return -2;
      std::int64_t *first = reinterpret_cast<std::int64_t *>(scratch + scratch_of(a));
      for (std::int64_t row = 0, start = 0; row < a.rows; start += a.lengths[row++]) first[row] = start;
    }
    attend(a, cut, which, reinterpret_cast<std::int64_t *>(scratch + scratch_of(a)), BEST, scratch);
  }
  std::free(scratch);
  return 0;
}

// Copies new keys and values to their slots. 0, or n + 1 where token n has no slot (those before it are done).
extern "C" std::int64_t pellucid_write(const Writing *asked) {
  const Writing &w = *asked;
  const auto copy = [&](void *pool, const void *fresh, std::int64_t n, std::int64_t channels, std::int64_t page_step,
                        std::int64_t token_step, std::int64_t head_step) {
    const std::int64_t size = channels * w.bytes, from = n * w.kv_heads * size;
    const std::int64_t to = w.slots[n] / w.page * page_step + w.slots[n] % w.page * token_step;
    for (std::int64_t head = 0; head < w.kv_heads; head++)
      std::memcpy(static_cast<char *>(pool) + (to + head * head_step) * w.bytes,
                  static_cast<const char *>(fresh) + from + head * size, size);
  };
  for (std::int64_t n = 0; n < w.tokens; n++) {
    if (w.slots[n] < 0 || w.slots[n] >= w.pages * w.page) return n + 1;
    copy(w.k, w.new_k, n, w.channels, w.k_page_step, w.k_token_step, w.k_head_step);
    copy(w.v, w.new_v, n, w.values, w.v_page_step, w.v_token_step, w.v_head_step);
  }
  return 0;
}

extern "C" std::int64_t pellucid_write_share(const void *work, const Team &) {
  return pellucid_write(static_cast<const Writing *>(work));
}
