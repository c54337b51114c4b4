// y = x W^T + b with float32 sums, for any number of rows of x and for one instruction level; x and y in bfloat16 or in
// float32, W as sources.h reads it. A level's file sets LEVEL, WIDTH (floats in a vector), FEW, MOST, MANY (rows of a
// tile, see `LEVEL` below) and perhaps DOT (products in pairs, of bfloat16 only), and includes this.
//
// A tile is a few rows of x by 4 or 2 rows of W, an accumulator each; a lane of it sums every WIDTH-th pair of products.
// A row's bits do not depend on the tile that it is in: each output is the same chain of operations over k in all of
// them, `BLOCK` products at a time, and its lanes are added halves to halves.
//
// A packed W is unpacked in registers where few rows of x are multiplied; where more are, once for all their tiles.

#include <cstdlib>

#include "sources.h"

namespace {

constexpr std::int64_t OUTPUTS = 128;  // their part of W in a block of k stays in the second cache ...
constexpr std::int64_t GROUP = 48;     // ... while so many rows of x, in tiles, are multiplied with it
constexpr std::int64_t ALONE = 8;      // rows for which W is unpacked in registers: in one tile,
constexpr std::int64_t HALF = 4;       // or in two, where each has two accumulators for an output

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

inline void put(float value, float *to) { *to = value; }
inline void put(float value, Half *to) { *to = narrow(value); }

#if DOT

typedef Half Value;  // x is used as it lies
constexpr std::int64_t BLOCK = 2048;  // k: a tile's rows of x stay in the first cache

#if WIDTH == 16
typedef __m512bh Pairs;
inline Vector dot(Vector sum, Pairs w, Pairs x) { return (Vector)_mm512_dpbf16_ps((__m512)sum, w, x); }
#else
typedef bfloat16x8_t Pairs;
inline Vector dot(Vector sum, Pairs w, Pairs x) { return (Vector)vbfdotq_f32((float32x4_t)sum, w, x); }
#endif

template <class S>
inline void keep(const Half *from, Value *to) {
  *(Words *)to = S::order(*(const Loose *)from);
}

template <int M, int P, class S>
inline void step(Vector (&sum)[M][P], const S *w, std::int64_t k, const Value *x) {
  Pairs part[P];
  for (int p = 0; p < P; p++) part[p] = (Pairs)w[p].words(k);
  for (int m = 0; m < M; m++) {
    const Pairs row = *(const Pairs *)(x + m * BLOCK);
    for (int p = 0; p < P; p++) sum[m][p] = dot(sum[m][p], part[p], row);
  }
}

#else

typedef float Value;  // x in float32, in the order of the source: the even places of STEP values before the odd ones
constexpr std::int64_t BLOCK = 1024;  // k: a tile's rows of x stay in the first cache

template <class S>
inline void keep(const Half *from, Value *to) {
  const Words pairs = *(const Loose *)from;
  *(Vector *)to = (Vector)(pairs << 16);
  *(Vector *)(to + WIDTH) = (Vector)(pairs & 0xffff0000u);
}

template <class S>
inline void keep(const float *from, Value *to) {
  if (S::NATURAL) std::memcpy(to, from, STEP * 4);
  for (int i = 0; i < WIDTH && !S::NATURAL; i++) to[i] = from[2 * i], to[WIDTH + i] = from[2 * i + 1];
}

template <int M, int P, class S>
inline void step(Vector (&sum)[M][P], const S *w, std::int64_t k, const Value *x) {
  Vector part[P];
  for (int p = 0; p < P; p++) part[p] = w[p].even(k);
  for (int m = 0; m < M; m++) {
    const Vector row = *(const Vector *)(x + m * BLOCK);
    for (int p = 0; p < P; p++) sum[m][p] += part[p] * row;  // rounded once: -ffp-contract=fast
  }
  for (int p = 0; p < P; p++) part[p] = w[p].odd(k);
  for (int m = 0; m < M; m++) {
    const Vector row = *(const Vector *)(x + m * BLOCK + WIDTH);
    for (int p = 0; p < P; p++) sum[m][p] += part[p] * row;
  }
}

#endif

typedef std::int32_t Places __attribute__((vector_size(WIDTH * 4)));
#define PICK(a, b, ...) __builtin_shuffle(a, b, Places{__VA_ARGS__})  // these lanes of a and then b

// The sums of the lanes of four vectors, halves added to halves.
inline Four across(const Vector &a, const Vector &b, const Vector &c, const Vector &d) {
#if WIDTH == 16
  const Vector ab = PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                    PICK(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  const Vector cd = PICK(c, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                    PICK(c, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  Vector all = PICK(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
               PICK(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  all += PICK(all, all, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  all += PICK(all, all, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  return Four{all[0], all[4], all[8], all[12]};
#elif WIDTH == 8
  const Vector ab = PICK(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + PICK(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  const Vector cd = PICK(c, d, 0, 1, 2, 3, 8, 9, 10, 11) + PICK(c, d, 4, 5, 6, 7, 12, 13, 14, 15);
  Vector all = PICK(ab, cd, 0, 1, 4, 5, 8, 9, 12, 13) + PICK(ab, cd, 2, 3, 6, 7, 10, 11, 14, 15);
  all += PICK(all, all, 1, 0, 3, 2, 5, 4, 7, 6);
  return Four{all[0], all[2], all[4], all[6]};
#else
  const Vector ab = PICK(a, b, 0, 1, 4, 5) + PICK(a, b, 2, 3, 6, 7);
  const Vector cd = PICK(c, d, 0, 1, 4, 5) + PICK(c, d, 2, 3, 6, 7);
  return PICK(ab, cd, 0, 2, 4, 6) + PICK(ab, cd, 1, 3, 5, 7);
#endif
}

// What tiles work on: these outputs, in this block of k.
struct Part {
  const RowProduct &product;
  std::int64_t begin, end;  // outputs
  std::int64_t from, to;    // k
  const std::uint8_t *at;   // their numbers: where they lie, or where they have been unpacked,
  std::int64_t stride;      // and bytes from row to row
  std::int64_t edge = -(from % product.w.group);  // where the first scale begins, seen from the first k
  std::int64_t group = from / product.w.group;

  Open row(std::int64_t o) const {
    const Matrix &w = product.w;
    return {&w, at + (o - begin) * stride, (w.height == 1 ? o : o / w.height) * w.groups + group};
  }

  // An output's numbers from this k on, which are less than a step, and zeros.
  template <class S>
  S rest(std::int64_t o, std::int64_t k, std::uint8_t (&room)[STEP * 2]) const {
    S w(Part{product, begin, end, from + k, to, at + S::bytes(k), stride}.row(o));
    w.turn();
    std::memset(room, 0, sizeof room);
    std::memcpy(room, w.at, S::bytes(to - from - k));
    w.at = room;
    return w;
  }
};

// M rows of x by all outputs of a part, P at a time; what lies `ahead` of a value read is fetched into the second cache.
template <int M, int P, class S>
__attribute__((noinline)) void tile(const Part &part, const Value *x, float *total, std::int64_t ahead) {
  constexpr std::int64_t line = S::bytes(STEP) < 64 ? 64 / S::bytes(STEP) * STEP : STEP;  // numbers
  const RowProduct &p = part.product;
  const std::int64_t count = S::FILLED ? (part.to - part.from + STEP - 1) / STEP * STEP : part.to - part.from;
  for (std::int64_t o = part.begin; o < part.end; o += P) {
    const auto output = [&](int i) { return o + i < p.out ? o + i : p.out - 1; };
    const auto row = [&](int i) { return S(part.row(output(i))); };
    S w[4] = {row(0), row(1), row(P > 2 ? 2 : 0), row(P > 2 ? 3 : 0)};
    Vector sum[M][P] = {}, scaled[M][P] = {};
    std::int64_t k = 0, edge = part.edge;
    const auto turn = [&] {
      if constexpr (S::SCALED)
        for (int m = 0; m < M; m++)
          for (int i = 0; i < P; i++) scaled[m][i] += sum[m][i] * w[i].factor, sum[m][i] = Vector{};
      for (int i = 0; i < P; i++) w[i].turn();
      edge += p.w.group;
    };
    for (; k + STEP <= count; k += STEP) {
      if (k >= edge) turn();
      if (k % line == 0)
        for (int i = 0; i < P; i++) __builtin_prefetch(w[i].at + S::bytes(k) + ahead, 0, 2);
      step<M, P>(sum, w, k, x + k);
    }
    if (k < count) {
      if (k >= edge) turn();
      alignas(64) std::uint8_t bytes[4][STEP * 2];
      const auto rest = [&](int i) { return part.rest<S>(output(i), k, bytes[i]); };
      const S last[4] = {rest(0), rest(1), rest(P > 2 ? 2 : 0), rest(P > 2 ? 3 : 0)};
      step<M, P>(sum, last, 0, x + k);
    }
    if constexpr (S::SCALED)
      for (int m = 0; m < M; m++)
        for (int i = 0; i < P; i++) scaled[m][i] += sum[m][i] * w[i].factor;
    const auto &sums_of = S::SCALED ? scaled : sum;
    float *at = total + (o - part.begin);
    for (int m = 0; m < M; m += 4 / P) {
      const int next = P == 2 && m + 1 < M ? m + 1 : m;
      float *below = at + next * OUTPUTS, *here = at + m * OUTPUTS;
      Four sums = across(sums_of[m][0], sums_of[m][1], sums_of[next][P == 2 ? 0 : 2], sums_of[next][P == 2 ? 1 : 3]);
      float *where[4] = {here, here + 1, P == 2 ? below : here + 2, P == 2 ? below + 1 : here + 3};
      if (part.from) sums = Four{*where[0], *where[1], *where[2], *where[3]} + sums;
      for (int i = 0; i < 4; i++) *where[i] = sums[i];
    }
  }
}

template <int M, class S>
void tile_of(int rows, const Part &part, const Value *x, float *total, std::int64_t ahead) {
  if (rows == M) return tile<M, M <= FEW ? 4 : 2, S>(part, x, total, ahead);
  if constexpr (M > 1) tile_of<M - 1, S>(rows, part, x, total, ahead);
}

// `count` values of a row of x, and zeros up to a whole step.
template <class S, class T>
void keep_row(const T *x, std::int64_t count, Value *to) {
  std::int64_t k = 0;
  for (; k + STEP <= count; k += STEP) keep<S>(x + k, to + k);
  if (k == count) return;
  alignas(64) T rest[STEP] = {};
  std::memcpy(rest, x + k, (count - k) * sizeof(T));
  keep<S>(rest, to + k);
}

// The numbers of a part of W, for tiles to come.
template <class S, class T>
void unpack(const Part &part, T *to) {
  const auto put_step = [](const S &w, std::int64_t k, T *to) {
    if constexpr (sizeof(T) == 2) {
      *(Words *)to = w.words(k);
    } else {
      *(Vector *)to = w.even(k);
      *(Vector *)(to + WIDTH) = w.odd(k);
    }
  };
  const std::int64_t count = part.to - part.from;
  for (std::int64_t o = part.begin; o < part.end; o++, to += BLOCK) {
    S w(part.row(o));
    for (std::int64_t k = 0, edge = part.edge; k < count; k += STEP) {
      if (k >= edge) w.turn(), edge += part.product.w.group;
      alignas(64) std::uint8_t bytes[STEP * 2];
      if (k + STEP <= count)
        put_step(w, k, to + k);
      else
        put_step(part.rest<S>(o, k, bytes), 0, to + k);
    }
  }
}

// Outputs `begin` to `end`. Up to `most` rows are one tile; more are tiles of at most MANY. Tiles of more than FEW rows
// take 2 rows of W, not 4: accumulators must not be more than registers.
//
// S reads W where it lies, and K reads what S has unpacked to U.
template <class T, class S, class K = S, class U = Half>
bool multiply(const RowProduct &p, std::int64_t begin, std::int64_t end) {
  constexpr int most = S::SCALED ? MANY : MOST, alone = S::SCALED ? HALF : MOST;
  alignas(64) float total[GROUP][OUTPUTS];
  alignas(64) Value x[most][BLOCK];
  U *kept = nullptr;
  if (S::PACKED && p.rows > ALONE) {
    kept = (U *)std::aligned_alloc(64, OUTPUTS * BLOCK * sizeof(U));
    if (!kept) return false;
  }
  for (std::int64_t o = begin; o < end; o += OUTPUTS) {
    const std::int64_t until = o + OUTPUTS < end ? o + OUTPUTS : end;
    for (std::int64_t row = 0; row < p.rows; row += GROUP) {
      const std::int64_t rows = p.rows - row < GROUP ? p.rows - row : GROUP;
      const std::int64_t one = kept ? most : alone, each = S::PACKED && !kept ? alone : MANY;
      const std::int64_t tiles = rows <= one ? 1 : (rows + each - 1) / each;
      for (std::int64_t k = 0; k < p.in; k += BLOCK) {
        const std::uint8_t *at = (const std::uint8_t *)p.w.numbers + o * p.w.stride + S::bytes(k);
        Part part{p, o, until, k, k + BLOCK < p.in ? k + BLOCK : p.in, at, p.w.stride};
        if (kept) {
          unpack<S>(part, kept);
          part.at = (const std::uint8_t *)kept, part.stride = BLOCK * sizeof(U);
        }
        // The first tile waits for memory: the next rows of W are fetched. The others do not: the next part is.
        const std::int64_t next = part.to < p.in ? S::bytes(BLOCK) : OUTPUTS * p.w.stride - S::bytes(k);
        for (std::int64_t t = 0; t < tiles; t++) {
          const std::int64_t first = rows * t / tiles, last = rows * (t + 1) / tiles;
          for (std::int64_t m = first; m < last; m++)
            keep_row<S>((const T *)p.x + (row + m) * p.x_stride + k, part.to - k, x[m - first]);
          if (kept)
            tile_of<most, K>(last - first, part, x[0], total[first], 0);
          else
            tile_of<alone, S>(last - first, part, x[0], total[first], t ? next : 4 * p.w.stride);
        }
      }
      const T *bias = (const T *)p.bias;
      for (std::int64_t m = 0; m < rows; m++) {
        T *y = (T *)p.y + (row + m) * p.out + o;
        for (std::int64_t i = 0; bias && i < until - o; i++) total[m][i] += wide(bias[o + i]);
        for (std::int64_t i = 0; i < until - o; i++) put(total[m][i], y + i);
      }
    }
  }
  std::free(kept);
  return true;
}

}  // namespace

// Outputs `begin` to `end`, a multiple of 4 but for the last.
bool LEVEL(const RowProduct &p, std::int64_t begin, std::int64_t end) {
  switch (p.w.lie + (p.half ? 0 : 100)) {
    case BFLOAT16: return multiply<Half, Plain>(p, begin, end);
#if DOT && WIDTH == 16
    case HIGH_FIRST: return multiply<Half, Shifted<true>, Rounded>(p, begin, end);
    case LOW_FIRST: return multiply<Half, Shifted<false>, Rounded>(p, begin, end);
#else
    case HIGH_FIRST: return multiply<Half, Nibbles<true, true>, Rounded>(p, begin, end);
    case LOW_FIRST: return multiply<Half, Nibbles<false, true>, Rounded>(p, begin, end);
#endif
    case SIGNED: return multiply<Half, Signed, Scaled>(p, begin, end);
    case FLOAT8: return multiply<Half, Float8, Scaled>(p, begin, end);
#if !DOT
    case FLOAT16 + 100: return multiply<float, Natural>(p, begin, end);
    case HIGH_FIRST + 100: return multiply<float, Nibbles<true, false>, Kept, float>(p, begin, end);
    case LOW_FIRST + 100: return multiply<float, Nibbles<false, false>, Kept, float>(p, begin, end);
    case SIGNED + 100: return multiply<float, Signed, Scaled>(p, begin, end);
    case FLOAT8 + 100: return multiply<float, Float8, Scaled>(p, begin, end);
#endif
  }
  return false;
}
