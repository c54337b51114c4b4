// Attention over pages against the definition in float64, and each query against itself alone: bit for bit.

#include "../../../src/pellucid/ops/cpu/attention.h"

#include <algorithm>

#include "common.h"

extern "C" {
int pellucid_attends(int);
Size pellucid_attend(const Attending *, int, int);
Size pellucid_write(const Writing *);
}

namespace {

struct Case {
  Size kv_heads, group, channels, values, page, window, chunk;
  bool causal, sinks, slopes, bias;
  float cap;
  std::vector<Size> lengths, ends;
};

inline float number(float x) { return x; }
inline float number(Half x) { return wide(x); }
inline float number(F16 x) { return number16(x.bits); }

// Keys and values of all rows, written to pages that lie anywhere in the pool.
template <class T>
struct Pool {
  std::vector<T> k, v;
  std::vector<std::int32_t> tables;
  Size pages = 0, entries = 0;

  explicit Pool(const Case &c) {
    for (Size end : c.ends) entries = std::max(entries, (end + c.page - 1) / c.page);
    pages = entries * c.ends.size() + 1;
    std::vector<std::int32_t> free(pages);
    for (Size i = 0; i < pages; i++) free[i] = i;
    std::shuffle(free.begin(), free.end(), chance);
    tables.assign(free.begin(), free.begin() + entries * c.ends.size());
    k.resize(pages * c.page * c.kv_heads * c.channels);
    v.resize(pages * c.page * c.kv_heads * c.values);
    for (T &x : k) noisy(x);
    for (T &x : v) noisy(x);
  }

  static void noisy(float &x) { x = noise(); }
  static void noisy(Half &x) { x = narrow(noise()); }
  static void noisy(F16 &x) {  // up to 4, and some that are too small for a first bit of their own
    x.bits = (chance() & 0x83ff) | (chance() % 9 ? 12 + chance() % 5 : 0) << 10;
  }

  Size slot(const Case &c, Size row, Size token) const {
    return tables[row * entries + token / c.page] * c.page + token % c.page;
  }
};

// Over keys and values of E, by queries of T.
template <class E, class T>
std::vector<T> attend(const Case &c, const Pool<E> &pool, const std::vector<T> &q, const std::vector<float> &sinks,
                      const std::vector<float> &slopes, const std::vector<std::vector<float>> &biases,
                      const std::vector<Size> &lengths, const std::vector<Size> &ends, int level, int threads) {
  Size queries = 0;
  std::vector<const float *> at;
  std::vector<Size> steps;
  for (size_t row = 0; row < ends.size(); row++) {
    queries += lengths[row];
    // A row's biases are for its last queries; where there are fewer of them, for the first of those.
    at.push_back(biases[row].data());
    steps.push_back(c.lengths[row] * c.ends[row]);
    steps.push_back(c.ends[row]);
  }
  const Size heads = c.kv_heads * c.group;
  std::vector<T> out(queries * heads * c.values);
  Attending a = {};
  a.q = q.data(), a.k = pool.k.data(), a.v = pool.v.data(), a.out = out.data();
  a.tables = pool.tables.data(), a.lengths = lengths.data(), a.ends = ends.data();
  a.sinks = c.sinks ? sinks.data() : nullptr, a.slopes = c.slopes ? slopes.data() : nullptr;
  a.biases = c.bias ? at.data() : nullptr, a.bias_steps = c.bias ? steps.data() : nullptr;
  a.numbers = sizeof(T) == 2 ? 1 : sizeof(E) == 2 ? 2 : 0;
  a.rows = ends.size(), a.queries = queries, a.entries = pool.entries, a.pages = pool.pages, a.page = c.page;
  a.heads = heads, a.kv_heads = c.kv_heads, a.channels = c.channels, a.values = c.values;
  a.k_page_step = c.page * (a.k_token_step = c.kv_heads * (a.k_head_step = c.channels));
  a.v_page_step = c.page * (a.v_token_step = c.kv_heads * (a.v_head_step = c.values));
  a.window = c.window, a.chunk = c.chunk, a.causal = c.causal;
  a.scale = 1 / std::sqrt(double(c.channels)), a.cap = c.cap;
  check(pellucid_attend(&a, level, threads) == 0, "attention is refused");
  return out;
}

template <class E, class T = E>
void attention(const Case &c, int level) {
  const Size heads = c.kv_heads * c.group;
  Size queries = 0;
  for (Size length : c.lengths) queries += length;
  const Pool<E> pool(c);
  std::vector<T> q(queries * heads * c.channels);
  for (T &x : q) Pool<T>::noisy(x);
  const std::vector<float> sinks = floats(heads), slopes = floats(heads);
  std::vector<std::vector<float>> biases;
  for (size_t row = 0; row < c.ends.size(); row++) biases.push_back(floats(heads * c.lengths[row] * c.ends[row]));

  const auto all = [&](int threads) {
    return attend(c, pool, q, sinks, slopes, biases, c.lengths, c.ends, level, threads);
  };
  const std::vector<T> out = all(1);
  check(same(out, all(3)), "attention on 3 threads, level %g", level);

  double worst = 0, largest = 0;
  Size query = 0;
  for (size_t row = 0; row < c.ends.size(); row++)
    for (Size t = 0; t < c.lengths[row]; t++, query++) {
      const Size position = c.ends[row] - c.lengths[row] + t;
      for (Size head = 0; head < heads; head++) {
        const T *mine = q.data() + (query * heads + head) * c.channels;
        std::vector<double> mixed(c.values);
        std::vector<std::pair<double, Size>> seen;
        double most = c.sinks ? sinks[head] : -INFINITY, total = 0;
        for (Size s = 0; s < c.ends[row]; s++) {
          const Size apart = position - s;
          if (c.causal ? apart < 0 || (c.window && apart >= c.window) : c.window && std::abs(apart) > c.window) continue;
          if (c.chunk && s / c.chunk != position / c.chunk) continue;
          const Size slot = pool.slot(c, row, s);
          const E *key = pool.k.data() + (slot * c.kv_heads + head / c.group) * c.channels;
          double score = 0;
          for (Size i = 0; i < c.channels; i++) score += double(number(mine[i])) * number(key[i]);
          score /= std::sqrt(double(c.channels));
          if (c.cap) score = c.cap * std::tanh(score / c.cap);
          if (c.slopes) score -= double(slopes[head]) * apart;
          if (c.bias) score += biases[row][(head * c.lengths[row] + t) * c.ends[row] + s];
          seen.push_back({score, slot});
          most = std::fmax(most, score);
        }
        for (auto [score, slot] : seen) {
          const double share = std::exp(score - most);
          total += share;
          const E *value = pool.v.data() + (slot * c.kv_heads + head / c.group) * c.values;
          for (Size i = 0; i < c.values; i++) mixed[i] += share * number(value[i]);
        }
        if (c.sinks) total += std::exp(sinks[head] - most);
        for (Size i = 0; i < c.values; i++) {
          const double exact = mixed[i] / total, mine = number(out[(query * heads + head) * c.values + i]);
          worst = std::fmax(worst, std::fabs(mine - exact));
          largest = std::fmax(largest, std::fabs(exact));
        }
      }
    }
  check(worst < (sizeof(T) == 2 ? 1.0 / 256 : 1e-5) * largest, "attention, level %g: off by %g of %g", level, worst, largest);

  if (!c.causal) return;
  for (Size many : {1, 3}) {  // the first queries of the first row alone: others' company changes no bit
    const Size length = std::min(many, c.lengths[0]), size = length * heads;
    const std::vector<T> few(q.begin(), q.begin() + size * c.channels);
    const std::vector<T> alone = attend(c, pool, few, sinks, slopes, biases, {length},
                                        {c.ends[0] - c.lengths[0] + length}, level, 1);
    check(same(alone, {out.begin(), out.begin() + size * c.values}), "attention of %g queries alone, level %g", many, level);
  }
}

void write() {
  Case c = {2, 1, 5, 3, 4, 0, 0, true, false, false, false, 0, {3}, {11}};
  Pool<float> pool(c);
  const std::vector<float> k = floats(3 * 2 * 5), v = floats(3 * 2 * 3);
  std::vector<Size> slots = {pool.slot(c, 0, 8), pool.slot(c, 0, 9), pool.slot(c, 0, 10)};
  Writing w = {pool.k.data(), pool.v.data(), k.data(), v.data(), slots.data(), 3, 4, pool.pages, 4, 2, 5, 3,
               4 * 2 * 5, 2 * 5, 5, 4 * 2 * 3, 2 * 3, 3};
  check(pellucid_write(&w) == 0, "keys are written");
  for (Size n = 0; n < 3; n++)
    check(!std::memcmp(&pool.k[slots[n] * 10], &k[n * 10], 40) && !std::memcmp(&pool.v[slots[n] * 6], &v[n * 6], 24),
          "token %g in its slot", n);
  slots[1] = pool.pages * 4;
  check(pellucid_write(&w) == 2, "a slot beyond the pool");
}

}  // namespace

void check_attention() {
  const std::vector<Size> lengths = {35, 1, 0, 5}, ends = {100, 71, 0, 5};
  const Size widths[][2] = {{7, 7}, {40, 40}, {64, 64}, {80, 24}, {128, 130}};
  int found = 0, which = 0;
  for (int level = 0; level < 5; level++) {
    if (!pellucid_attends(level)) continue;
    found++;
    for (auto [channels, values] : widths)
      for (int how = 0; how < 8; how++, which++) {
        const Size group = 1 + which % 3, window = how == 1 ? 9 : how == 2 ? 70 : 0, chunk = how == 3 ? 33 : 0;
        const Case c = {2, group, channels, values, 1 + which % 2 * 15, window, chunk, how != 2, how == 4 || how == 7,
                        how == 5, how >= 6, how % 3 == 1 ? 2.0f : 0.0f, lengths, ends};
        which % 2 ? attention<float>(c, level) : attention<Half>(c, level);
        attention<F16, float>(c, level);
        if (how == 7) attention<float>(c, level);
      }
  }
  check(found > 1, "no attention");
  write();
}
