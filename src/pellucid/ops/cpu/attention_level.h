// Paged attention for one instruction level. A level's file sets LEVEL, WIDTH (floats in a vector) and QUERIES (that
// share a pass over keys in registers), defines the loads, the stores and `sums`, and includes this.
//
// Each query's numbers come from its own operations in an order that only positions decide: a score is a sum over
// channels, lane by lane; the softmax goes on tile by tile, tiles cut at multiples of TILE; a mixed value is a chain of
// multiply-adds from the first key to the last. What a query does not see adds exact zeros. So a query has the same bits
// beside any others, from any pages, and on any thread.

namespace {

typedef std::int32_t Integers __attribute__((vector_size(WIDTH * 4)));

constexpr float NEGATIVE = -__builtin_inff();
constexpr int VECTORS = TILE / WIDTH;  // of a tile's scores
constexpr int GROUP = 4;               // keys whose scores are summed together

inline Vector all(float x) { return Vector{} + x; }

// exp(x), to about 1 in the last place; 0 below the normal numbers. Polynomial: our own minimax fit.
inline Vector exponential(Vector x) {
  const Vector big = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, found in the low bits
  const Vector rounded = x * 1.44269504f + big;
  const Vector n = rounded - big;
  const Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two parts
  const Vector high = 0.04166685417f + r * (0.00836320035f + r * 0.00139013096f);
  const Vector power = 1.0f + (r + r * r * (0.5f + r * (0.16666576266f + r * high)));
  const Integers exponent = ((Integers)rounded - (Integers)big + 127) << 23;
  return x < -87.0f ? Vector{} : power * (Vector)exponent;
}

inline void put(float *to, float x) { *to = x; }

// To the nearest, halves to even; what is not a number stays so.
inline void put(Bf16 *to, float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  to->bits = x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : bits >> 16 | 0x40;
}

inline float exponential(float x) { return exponential(all(x))[0]; }

// tanh(x), to about 2 in the last place. Polynomial: our own minimax fit.
inline Vector tangent(Vector x) {
  const Vector far = x < 0.0f ? -x : x;
  const Vector twice = far > 20.0f ? all(40.0f) : 2.0f * far;
  const Vector large = 1.0f - 2.0f / (exponential(twice) + 1.0f);
  const Vector z = x * x;
  const Vector high = -0.05385095254f + z * (0.02099735662f - z * 0.00609694095f);
  const Vector small = x + x * z * (-0.33333328366f + z * (0.13332770765f + z * high));
  return far < 0.625f ? small : (x < 0.0f ? -large : large);
}

inline float largest(Vector x) {
  float most = NEGATIVE;
  for (int i = 0; i < WIDTH; i++) most = x[i] > most ? x[i] : most;
  return most;
}

// Scores of M queries and GROUP keys.
template <int M, class E>
void score_group(const float *q, std::int64_t q_step, const E *const *keys, std::int64_t channels, float *scores) {
  Vector sum[M][GROUP] = {};
  std::int64_t c = 0;
  for (; c + WIDTH <= channels; c += WIDTH) {
    Vector key[GROUP];
    for (int i = 0; i < GROUP; i++) key[i] = load(keys[i] + c);
    for (int m = 0; m < M; m++) {
      const Vector query = load(q + m * q_step + c);
      for (int i = 0; i < GROUP; i++) sum[m][i] += query * key[i];
    }
  }
  if (c < channels) {
    for (int i = 0; i < GROUP; i++) {
      const Vector key = load(keys[i] + c, channels - c);
      for (int m = 0; m < M; m++) sum[m][i] += load(q + m * q_step + c) * key;
    }
  }
  for (int m = 0; m < M; m++) sums(sum[m], scores + m * TILE);
}

// mixed = mixed * keep + shares of keys `begin` to `end` times their values, for M queries and V vectors of channels, of
// which the last has `count` channels.
template <int M, int V, bool PART, class E>
void mix_block(const float *shares, const float *keep, const E *const *values, int begin, int end, std::int64_t from,
               std::int64_t count, float *mixed, std::int64_t step) {
  Vector sum[M][V];
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) sum[m][v] = load(mixed + m * step + from + v * WIDTH) * keep[m];
  for (int s = begin; s < end; s++) {
    const E *at = values[s] + from;
    Vector value[V];
    for (int v = 0; v < V; v++) value[v] = PART ? load(at + v * WIDTH, count) : load(at + v * WIDTH);
    for (int m = 0; m < M; m++) {
      const Vector share = all(shares[m * TILE + s]);
      for (int v = 0; v < V; v++) sum[m][v] += share * value[v];
    }
  }
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) store(mixed + m * step + from + v * WIDTH, sum[m][v]);
}

template <int M, class E>
void mix(const float *shares, const float *keep, const E *const *values, int begin, int end, std::int64_t channels,
         float *mixed, std::int64_t step) {
  std::int64_t c = 0;
  for (; c + 4 * WIDTH <= channels; c += 4 * WIDTH)
    mix_block<M, 4, false>(shares, keep, values, begin, end, c, 0, mixed, step);
  if (c + 2 * WIDTH <= channels) {
    mix_block<M, 2, false>(shares, keep, values, begin, end, c, 0, mixed, step);
    c += 2 * WIDTH;
  }
  if (c + WIDTH <= channels) {
    mix_block<M, 1, false>(shares, keep, values, begin, end, c, 0, mixed, step);
    c += WIDTH;
  }
  if (c < channels) mix_block<M, 1, true>(shares, keep, values, begin, end, c, channels - c, mixed, step);
}

// A query's place, and its softmax so far: the largest score, and the sum of exp(score - largest).
struct Query {
  std::int64_t position, first_seen, head;
  const float *bias;  // [end], or null
  float largest, total;
};

// The rows of the keys and values of one tile.
template <class E>
struct Rows {
  const E *keys[TILE], *values[TILE];
};

template <class E>
class Work {
 public:
  Work(const Attending &a, const Piece &p, float *scratch) : a(a), p(p) {
    q_step = (a.channels + WIDTH - 1) / WIDTH * WIDTH;
    mixed_step = (a.values + WIDTH - 1) / WIDTH * WIDTH;
    scores = scratch;
    q = scores + MOST_QUERIES * TILE;
    mixed = q + MOST_QUERIES * q_step;
  }

  void run() {
    begin();
    const std::int64_t first = queries[0].first_seen, end = queries[p.count - 1].position + 1;
    for (std::int64_t base = first / TILE * TILE; base < end; base += TILE) {
      const int from = first > base ? first - base : 0, to = end - base < TILE ? end - base : TILE;
      find(base, from, to);
      for (int m = 0; m < p.count;) m += score<QUERIES>(m, from, to);
      for (int m = 0; m < p.count; m++) soften(m, base, from, to);
      for (int m = 0; m < p.count;) m += gather<QUERIES>(m, from, to);
    }
    finish();
  }

 private:
  const Attending &a;
  const Piece &p;
  Query queries[MOST_QUERIES];
  float keep[MOST_QUERIES];
  Rows<E> rows;
  float *scores;  // [count, TILE]; then shares
  float *q;       // [count, q_step], scaled
  float *mixed;   // [count, mixed_step]
  std::int64_t q_step, mixed_step;

  std::int64_t place(int m) const {  // in q and out
    const std::int64_t R = a.heads / a.kv_heads, t = (p.begin + m) / R, r = (p.begin + m) % R;
    return (p.first_token + t) * a.heads + p.kv_head * R + r;
  }

  void begin() {
    const std::int64_t R = a.heads / a.kv_heads;
    const float scale = a.cap ? a.scale / a.cap : a.scale;
    for (int m = 0; m < p.count; m++) {
      const std::int64_t t = (p.begin + m) / R, head = p.kv_head * R + (p.begin + m) % R;
      const std::int64_t position = a.ends[p.row] - a.lengths[p.row] + t;
      queries[m] = {position, first_seen(a, position), head, nullptr, NEGATIVE, 0.0f};
      if (a.biases)
        queries[m].bias = a.biases[p.row] + head * a.bias_steps[2 * p.row] + t * a.bias_steps[2 * p.row + 1];
      if (a.sinks) queries[m].largest = a.sinks[head], queries[m].total = 1.0f;
      const E *from = static_cast<const E *>(a.q) + place(m) * a.channels;
      std::int64_t c = 0;
      for (; c + WIDTH <= a.channels; c += WIDTH) store(q + m * q_step + c, load(from + c) * scale);
      if (c < a.channels) store(q + m * q_step + c, load(from + c, a.channels - c) * scale);
    }
    for (std::int64_t i = 0; i < p.count * mixed_step; i++) mixed[i] = 0.0f;
  }

  // Where the tile's keys and values are. A group's keys that no query sees stand for one that is seen: their scores
  // are not used, and other pages are not touched.
  void find(std::int64_t base, int from, int to) {
    const std::int32_t *table = a.tables + p.row * a.entries;
    for (int s = from; s < to;) {
      const std::int64_t page = table[(base + s) / a.page], offset = (base + s) % a.page;
      const E *key = static_cast<const E *>(a.k) + page * a.k_page_step + p.kv_head * a.k_head_step;
      const E *value = static_cast<const E *>(a.v) + page * a.v_page_step + p.kv_head * a.v_head_step;
      for (std::int64_t i = offset; i < a.page && s < to; i++, s++) {
        rows.keys[s] = key + i * a.k_token_step;
        rows.values[s] = value + i * a.v_token_step;
      }
    }
    for (int s = from / GROUP * GROUP; s < from; s++) rows.keys[s] = rows.keys[from];
    for (int s = to; s % GROUP; s++) rows.keys[s] = rows.keys[from];
  }

  template <int M>
  int score(int m, int from, int to) {
    if constexpr (M > 1)
      if (p.count - m < M) return score<M / 2>(m, from, to);
    for (int s = from / GROUP * GROUP; s < to; s += GROUP)
      score_group<M>(q + m * q_step, q_step, rows.keys + s, a.channels, scores + m * TILE + s);
    return M;
  }

  // Scores to shares of the tile, relative to the largest score so far.
  void soften(int m, std::int64_t base, int from, int to) {
    Query &query = queries[m];
    float *score = scores + m * TILE;
    const int begin = from / WIDTH, end = (to + WIDTH - 1) / WIDTH;
    Integers lane;
    for (int i = 0; i < WIDTH; i++) lane[i] = i;
    const std::int64_t first = query.first_seen - base, last = query.position - base;
    Vector x[VECTORS], most = all(query.largest);
    for (int i = begin; i < end; i++) {
      x[i] = load(score + i * WIDTH);
      if (a.cap) x[i] = tangent(x[i]) * float(a.cap);
      if (a.slopes) x[i] += a.slopes[query.head] * __builtin_convertvector(lane + int(i * WIDTH - last), Vector);
      if (query.bias) x[i] += bias(query.bias + base, i * WIDTH, from, to);
      if (first > i * WIDTH || last < (i + 1) * WIDTH - 1)
        x[i] = (lane >= int(first - i * WIDTH)) & (lane <= int(last - i * WIDTH)) ? x[i] : all(NEGATIVE);
      most = x[i] > most ? x[i] : most;
    }
    const float now = largest(most), zero = now == NEGATIVE ? 0.0f : now;
    keep[m] = query.largest == now ? 1.0f : exponential(query.largest - zero);
    Vector total = {};
    for (int i = begin; i < end; i++) {
      x[i] = exponential(x[i] - zero);
      total += x[i];
      store(score + i * WIDTH, x[i]);
    }
    query.largest = now;
    query.total = query.total * keep[m] + sum(total);
  }

  // The bias of a vector's keys; nothing is read beyond those that some query sees.
  static Vector bias(const float *at, int s, int from, int to) {
    if (s >= from && s + WIDTH <= to) return load(at + s);
    Vector found = {};
    for (int i = 0; i < WIDTH; i++)
      if (s + i >= from && s + i < to) found[i] = at[s + i];
    return found;
  }

  template <int M>
  int gather(int m, int from, int to) {
    if constexpr (M > 1)
      if (p.count - m < M) return gather<M / 2>(m, from, to);
    mix<M>(scores + m * TILE, keep + m, rows.values, from, to, a.values, mixed + m * mixed_step, mixed_step);
    return M;
  }

  void finish() {
    for (int m = 0; m < p.count; m++) {
      E *to = static_cast<E *>(a.out) + place(m) * a.values;
      const float *from = mixed + m * mixed_step;
      const float share = 1.0f / queries[m].total;
      for (std::int64_t c = 0; c < a.values; c++) put(to + c, from[c] * share);
    }
  }
};

}  // namespace

void LEVEL(const Attending &a, const Piece &p, float *scratch) {
  if (a.bf16)
    Work<Bf16>(a, p, scratch).run();
  else
    Work<float>(a, p, scratch).run();
}
