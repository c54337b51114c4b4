// Paged attention for one instruction level. A level's file sets LEVEL, WIDTH (floats in a vector) and QUERIES (that
// share a pass over keys in registers), defines loads, stores and sums of vectors, and includes this.
//
// Two ways to score give the same bits. Few queries meet keys as they lie, channels side by side, and the lanes of a
// vector are summed at the end. For many queries a tile's keys are turned first, so that keys lie side by side: what
// was a lane is a vector then, and those are summed in the same order, without a shuffle.
//
// Each query's numbers come from its own operations in an order that only positions decide: a score is a sum over
// channels, lane by lane; the softmax goes on tile by tile, tiles cut at multiples of TILE; a mixed value is a chain of
// multiply-adds from the first key to the last. What a query does not see adds exact zeros. So a query has the same
// bits beside any others, from any pages, and on any thread.
//
// While the keys of a head are scored those of the next head are fetched, and while its values are mixed the values of
// the next; behind the last head comes the first of the next tile. A few lines at a time: a processor asked for many at
// once forgets some. Pages in which a head's tokens lie together (ops/paged.py) are read nearly as fast as memory
// gives them; where heads lie between tokens, by half of that.

#define UNROLLED _Pragma("GCC unroll 8")  // so that sums stay in registers

namespace {

typedef std::int32_t Integers __attribute__((vector_size(WIDTH * 4)));
typedef std::uint32_t Unsigned __attribute__((vector_size(WIDTH * 4)));

constexpr float NEGATIVE = -__builtin_inff();
constexpr int VECTORS = TILE / WIDTH;  // of a tile's scores
constexpr int GROUP = 4;               // keys whose scores are summed together
constexpr int PAIR = 2 * WIDTH;        // channels that are loaded together
constexpr int LINE = 64;               // bytes that are fetched together
constexpr int MANY = 8;                // queries for which turning a tile's keys pays

inline Vector all(float x) { return Vector{} + x; }

// exp(x), to about 1 in the last place; 0 below the normal numbers. Polynomial: our own minimax fit.
inline Vector exponential(Vector x) {
  const Vector big = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, found in the low bits
  const Vector shifted = x * 1.44269504f + big;
  const Vector n = shifted - big;
  const Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two parts
  const Vector high = 0.04166685417f + r * (0.00836320035f + r * 0.00139013096f);
  const Vector power = 1.0f + (r + r * r * (0.5f + r * (0.16666576266f + r * high)));
  const Integers exponent = ((Integers)shifted - (Integers)big + 127) << 23;
  return x < -87.0f ? Vector{} : power * (Vector)exponent;
}

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

// The bits of bfloat16 in the upper halves: to the nearest, halves to even; what is not a number stays so.
inline Integers rounded(Vector x) {
  const Integers bits = (Integers)x, odd = (bits >> 16) & 1;
  return x == x ? bits + 0x7fff + odd : bits | 0x400000;
}

// Rows of a tile's tokens: `offset` bytes behind where they say.
template <class E>
struct Rows {
  const void *const *at;
  std::int64_t offset;

  const E *operator[](int s) const { return (const E *)((const char *)at[s] + offset); }
};

// Fetches `bytes` of a row. Inlined: GCC takes a function that only fetches for one without effect, and leaves it out.
inline __attribute__((always_inline)) void fetch(const char *row, int bytes) {
  UNROLLED for (int i = 0; i < bytes; i += LINE) __builtin_prefetch(row + i);
}

inline Pair load_pair(const float *at) { return {load(at), load(at + WIDTH)}; }

inline void store_pair(float *at, Pair x) {
  store(at, x.low);
  store(at + WIDTH, x.high);
}

inline void store_pair(Bf16 *at, Pair x) {
  typedef Integers Loose __attribute__((aligned(2)));
  *(Loose *)at = (Integers)((Unsigned)rounded(x.low) >> 16) | (rounded(x.high) & ~0xffff);
}

// Whether keys and queries of E meet as they are, two in a lane: a level with such an instruction says PAIRED.
template <class E>
constexpr bool PAIRS = false;

#ifdef PAIRED
template <>
constexpr bool PAIRS<Bf16> = true;

inline Vector add_pairs(Vector sum, Vector x, Vector y) {
  return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
}
inline Vector pair_at(const float *at) { return (Vector)_mm512_set1_ps(*at); }
#else
inline Vector add_pairs(Vector sum, Vector, Vector) { return sum; }
inline Vector pair_at(const float *at) { return all(*at); }
#endif

// Scores of M queries and GROUP keys; PART: the last pair has only some channels.
template <int M, bool PART, class E>
inline __attribute__((always_inline)) void score_group(const float *q, std::int64_t q_step, Rows<E> keys, int s,
                                                       std::int64_t channels, float scale, Rows<char> ahead,
                                                       float *scores) {
  Vector sum[M][GROUP];
  UNROLLED for (int m = 0; m < M; m++)
    UNROLLED for (int i = 0; i < GROUP; i++) sum[m][i] = Vector{};
  const E *at[GROUP];
  UNROLLED for (int i = 0; i < GROUP; i++) at[i] = keys[s + i];
  for (std::int64_t c = 0; c < channels; c += PAIR) {
    const bool part = PART && c + PAIR > channels;
    UNROLLED for (int i = 0; i < GROUP; i++) {
      fetch(ahead[s + i] + c * sizeof(E), PAIR * sizeof(E));
      if constexpr (PAIRS<E>) {
        const Vector key = part ? load_bits(at[i] + c, channels - c) : load_bits(at[i] + c);
        UNROLLED for (int m = 0; m < M; m++) sum[m][i] = add_pairs(sum[m][i], load(q + m * q_step + c / 2), key);
        continue;
      }
      const Pair key = part ? load_pair(at[i] + c, channels - c) : load_pair(at[i] + c);
      UNROLLED for (int m = 0; m < M; m++) {
        const Pair query = load_pair(q + m * q_step + c);
        sum[m][i] += query.low * key.low;
        sum[m][i] += query.high * key.high;
      }
    }
  }
  if constexpr (M == 4 && WIDTH == 16)
    sums(sum, scale, scores, TILE);
  else
    UNROLLED for (int m = 0; m < M; m++) sums(sum[m], scale, scores + m * TILE);
}

// mixed = mixed * keep + shares of keys `begin` to `end` times their values, for M queries and V pairs of channels from
// `offset` on, of which the last has `count` channels.
template <int M, int V, bool PART, bool FETCH, class E>
void mix_block(const float *shares, const float *keep, Rows<E> values, int begin, int end, std::int64_t offset,
               std::int64_t count, Rows<char> ahead, float *mixed, std::int64_t step) {
  Pair sum[M][V];
  UNROLLED for (int m = 0; m < M; m++)
    UNROLLED for (int v = 0; v < V; v++) {
      sum[m][v] = load_pair(mixed + m * step + v * PAIR);
      sum[m][v].low *= keep[m];
      sum[m][v].high *= keep[m];
    }
  for (int s = begin; s < end; s++) {
    const E *at = values[s] + offset;
    if (FETCH) fetch(ahead[s] + offset * sizeof(E), V * PAIR * sizeof(E));
    UNROLLED for (int v = 0; v < V; v++) {
      const Pair value = PART ? load_pair(at + v * PAIR, count) : load_pair(at + v * PAIR);
      UNROLLED for (int m = 0; m < M; m++) {
        sum[m][v].low += shares[m * TILE + s] * value.low;
        sum[m][v].high += shares[m * TILE + s] * value.high;
      }
    }
  }
  UNROLLED for (int m = 0; m < M; m++)
    UNROLLED for (int v = 0; v < V; v++) store_pair(mixed + m * step + v * PAIR, sum[m][v]);
}

// The keys' channels, [step, TILE], in the order in which a pair's low and high vectors lie: keys `s` to `s` + WIDTH.
template <class E>
inline void turn(Rows<E> keys, int s, std::int64_t channels, Rows<char> ahead, float *to) {
  for (std::int64_t c = 0; c < channels; c += PAIR, to += PAIR * TILE) {
    Vector low[WIDTH], high[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
      const E *at = keys[s + i] + c;
      fetch(ahead[s + i] + c * sizeof(E), PAIR * sizeof(E));
      const Pair key = c + PAIR > channels ? load_pair(at, channels - c) : load_pair(at);
      low[i] = key.low;
      high[i] = key.high;
    }
    transpose(low);
    for (int i = 0; i < WIDTH; i++) store(to + i * TILE, low[i]);
    transpose(high);
    for (int i = 0; i < WIDTH; i++) store(to + (WIDTH + i) * TILE, high[i]);
  }
}

inline void turn(Rows<Bf16> keys, int s, std::int64_t channels, Rows<char> ahead, float *to) {
  for (std::int64_t c = 0; c < channels; c += PAIR, to += (PAIRS<Bf16> ? WIDTH : PAIR) * TILE) {
    Vector both[WIDTH];  // two channels in a lane
    for (int i = 0; i < WIDTH; i++) {
      const Bf16 *at = keys[s + i] + c;
      fetch(ahead[s + i] + c * sizeof(Bf16), PAIR * sizeof(Bf16));
      both[i] = c + PAIR > channels ? load_bits(at, channels - c) : load_bits(at);
    }
    transpose(both);
    for (int i = 0; i < WIDTH && PAIRS<Bf16>; i++) store(to + i * TILE, both[i]);
    for (int i = 0; i < WIDTH && !PAIRS<Bf16>; i++) {
      const Pair key = split(both[i]);
      store(to + i * TILE, key.low);
      store(to + (WIDTH + i) * TILE, key.high);
    }
  }
}

// Codes of a pair of channels, in the order in which a pair of E lies: of bfloat16 the even channels first. They are
// `shift` bits up in their bytes.
struct Bits {
  int mask, shift;
};

inline Pair codes_at(const std::uint8_t *at, Bits bits, Bf16) {
  const Integers both = (Integers)load_words(at);
  return {__builtin_convertvector((both >> bits.shift) & bits.mask, Vector),
          __builtin_convertvector((both >> (8 + bits.shift)) & bits.mask, Vector)};
}

inline Pair codes_at(const std::uint8_t *at, Bits bits, float) {
  const Integers low = (Integers)load_bytes(at), high = (Integers)load_bytes(at + WIDTH);
  return {__builtin_convertvector((low >> bits.shift) & bits.mask, Vector),
          __builtin_convertvector((high >> bits.shift) & bits.mask, Vector)};
}

inline Pair codes_at(const std::uint8_t *at, Bits bits, F16) { return codes_at(at, bits, 0.0f); }

// bfloat16 numbers in that order.
inline float number(Bf16 x) {
  const std::uint32_t bits = std::uint32_t(x.bits) << 16;
  float found;
  __builtin_memcpy(&found, &bits, 4);
  return found;
}

inline Pair numbers_at(const Bf16 *at, Bf16) { return load_pair(at); }
inline Pair numbers_at(const Bf16 *at, float) {
  float x[PAIR];
  for (int i = 0; i < PAIR; i++) x[i] = number(at[i]);
  return load_pair(x);
}

inline Pair numbers_at(const Bf16 *at, F16) { return numbers_at(at, 0.0f); }

// `count` of something, fewer than a pair, and zeros.
template <class T>
struct Part {
  T of[PAIR] = {};
  Part(const T *from, std::int64_t count) { __builtin_memcpy(of, from, count * sizeof(T)); }
};

template <class E>
void decode(const std::uint8_t *codes, Bits bits, Pair low, Pair step, std::int64_t count, float *to) {
  const Pair x = count < PAIR ? codes_at(Part<std::uint8_t>(codes, count).of, bits, E{}) : codes_at(codes, bits, E{});
  store_pair(to, {low.low + step.low * x.low, low.high + step.high * x.high});
}

// The same of a token that is not in few bits.
template <class E>
void widen(const E *from, std::int64_t count, float *to) {
  for (std::int64_t c = 0; c < count; c += PAIR)
    store_pair(to + c, c + PAIR > count ? load_pair(from + c, count - c) : load_pair(from + c));
}

// Scores of M queries and V vectors of turned keys.
template <int M, int V>
struct Scores {
  Vector of[M][V];
};

// Their part that COUNT lanes of a vector of channels make, those from place FIRST on in the order of `sums`.
template <int M, int V, bool P, int FIRST, int COUNT>
inline __attribute__((always_inline)) Scores<M, V> lanes(const float *q, std::int64_t q_step, const float *keys) {
  if constexpr (COUNT == 1) {
    Scores<M, V> sum = {};
    for (std::int64_t c = LANES[FIRST]; c < (P ? q_step / 2 : q_step); c += WIDTH) {
      Vector key[V];
      for (int v = 0; v < V; v++) key[v] = load(keys + c * TILE + v * WIDTH);
      for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++)
          if constexpr (P)
            sum.of[m][v] = add_pairs(sum.of[m][v], pair_at(q + m * q_step + c), key[v]);
          else
            sum.of[m][v] += q[m * q_step + c] * key[v];
    }
    return sum;
  } else {
    Scores<M, V> sum = lanes<M, V, P, FIRST, COUNT / 2>(q, q_step, keys);
    const Scores<M, V> more = lanes<M, V, P, FIRST + COUNT / 2, COUNT / 2>(q, q_step, keys);
    for (int m = 0; m < M; m++)
      for (int v = 0; v < V; v++) sum.of[m][v] += more.of[m][v];
    return sum;
  }
}

template <int M, int V, bool P>
void score_turned(const float *q, std::int64_t q_step, const float *keys, float scale, float *scores) {
  const Scores<M, V> sum = lanes<M, V, P, 0, WIDTH>(q, q_step, keys);
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) store(scores + m * TILE + v * WIDTH, sum.of[m][v] * scale);
}

struct Query {
  std::int64_t position, first_seen, last_seen, head;
  const float *bias;  // [end], or null
};

// A tile: its place, the keys of it that some query sees, and where each token's keys and values are, or their codes.
template <class E>
struct Tile {
  std::int64_t base;
  int from, to;
  bool coded;  // whether any is
  const void *keys[TILE], *values[TILE];
  std::int64_t slots[TILE];  // page * tokens of a page + place in the page; -1 where there are no codes
};

// Over keys and values of E, by queries of Q: those lie in pairs alike.
template <class E, class Q = E>
class Work {
 public:
  Work(const Attending &a, const Piece &p, float *scratch)
      : a(a), p(p), R(a.heads / a.kv_heads), q_step(padded(a.channels)), mixed_step(padded(a.values)),
        scores(scratch), turned(scores + BLOCK * TILE), wide_keys(turned + TILE * q_step),
        wide_values(wide_keys + TILE * q_step), q(wide_values + TILE * mixed_step), q_pairs(q + MOST_QUERIES * q_step),
        mixed(q_pairs + MOST_QUERIES * q_step), scale(a.cap ? a.scale / a.cap : a.scale) {}

  void run() {
    begin();
    const std::int64_t first = queries[0].first_seen, end = queries[p.count - 1].last_seen + 1;
    find(tiles[0], first, end);
    for (int now = 0; tiles[now].base < end; now = !now) {
      const Tile<E> &tile = tiles[now], &next = tiles[!now];
      find(tiles[!now], tile.base + TILE, end);
      for (std::int64_t head = p.kv_begin; head < p.kv_end; head++) {
        const std::int64_t n = (head - p.kv_begin) * p.count;
        const bool last = head + 1 == p.kv_end;
        const Tile<E> &ahead = last && next.to > next.from ? next : tile;
        const std::int64_t head_ahead = last ? p.kv_begin : head + 1;
        score_head(tile, head, n, keys_at<char>(ahead, head_ahead));
        soften(tile, n);
        mix_head(tile, head, n, values_at<char>(ahead, head_ahead));
      }
    }
    finish();
  }

 private:
  const Attending &a;
  const Piece &p;
  const std::int64_t R;                   // queries of a token that share a key head
  const std::int64_t q_step, mixed_step;  // from a query to the next
  float *const scores;                    // [count, TILE] of a head; then shares
  float *const turned;                    // [q_step, TILE] keys of a head, for many queries
  float *const wide_keys;                 // [TILE, q_step] the same not turned, where they were codes
  float *const wide_values;               // [TILE, mixed_step] its values in float32, for many queries or from codes
  float *const q;                         // [kv heads, count, q_step]
  float *const q_pairs;                   // the same in pairs of bfloat16
  float *const mixed;                     // [kv heads, count, mixed_step]
  const float scale;                      // of scores
  Query queries[MOST_QUERIES];            // [kv heads, count]
  float largests[MOST_QUERIES];           // scores so far
  float totals[MOST_QUERIES];             // of exp(score - largest)
  float keep[BLOCK];                      // of a head: what a tile leaves of the mixture before
  Tile<E> tiles[2];                       // this one, and the next

  static std::int64_t padded(std::int64_t channels) { return (channels + PAIR - 1) / PAIR * PAIR; }

  void begin() {
    int n = 0;
    for (std::int64_t kv_head = p.kv_begin; kv_head < p.kv_end; kv_head++)
      for (int m = 0; m < p.count; m++, n++) {
        const std::int64_t t = (p.begin + m) / R, head = kv_head * R + (p.begin + m) % R;
        const std::int64_t end = a.ends[p.row], position = end - a.lengths[p.row] + t;
        queries[n] = {position, first_seen(a, position), last_seen(a, position, end), head, nullptr};
        largests[n] = a.sinks ? a.sinks[head] : NEGATIVE;
        totals[n] = a.sinks ? 1.0f : 0.0f;
        if (a.biases)
          queries[n].bias = a.biases[p.row] + head * a.bias_steps[2 * p.row] + t * a.bias_steps[2 * p.row + 1];
        const Q *from = static_cast<const Q *>(a.q) + ((p.first_token + t) * a.heads + head) * a.channels;
        if constexpr (PAIRS<E>)
          for (std::int64_t c = 0; c < a.channels; c += PAIR)
            store(q_pairs + n * q_step + c / 2,
                  c + PAIR > a.channels ? load_bits(from + c, a.channels - c) : load_bits(from + c));
        if (!PAIRS<E> || a.codes.bits) widen(from, a.channels, q + n * q_step);
      }
    for (std::int64_t i = 0; i < n * mixed_step; i++) mixed[i] = 0.0f;
  }

  // The tile that holds position `first`. A token that no query sees stands for one that is seen: its scores are not
  // used, and other pages are not touched.
  void find(Tile<E> &tile, std::int64_t first, std::int64_t end) {
    tile.base = first / TILE * TILE;
    tile.from = first - tile.base;
    tile.to = end - tile.base < TILE ? end - tile.base : TILE;
    if (tile.base >= end) tile.to = tile.from;
    tile.coded = false;
    for (int s = tile.from; s < tile.to;) {
      std::int64_t place = tile.base + s, page = a.tables ? 0 : a.starts[p.row] + place, left = tile.to - s;
      if (a.tables) {
        page = a.tables[p.row * a.entries + place / a.page];
        place %= a.page;
        left = a.page - place < left ? a.page - place : left;
      } else {
        place = 0;
      }
      const int stop = s + left;
      if (page < 0) {
        tile.coded = true;
        for (; s < stop; s++) {
          const std::int64_t slot = tile.slots[s] = ~page * a.page + place++;
          tile.keys[s] = a.codes.k + bytes_of(slot) * a.kv_heads * a.channels;
          tile.values[s] = a.codes.v + bytes_of(slot) * a.kv_heads * a.values;
        }
        continue;
      }
      const E *key = static_cast<const E *>(a.k) + page * a.k_page_step + place * a.k_token_step;
      const E *value = static_cast<const E *>(a.v) + page * a.v_page_step + place * a.v_token_step;
      for (; s < stop; s++, key += a.k_token_step, value += a.v_token_step) {
        tile.keys[s] = key;
        tile.values[s] = value;
        tile.slots[s] = -1;
      }
    }
    for (int s = 0; s < TILE; s++)
      if (tile.to > tile.from && (s < tile.from || s >= tile.to)) {
        tile.keys[s] = tile.keys[tile.from];
        tile.values[s] = tile.values[tile.from];
      }
  }

  template <class T>
  Rows<T> keys_at(const Tile<E> &tile, std::int64_t head) const {
    return {tile.keys, head * (tile.coded ? a.channels : a.k_head_step * std::int64_t(sizeof(E)))};
  }

  template <class T>
  Rows<T> values_at(const Tile<E> &tile, std::int64_t head) const {
    return {tile.values, head * (tile.coded ? a.values : a.v_head_step * std::int64_t(sizeof(E)))};
  }

  void score_head(const Tile<E> &tile, std::int64_t head, std::int64_t n, Rows<char> ahead) {
    if (tile.coded) return score_coded(tile, head, n, ahead);
    score_keys(tile, keys_at<E>(tile, head), a.channels, n, ahead);
  }

  void score_coded(const Tile<E> &tile, std::int64_t head, std::int64_t n, Rows<char> ahead) {
    const void *keys[TILE];
    for (int s = 0; s < TILE; s++) keys[s] = wide_keys + (s < tile.from || s >= tile.to ? tile.from : s) * q_step;
    for (int s = tile.from, stop; s < tile.to; s = stop) {
      stop = s + 1;
      if (tile.slots[s] < 0) {
        widen((const E *)tile.keys[s] + head * a.k_head_step, a.channels, wide_keys + s * q_step);
        continue;
      }
      while (stop < tile.to && tile.slots[stop] >= 0 && tile.slots[stop] / a.page == tile.slots[s] / a.page) stop++;
      for (std::int64_t c = 0; c < a.channels; c += PAIR) decode_keys(tile, s, stop, head, c);
    }
    score_keys(tile, Rows<float>{keys, 0}, q_step, n, ahead);
  }

  // A pair of channels, from c on, of keys of one page.
  void decode_keys(const Tile<E> &tile, int s, int stop, std::int64_t head, std::int64_t c) {
    const std::int64_t numbers = (tile.slots[s] / a.page * a.kv_heads + head) * a.channels + c, left = a.channels - c;
    const Bf16 *lows = a.codes.k_low + numbers, *steps = a.codes.k_step + numbers;
    const Pair low = left < PAIR ? numbers_at(Part<Bf16>(lows, left).of, E{}) : numbers_at(lows, E{});
    const Pair step = left < PAIR ? numbers_at(Part<Bf16>(steps, left).of, E{}) : numbers_at(steps, E{});
    for (; s < stop; s++) {
      const std::int64_t slot = tile.slots[s];
      decode<E>(a.codes.k + (bytes_of(slot) * a.kv_heads + head) * a.channels + c, bits_of(slot), low, step, left,
                wide_keys + s * q_step + c);
    }
  }

  void decode_value(std::int64_t slot, std::int64_t head, float *to) {
    const std::int64_t at = slot * a.kv_heads + head;
    const std::uint8_t *codes = a.codes.v + (bytes_of(slot) * a.kv_heads + head) * a.values;
    const Vector low = all(number(a.codes.v_low[at])), step = all(number(a.codes.v_step[at]));
    for (std::int64_t c = 0; c < a.values; c += PAIR)
      decode<E>(codes + c, bits_of(slot), {low, low}, {step, step}, a.values - c, to + c);
  }

  // Where a token's bytes are, and its codes in them: with 4 bits two tokens share them, and pages have even numbers.
  std::int64_t bytes_of(std::int64_t slot) const { return a.codes.bits == 4 ? slot / 2 : slot; }
  Bits bits_of(std::int64_t slot) const {
    return a.codes.bits == 4 ? Bits{15, slot & 1 ? 4 : 0} : Bits{255, 0};
  }

  template <class V>
  void score_keys(const Tile<E> &tile, Rows<V> keys, std::int64_t channels, std::int64_t n, Rows<char> ahead) {
    if (p.count >= MANY) return score_many(tile, keys, channels, n, ahead);
    for (int m = 0; m < p.count;) {
      if (channels == 64)
        m += score<QUERIES, 64>(tile, keys, channels, n, m, ahead);
      else if (channels == 128)
        m += score<QUERIES, 128>(tile, keys, channels, n, m, ahead);
      else
        m += score<QUERIES, 0>(tile, keys, channels, n, m, ahead);
    }
  }

  // Of as many queries as there are, up to M; of C channels, or where that is 0 of any number.
  template <int M, int C, class V>
  int score(const Tile<E> &tile, Rows<V> keys, std::int64_t channels, std::int64_t n, int m, Rows<char> ahead) {
    if constexpr (M > 1)
      if (p.count - m < M) return score<M - 1, C>(tile, keys, channels, n, m, ahead);
    if (C) channels = C;
    const float *from = (PAIRS<V> ? q_pairs : q) + (n + m) * q_step;
    const std::int64_t step = C ? C : q_step;
    for (int s = tile.from / GROUP * GROUP; s < tile.to; s += GROUP) {
      if (channels % PAIR)
        score_group<M, true>(from, step, keys, s, channels, scale, ahead, scores + m * TILE + s);
      else
        score_group<M, false>(from, step, keys, s, channels, scale, ahead, scores + m * TILE + s);
    }
    return M;
  }

  template <class V>
  void score_many(const Tile<E> &tile, Rows<V> keys, std::int64_t channels, std::int64_t n, Rows<char> ahead) {
    int s = tile.from / WIDTH * WIDTH;
    for (int i = s; i < tile.to; i += WIDTH) turn(keys, i, channels, ahead, turned + i);
    for (; s + WIDTH < tile.to; s += 2 * WIDTH) score_at<2, PAIRS<V>>(s, n);
    if (s < tile.to) score_at<1, PAIRS<V>>(s, n);
  }

  template <int V, bool P>
  void score_at(int s, std::int64_t n) {
    const float *from = (P ? q_pairs : q) + n * q_step, *keys = turned + s;
    int m = 0;
    for (; m + 2 <= p.count; m += 2)
      score_turned<2, V, P>(from + m * q_step, q_step, keys, scale, scores + m * TILE + s);
    if (m < p.count) score_turned<1, V, P>(from + m * q_step, q_step, keys, scale, scores + m * TILE + s);
  }

  // Scores of a head's queries to shares of the tile, relative to the largest score so far. In passes over the queries:
  // each has long chains, which then run beside each other.
  void soften(const Tile<E> &tile, std::int64_t n) {
    const int begin = tile.from / WIDTH, end = (tile.to + WIDTH - 1) / WIDTH;
    const bool plain = !a.cap && !a.slopes && !a.biases && tile.to - tile.from == TILE;
    float now[BLOCK];
    for (int m = 0; m < p.count; m++) {
      const Query &query = queries[n + m];
      const bool whole = plain && query.first_seen <= tile.base && query.last_seen >= tile.base + TILE - 1;
      now[m] = whole ? largest_of(scores + m * TILE, largests[n + m])
                     : largest_adjusted(tile, query, scores + m * TILE, largests[n + m], begin, end);
    }
    for (int m = 0; m < p.count; m++) {
      float *score = scores + m * TILE;
      const float before = largests[n + m], zero = now[m] == NEGATIVE ? 0.0f : now[m];
      keep[m] = before == now[m] ? 1.0f : exponential(all(before - zero))[0];
      Vector total = {};
      for (int i = begin; i < end; i++) {
        const Vector share = exponential(load(score + i * WIDTH) - zero);
        store(score + i * WIDTH, share);
        total += share;
      }
      largests[n + m] = now[m];
      totals[n + m] = totals[n + m] * keep[m] + sum(total);
    }
  }

  static float largest_of(const float *score, float before) {
    Vector most = all(before);
    for (int i = 0; i < VECTORS; i++) {
      const Vector x = load(score + i * WIDTH);
      most = x > most ? x : most;
    }
    return largest(most);
  }

  float largest_adjusted(const Tile<E> &tile, const Query &query, float *score, float before, int begin, int end) {
    Vector most = all(before);
    for (int i = begin; i < end; i++) {
      const Vector x = adjusted(tile, query, load(score + i * WIDTH), i * WIDTH);
      store(score + i * WIDTH, x);
      most = x > most ? x : most;
    }
    return largest(most);
  }

  // Scores of the keys from s on: capped, with what distance adds, and -inf where the query does not see.
  Vector adjusted(const Tile<E> &tile, const Query &query, Vector x, int s) {
    const std::int64_t first = query.first_seen - tile.base, last = query.last_seen - tile.base;
    Integers lane;
    for (int i = 0; i < WIDTH; i++) lane[i] = i;
    if (a.cap) x = tangent(x) * float(a.cap);
    if (a.slopes)
      x += a.slopes[query.head] * __builtin_convertvector(lane + int(tile.base + s - query.position), Vector);
    if (query.bias) x += biases(query.bias + tile.base, s, tile.from, tile.to);
    const Vector seen_late = lane <= int(last - s) ? x : all(NEGATIVE);
    return lane >= int(first - s) ? seen_late : all(NEGATIVE);
  }

  // The biases of a vector's keys; nothing is read beyond those that some query sees.
  static Vector biases(const float *at, int s, int from, int to) {
    if (s >= from && s + WIDTH <= to) return load(at + s);
    Vector found = {};
    for (int i = 0; i < WIDTH; i++)
      if (s + i >= from && s + i < to) found[i] = at[s + i];
    return found;
  }

  void mix_head(const Tile<E> &tile, std::int64_t head, std::int64_t n, Rows<char> ahead) {
    if (tile.coded || (p.count >= MANY && sizeof(E) == 2)) return mix_wide(tile, head, n, ahead);
    const Rows<E> values = values_at<E>(tile, head);
    for (int m = 0; m < p.count;) m += mix<QUERIES, true>(tile, values, a.values, n, m, ahead);
  }

  void mix_wide(const Tile<E> &tile, std::int64_t head, std::int64_t n, Rows<char> ahead) {
    const void *values[TILE];
    for (int s = tile.from; s < tile.to; s++) {
      float *to = wide_values + s * mixed_step;
      values[s] = to;
      for (std::int64_t c = 0; c < a.values; c += PAIR) fetch(ahead[s] + c * sizeof(E), PAIR * sizeof(E));
      if (tile.slots[s] < 0)
        widen((const E *)tile.values[s] + head * a.v_head_step, a.values, to);
      else
        decode_value(tile.slots[s], head, to);
    }
    for (int m = 0; m < p.count;) m += mix<QUERIES, false>(tile, Rows<float>{values, 0}, mixed_step, n, m, ahead);
  }

  template <int M, bool FETCH, class V>
  int mix(const Tile<E> &tile, Rows<V> values, std::int64_t channels, std::int64_t n, int m, Rows<char> ahead) {
    if constexpr (M > 1)
      if (p.count - m < M) return mix<M - 1, FETCH>(tile, values, channels, n, m, ahead);
    const float *shares = scores + m * TILE;
    float *to = mixed + (n + m) * mixed_step;
    const auto block = [&](auto kernel, std::int64_t c) {
      kernel(shares, keep + m, values, tile.from, tile.to, c, channels - c, ahead, to + c, mixed_step);
    };
    std::int64_t c = 0;
    for (; c + 2 * PAIR <= channels; c += 2 * PAIR) block(mix_block<M, 2, false, FETCH, V>, c);
    for (; c + PAIR <= channels; c += PAIR) block(mix_block<M, 1, false, FETCH, V>, c);
    if (c < channels) block(mix_block<M, 1, true, FETCH, V>, c);
    return M;
  }

  void finish() {
    int n = 0;
    for (std::int64_t kv_head = p.kv_begin; kv_head < p.kv_end; kv_head++)
      for (int m = 0; m < p.count; m++, n++) {
        const float share = 1.0f / totals[n];
        const std::int64_t t = (p.begin + m) / R;
        Q *to = static_cast<Q *>(a.out) + ((p.first_token + t) * a.heads + queries[n].head) * a.values;
        for (std::int64_t c = 0; c < a.values; c += PAIR) {
          Pair x = load_pair(mixed + n * mixed_step + c);
          x.low *= share;
          x.high *= share;
          if (c + PAIR <= a.values) {
            store_pair(to + c, x);
          } else {
            Q rest[PAIR];
            store_pair(rest, x);
            for (std::int64_t i = 0; c + i < a.values; i++) to[c + i] = rest[i];
          }
        }
      }
  }
};

}  // namespace

void LEVEL(const Attending &a, const Piece &p, float *scratch) {
  if (a.numbers == 1) return Work<Bf16>(a, p, scratch).run();
#ifdef PAIRED
  attention_avx512(a, p, scratch);
#else
  if (a.numbers == 0) return Work<float>(a, p, scratch).run();
  Work<F16, float>(a, p, scratch).run();
#endif
}
