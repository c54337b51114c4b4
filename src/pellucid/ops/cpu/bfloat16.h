// y = x W^T + b with float32 sums, for any number of rows of x and for one instruction level; x and y in bfloat16 or in
// float32, W as sources.h reads it. A level's file sets LEVEL, WIDTH (floats in a vector), SUMS (vectors that a tile's
// sums may take), MOST and MANY (rows of a tile, for few rows and for many) and perhaps DOT (products in pairs, of
// bfloat16 only), and includes this.
//
// Each output has WIDTH lanes, of which each sums every WIDTH-th pair of products, `BLOCK` products at a time; then lanes are
// added halves to halves. It is the same chain of operations for an output in either way to go, and in each tile of it: a
// row's bits do not depend on its company.
//
//     few     W is read where it lies, once, in a few streams from end to end: that is all the time there is to save. A
//             tile is some rows of x by at most 4 rows of W, and a vector has all lanes of an output
//     many    a part of W is laid out in the second cache, where it lies in the order in which each tile reads it. A tile
//             is some rows of x by WIDTH rows of W, in passes over k: the first makes lanes 0 to 3, the next one 4 to 7.
//             A vector has four lanes of WIDTH / 4 outputs, and the numbers of x that they meet are spread over it. So
//             most lanes are added vector to vector: as rows of vectors they cost a quarter of 384 products

#include <cstdlib>

#include "sources.h"

namespace {

constexpr std::int64_t ALONE = 8;       // rows for which a packed W is unpacked in registers: in one tile,
constexpr std::int64_t HALF = 4;        // or in two, where each sum takes two registers
constexpr std::int64_t GROUP = 32;      // rows of W in each stream that are multiplied by a block of k before the next
constexpr std::int64_t AHEAD = 1024;    // numbers of a stream, from the one that is used to the one that is fetched
constexpr std::int64_t OUTPUTS = 128;   // of a part of W that is laid out: they fill half of the second cache
constexpr std::int64_t ROWS = 1024;     // of x, that are multiplied by a part of W before the next ...
constexpr std::int64_t KEPT = 1 << 23;  // ... if they have no more bytes

// a b + c, rounded once: a compiler that may join the two operations does not do it everywhere.
inline Vector multiply_add(Vector a, Vector b, Vector c) {
#if WIDTH == 16
  return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif WIDTH == 8
  return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return (Vector)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}

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
#pragma GCC unroll 8
  for (int p = 0; p < P; p++) part[p] = (Pairs)w[p].words(k);
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
    const Pairs row = (Pairs)S::meets(x + m * S::NUMBERS);
#pragma GCC unroll 8
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

template <class S, int M, int P>
inline void add(Vector (&sum)[M][P], const Vector (&part)[P], const Value *x) {
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
    const Vector row = (Vector)S::meets(x + m * S::NUMBERS);
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) sum[m][p] += part[p] * row;  // rounded once: -ffp-contract=fast
  }
}

template <int M, int P, class S>
inline void step(Vector (&sum)[M][P], const S *w, std::int64_t k, const Value *x) {
  Vector part[P];
#pragma GCC unroll 8
  for (int p = 0; p < P; p++) part[p] = w[p].even(k);
  add<S>(sum, part, x);
#pragma GCC unroll 8
  for (int p = 0; p < P; p++) part[p] = w[p].odd(k);
  add<S>(sum, part, x + S::NUMBERS / 2);
}

#endif

constexpr int PASSES = WIDTH / 4;  // four lanes of so many outputs in a vector

typedef std::int32_t Places __attribute__((vector_size(WIDTH * 4)));
#define PICK(a, b, ...) __builtin_shuffle(a, b, Places{__VA_ARGS__})  // these lanes of a and then b
#if WIDTH == 16
#define FOURS(a, b, c, d) a, a + 1, a + 2, a + 3, b, b + 1, b + 2, b + 3, c, c + 1, c + 2, c + 3, d, d + 1, d + 2, d + 3
#define OF_EACH(a, b, c, d) a, b, c, d, a + 4, b + 4, c + 4, d + 4, a + 8, b + 8, c + 8, d + 8, a + 12, b + 12, c + 12, d + 12
#elif WIDTH == 8
#define FOURS(a, b) a, a + 1, a + 2, a + 3, b, b + 1, b + 2, b + 3
#define OF_EACH(a, b, c, d) a, b, c, d, a + 4, b + 4, c + 4, d + 4
#else
#define OF_EACH(a, b, c, d) a, b, c, d
#endif

// Halves of four lanes added to halves, and these again: of the first four lanes of four vectors, then of the second ...
inline __attribute__((always_inline)) Vector across(const Vector (&v)[4]) {
  constexpr int b = WIDTH;
  const Vector low = PICK(v[0], v[1], OF_EACH(0, 1, b, b + 1)) + PICK(v[0], v[1], OF_EACH(2, 3, b + 2, b + 3));
  const Vector high = PICK(v[2], v[3], OF_EACH(0, 1, b, b + 1)) + PICK(v[2], v[3], OF_EACH(2, 3, b + 2, b + 3));
  return PICK(low, high, OF_EACH(0, 2, b, b + 2)) + PICK(low, high, OF_EACH(1, 3, b + 1, b + 3));
}

#if WIDTH > 4
// The sums of all lanes of each of WIDTH vectors.
inline __attribute__((always_inline)) Vector across(const Vector (&v)[WIDTH]) {
  Vector fours[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
#if WIDTH == 16
    const Vector even = PICK(v[i], v[i + 4], FOURS(0, 4, 16, 20)) + PICK(v[i], v[i + 4], FOURS(8, 12, 24, 28));
    const Vector odd = PICK(v[i + 8], v[i + 12], FOURS(0, 4, 16, 20)) + PICK(v[i + 8], v[i + 12], FOURS(8, 12, 24, 28));
    fours[i] = PICK(even, odd, FOURS(0, 8, 16, 24)) + PICK(even, odd, FOURS(4, 12, 20, 28));
#else
    fours[i] = PICK(v[i], v[i + 4], FOURS(0, 8)) + PICK(v[i], v[i + 4], FOURS(4, 12));
#endif
  }
  return across(fours);
}
#endif

// Four lanes of four vectors, of the sums of the lanes that are four apart: of each pass those of its vector.
template <class F>
inline __attribute__((always_inline)) Vector passed(F lanes) {
#if WIDTH == 16
  return (lanes(0) + lanes(2)) + (lanes(1) + lanes(3));
#elif WIDTH == 8
  return lanes(0) + lanes(1);
#else
  return lanes(0);
#endif
}

// In each vector the same four words of all rows, where there were all words of one.
inline __attribute__((always_inline)) void turn_over(Vector (&v)[PASSES]) {
#if WIDTH == 16
  const Vector a = PICK(v[0], v[1], FOURS(0, 4, 16, 20)), b = PICK(v[0], v[1], FOURS(8, 12, 24, 28));
  const Vector c = PICK(v[2], v[3], FOURS(0, 4, 16, 20)), d = PICK(v[2], v[3], FOURS(8, 12, 24, 28));
  v[0] = PICK(a, c, FOURS(0, 8, 16, 24)), v[1] = PICK(a, c, FOURS(4, 12, 20, 28));
  v[2] = PICK(b, d, FOURS(0, 8, 16, 24)), v[3] = PICK(b, d, FOURS(4, 12, 20, 28));
#elif WIDTH == 8
  const Vector a = v[0];
  v[0] = PICK(a, v[1], FOURS(0, 8)), v[1] = PICK(a, v[1], FOURS(4, 12));
#endif
}

typedef float Floats __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef Half LooseHalves __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));

// WIDTH values in memory.
inline Vector load(const float *from) { return *(const Floats *)from; }
inline Vector load(const Half *from) {
  return (Vector)(__builtin_convertvector(*(const LooseHalves *)from, Words) << 16);
}
inline void store(Vector value, float *to) { *(Floats *)to = value; }
inline void store(Vector value, Half *to) {  // as `narrow`
#if DOT && WIDTH == 16
  // But for what is too small for a normal bfloat16, and 0 in products in pairs.
  *(LooseHalves *)to = (LooseHalves)_mm512_cvtneps_pbh((__m512)value);
#else
  const Words bits = (Words)value, number = (Words)(value == value);
  const Words near = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  *(LooseHalves *)to = __builtin_convertvector((near & number) | (0x7fc0 & ~number), LooseHalves);
#endif
}

// Or fewer.
template <class T>
inline Vector load(const T *from, std::int64_t count) {
  if (count >= WIDTH) return load(from);
  T some[WIDTH] = {};
  for (std::int64_t i = 0; i < count; i++) some[i] = from[i];
  return load(some);
}
template <class T>
inline void store(Vector value, T *to, std::int64_t count) {
  if (count >= WIDTH) return store(value, to);
  T some[WIDTH];
  store(value, some);
  for (std::int64_t i = 0; i < count; i++) to[i] = some[i];
}

// Rows of x as tiles of at most `most` of them read them: in turn what each row has for a pass of STEP numbers, zeros up to
// a whole step; and the passes of a block, so many times, one after the other.
struct Tiles {
  std::int64_t rows, count, in;
  Value *x;

  Tiles(std::int64_t rows, std::int64_t most, std::int64_t in, Value *x)
      : rows(rows), count((rows + most - 1) / most), in(room(in)), x(x) {}
  static std::int64_t room(std::int64_t in) { return (in + STEP - 1) / STEP * STEP; }
  std::int64_t first(std::int64_t t) const { return rows * t / count; }
  std::int64_t rows_of(std::int64_t t) const { return first(t + 1) - first(t); }
  const Value *at(std::int64_t t, std::int64_t block) const { return x + first(t) * in + rows_of(t) * block; }

  template <class S, int TIMES, class T>
  void lay_out(const T *from, std::int64_t stride, std::int64_t count_in) {
    constexpr int numbers = STEP / TIMES, parts = sizeof(Value) / 2;  // at once, and those from 0 and from WIDTH on
    for (std::int64_t t = 0; t < count; t++)
      for (std::int64_t m = 0, beside = rows_of(t); m < beside; m++, from += stride)
        for (std::int64_t block = 0; block < in; block += BLOCK) {
          const std::int64_t end = block + BLOCK < in ? block + BLOCK : in, pass = (end - block) / TIMES * beside;
          Value *to = x + first(t) * in + block * beside + m * numbers;
          for (std::int64_t k = block; k < end; k += STEP, to += numbers * beside) {
            alignas(64) Value step[STEP];
            if (k + STEP <= count_in) {
              keep<S>(from + k, step);
            } else {
              alignas(64) T last[STEP] = {};
              std::memcpy(last, from + k, (count_in - k) * sizeof(T));
              keep<S>(last, step);
            }
#pragma GCC unroll 4
            for (int i = 0; i < TIMES; i++)
#pragma GCC unroll 2
              for (int j = 0; j < parts; j++)
                std::memcpy(to + i * pass + j * numbers / 2, step + j * WIDTH + i * numbers / parts,
                            numbers / parts * sizeof(Value));
          }
        }
  }
};

// A block of k: `count` numbers of a row, from `from` on, which is behind the beginning of its scale by `behind`.
struct Block {
  std::int64_t from, count, group = 0, behind = 0;
  Block(const RowProduct &p, std::int64_t k) : from(k), count(p.in - k < BLOCK ? p.in - k : BLOCK) {
    if (k) group = k / p.w.group, behind = k % p.w.group;
  }

  // Row o of W, whose numbers in this block begin at `at`.
  Open row(const Matrix &w, std::int64_t o, const std::uint8_t *at) const {
    return {&w, at, (w.height == 1 ? o : o / w.height) * w.groups + group};
  }
  template <class S>
  S lying(const Matrix &w, std::int64_t o) const {
    return S(row(w, o, (const std::uint8_t *)w.numbers + o * w.stride + S::bytes(from)));
  }
};

// Calls `steps(at, k, whole)` for STEP numbers of a block at a time: from k on, which is place `at` of the rows w as they
// are open by then; the last may not be whole. And `turn()` where a scale begins.
template <int P, class S, class F, class G>
inline void walk(const Block &block, std::int64_t group, S *w, F steps, G turn) {
  const std::int64_t count = S::FILLED ? Tiles::room(block.count) : block.count;
  std::int64_t k = 0, edge = -block.behind;
  for (; k + STEP <= count; k += STEP) {
    if constexpr (S::PACKED || S::SCALED)
      if (k >= edge) turn(), edge += group;
    steps(k, k, true);
  }
  if constexpr (!S::FILLED) {
    if (k == count) return;
    if (k >= edge) turn();
    alignas(64) std::uint8_t rest[P][STEP * 2] = {};
#pragma GCC unroll 4
    for (int i = 0; i < P; i++) {
      std::memcpy(rest[i], w[i].at + S::bytes(k), S::bytes(count - k));
      w[i].at = rest[i];
    }
    steps(0, k, false);
  }
}

constexpr int beside(int rows) { return SUMS / rows < 4 ? SUMS / rows : 4; }  // rows of W in a tile
constexpr int whole(int count) { return (count + WIDTH - 1) / WIDTH * WIDTH; }

// The sums of M rows of x by P rows of W in a block, lane by lane. `next` bytes behind a row's numbers are those that will
// be wanted next.
template <int M, int P, class S>
inline __attribute__((always_inline)) void sums(const RowProduct &p, const Block &block, S *w, const Value *x,
                                                std::int64_t next, Vector (&sum)[M][P]) {
  constexpr std::int64_t line = S::bytes(STEP) < 64 ? 64 / S::bytes(STEP) * STEP : 1;  // numbers
  Vector scaled[M][P] = {};
#pragma GCC unroll 8
  for (int m = 0; m < M; m++)
#pragma GCC unroll 4
    for (int i = 0; i < P; i++) sum[m][i] = Vector{};
  const std::int64_t here = S::bytes(AHEAD), there = here + next - S::bytes(block.count);
  const auto steps = [&](std::int64_t at, std::int64_t k, bool whole) {
    // One row has so few operations that the processor itself looks far enough ahead.
    if constexpr (M > 1 && !S::FILLED)
      if (whole && k % line == 0)
#pragma GCC unroll 4
        for (int i = 0; i < P; i++)
          __builtin_prefetch(w[i].at + S::bytes(k) + (k + AHEAD < block.count ? here : there), 0, 3);
    step<M, P>(sum, w, at, x + k * M * S::NUMBERS / STEP);
  };
  const auto scale = [&] {
    if constexpr (S::SCALED)
#pragma GCC unroll 8
      for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int i = 0; i < P; i++) scaled[m][i] = multiply_add(sum[m][i], w[i].factor, scaled[m][i]), sum[m][i] = Vector{};
  };
  const auto turn = [&] {
    scale();
#pragma GCC unroll 4
    for (int i = 0; i < P; i++) w[i].turn();
  };
  walk<P>(block, p.w.group, w, steps, turn);
  scale();
  if constexpr (S::SCALED)
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
      for (int i = 0; i < P; i++) sum[m][i] = scaled[m][i];
}

// W in a few streams: row o, and those 1, 2, 3 times `apart` behind it, for the rows o of a group.
struct Streams {
  std::int64_t begin, end, apart, last;
  std::int64_t output(std::int64_t o, int i) const { return o + i * apart < last ? o + i * apart : last; }
};

// M rows of x, from `first` on, by a group of each stream: [M, P] sums for a row of each, and what fills the last vector.
template <int M, class T, class S>
void stream(const RowProduct &p, const Streams &of, const Value *x, std::int64_t first) {
  constexpr int P = beside(M), SIZE = whole(M * P);
  alignas(64) float total[M > 1 ? GROUP : 1][SIZE];
  for (std::int64_t k = 0; k < p.in; k += BLOCK) {
    const Block block(p, k);
    for (std::int64_t o = of.begin; o < of.end; o++) {
      const auto row = [&](int i) { return block.lying<S>(p.w, of.output(o, i < P ? i : 0)); };
      S w[4] = {row(0), row(1), row(2), row(3)};
      const std::int64_t back = (of.begin - o) * p.w.stride;  // then the group's next block of k
      Vector lanes[M][P];
      sums(p, block, w, x + k * M, o + 1 < of.end ? p.w.stride : back + S::bytes(BLOCK), lanes);
      float *sum = total[o - of.begin];
#pragma GCC unroll 4
      for (int i = 0; i < SIZE; i += WIDTH) {
        Vector some[WIDTH];
#pragma GCC unroll 16
        for (int j = 0; j < WIDTH; j++) {
          const int place = i + j < M * P ? i + j : M * P - 1;
          some[j] = lanes[place / P][place % P];
        }
        const Vector part = across(some);
        store(k ? load(sum + i) + part : part, sum + i);
      }
    }
  }
  for (std::int64_t o = of.begin; o < of.end; o++) {
    float *sum = total[o - of.begin];
    alignas(64) T value[SIZE];
    T *to[P];
#pragma GCC unroll 4
    for (int i = 0; i < P; i++) {
      to[i] = (T *)p.y + first * p.out + of.output(o, i);
      const float bias = p.bias ? wide(((const T *)p.bias)[of.output(o, i)]) : 0;
      for (int m = 0; m < M && p.bias; m++) sum[m * P + i] += bias;
    }
    for (int i = 0; i < SIZE; i += WIDTH) store(load(sum + i), value + i);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 4
      for (int i = 0; i < P; i++) to[i][m * p.out] = value[m * P + i];
  }
}

template <int M, class T, class S>
void stream_of(std::int64_t rows, const RowProduct &p, const Streams &of, const Value *x, std::int64_t first) {
  if (rows == M) return stream<M, T, S>(p, of, x, first);
  if constexpr (M > 1) stream_of<M - 1, T, S>(rows, p, of, x, first);
}

// Outputs `begin` to `end`, in tiles of at most MAX rows of x.
template <int MAX, class T, class S>
bool few(const RowProduct &p, std::int64_t begin, std::int64_t end) {
  Value *x = (Value *)std::aligned_alloc(64, p.rows * Tiles::room(p.in) * sizeof(Value));
  if (!x) return false;
  Tiles tiles(p.rows, MAX, p.in, x);
  tiles.lay_out<S, 1>((const T *)p.x, p.x_stride, p.in);
  const std::int64_t largest = tiles.rows_of(tiles.count - 1), streams = beside(largest);
  // An odd distance: at a power of two all streams would share a few places of the caches.
  const std::int64_t apart = (end - begin + streams - 1) / streams | 1, group = largest > 1 ? GROUP : 1;
  for (std::int64_t o = begin; o < begin + apart; o += group) {
    const Streams of{o, o + group < begin + apart ? o + group : begin + apart, apart, end - 1};
    for (std::int64_t t = 0; t < tiles.count; t++)
      stream_of<MAX, T, S>(tiles.rows_of(t), p, of, tiles.at(t, 0), tiles.first(t));
  }
  std::free(x);
  return true;
}

// PASSES rows of a part of W that is laid out, in a pass: what it needs of STEP numbers of each of them, beside that of three
// more vectors, zeros up to a whole step. The passes of WIDTH rows follow each other.
template <class U, bool SCALE>
struct Laid {
  static constexpr bool SCALED = SCALE, PACKED = false, FILLED = true;
  static constexpr int NUMBERS = STEP / PASSES;  // of each row
  typedef U Number;
  static constexpr std::int64_t bytes(std::int64_t count) { return count * 4 * sizeof(U); }
  static U *place(U *numbers, int pass, int v) { return numbers + pass * 4 * BLOCK + v * STEP; }
  const std::uint8_t *at;
  Open row[PASSES];
  Vector factor = {};  // of each row, in its lanes
  void turn() {
    if constexpr (SCALE)
      for (Open &open : row) {
        const float by = open.scale();
        for (int lane = 0; lane < 4; lane++) factor[4 * (&open - row) + lane] = by;
        open.place++;
      }
  }
  Words words(std::int64_t k) const { return *(const Words *)(at + bytes(k)); }
  Vector even(std::int64_t k) const { return sizeof(U) == 4 ? (Vector)words(k) : (Vector)(words(k) << 16); }
  Vector odd(std::int64_t k) const {
    return sizeof(U) == 4 ? *(const Vector *)(at + bytes(k) + WIDTH * 4) : (Vector)(words(k) & 0xffff0000u);
  }
  static Words meets(const void *x) {  // four words of x, by each row
#if WIDTH == 16
    return (Words)_mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)x));
#elif WIDTH == 8
    return (Words)_mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)x));
#else
    return *(const Words *)x;
#endif
  }
};

// A part of W: these outputs, in a block of k.
struct Part {
  const RowProduct &p;
  const Block block;
  const std::int64_t begin, end;

  // Row i of vector v, of the WIDTH rows from o on: so the sums `across` four vectors are in the order of the outputs.
  std::int64_t output(std::int64_t o, int v, int i) const { return o + 4 * i + v < end ? o + 4 * i + v : end - 1; }
};

template <class S, class L>
void lay_out(const Part &part, typename L::Number *numbers) {
  constexpr int parts = sizeof(typename L::Number) / 2;  // all numbers in a vector, or the even ones and the odd ones
  for (std::int64_t o = part.begin; o < part.end; o += WIDTH, numbers += BLOCK * WIDTH)
    for (int v = 0; v < 4; v++) {
      const auto row = [&](int i) { return part.block.lying<S>(part.p.w, part.output(o, v, i < PASSES ? i : 0)); };
      S w[4] = {row(0), row(1), row(2), row(3)};
      const auto steps = [&](std::int64_t at, std::int64_t k, bool) {
        Vector all[parts][PASSES];
#pragma GCC unroll 4
        for (int i = 0; i < PASSES; i++) {
          if constexpr (parts == 1) all[0][i] = (Vector)w[i].words(at);
          else all[0][i] = w[i].even(at), all[1][i] = w[i].odd(at);
        }
#pragma GCC unroll 2
        for (int j = 0; j < parts; j++) {
          turn_over(all[j]);
#pragma GCC unroll 4
          for (int i = 0; i < PASSES; i++) *(Vector *)(L::place(numbers, i, v) + k * 4 + j * WIDTH) = all[j][i];
        }
      };
      const auto turn = [&] {
#pragma GCC unroll 4
        for (int i = 0; i < PASSES; i++) w[i].turn();
      };
      walk<PASSES>(part.block, part.p.w.group, w, steps, turn);
    }
}

// Rows of memory that are wanted soon: so many lines of them at a time are fetched into the second cache.
struct Soon {
  const std::uint8_t *at;
  std::int64_t stride, rows, bytes, lines, byte = 0;

  Soon(const void *at, std::int64_t stride, std::int64_t rows, std::int64_t bytes, std::int64_t times)
      : at((const std::uint8_t *)at), stride(stride), rows(rows), bytes(bytes), lines(rows * (bytes / 64 + 1) / times + 1) {}
  void fetch() {
    for (std::int64_t i = 0; i < lines && rows > 0; i++) {
      __builtin_prefetch(at + byte, 0, 2);
      byte += 64;
      if (byte >= bytes) byte = 0, rows--, at += stride;
    }
  }
};

// M rows of x by the WIDTH rows of a part of W from o on, whose numbers are laid out from `numbers` on.
template <int M, class L>
inline __attribute__((always_inline)) void outputs(const Part &part, std::int64_t o, typename L::Number *numbers,
                                                   const Value *x, Vector (&sum)[M]) {
  constexpr int P = beside(M);
  static_assert(4 % P == 0);
  Vector lanes[PASSES][M][4];
  for (int pass = 0; pass < PASSES; pass++, x += M * Tiles::room(part.block.count) / PASSES)
    for (int v = 0; v < 4; v += P) {
      L w[P];
#pragma GCC unroll 4
      for (int i = 0; i < P; i++) {
        w[i].at = (const std::uint8_t *)L::place(numbers, pass, v + i);
        for (int j = 0; j < PASSES && L::SCALED; j++)
          w[i].row[j] = part.block.row(part.p.w, part.output(o, v + i, j), nullptr);
      }
      Vector some[M][P];
      sums(part.p, part.block, w, x, 0, some);
#pragma GCC unroll 8
      for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int i = 0; i < P; i++) lanes[pass][m][v + i] = some[m][i];
    }
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
    const auto four = [&](int v) { return passed([&](int pass) { return lanes[pass][m][v]; }); };
    sum[m] = across({four(0), four(1), four(2), four(3)});
  }
}

// M rows of x by a part of W; `total` and `y` are of its first output.
template <int M, class T, class L>
void tile(const Part &part, typename L::Number *numbers, const Value *x, float *total, T *y, Soon &soon) {
  const RowProduct &p = part.p;
  const bool first = part.block.from == 0, last = part.block.from + BLOCK >= p.in;
  for (std::int64_t o = part.begin; o < part.end; o += WIDTH, numbers += BLOCK * WIDTH, total += WIDTH, y += WIDTH) {
    Vector sum[M];
    outputs<M, L>(part, o, numbers, x, sum);
    const Vector bias = p.bias && last ? load((const T *)p.bias + o, part.end - o) : Vector{};
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      if (!first) sum[m] += load(total + m * OUTPUTS);
      if (!last) store(sum[m], total + m * OUTPUTS);
      else store(p.bias ? sum[m] + bias : sum[m], y + m * p.out, part.end - o);
    }
    soon.fetch();
  }
}

template <int M, class T, class L>
void tile_of(std::int64_t rows, const Part &part, typename L::Number *numbers, const Value *x, float *total, T *y,
             Soon &soon) {
  if (rows == M) return tile<M, T, L>(part, numbers, x, total, y, soon);
  if constexpr (M > 1) tile_of<M - 1, T, L>(rows, part, numbers, x, total, y, soon);
}

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// Outputs `begin` to `end`. S reads W where it lies, L where a part of it has been laid out.
template <class T, class S, class L>
bool many(const RowProduct &p, std::int64_t begin, std::int64_t end) {
  const std::int64_t room = KEPT / (Tiles::room(p.in) * (std::int64_t)sizeof(Value));
  const std::int64_t most = least(p.rows, room < 8 * MANY ? 8 * MANY : least(room, ROWS));
  const std::int64_t size = OUTPUTS * BLOCK * sizeof(typename L::Number) + most * OUTPUTS * sizeof(float);
  std::uint8_t *kept = (std::uint8_t *)std::aligned_alloc(64, size + most * Tiles::room(p.in) * sizeof(Value));
  if (!kept) return false;
  typename L::Number *numbers = (typename L::Number *)kept;
  float *total = (float *)(numbers + OUTPUTS * BLOCK);
  for (std::int64_t row = 0; row < p.rows; row += most) {
    Tiles x(least(p.rows - row, most), MANY, p.in, (Value *)(kept + size));
    x.lay_out<S, PASSES>((const T *)p.x + row * p.x_stride, p.x_stride, p.in);
    for (std::int64_t o = begin; o < end; o += OUTPUTS) {
      const std::int64_t until = least(o + OUTPUTS, end);
      for (std::int64_t k = 0; k < p.in; k += BLOCK) {
        const Part part{p, Block(p, k), o, until};
        lay_out<S, L>(part, numbers);
        // The next part is of the same outputs, or of the next ones.
        const bool same = k + BLOCK < p.in;
        const Part next{p, Block(p, same ? k + BLOCK : 0), same ? o : until, same ? until : least(until + OUTPUTS, end)};
        const std::uint8_t *at = (const std::uint8_t *)p.w.numbers + next.begin * p.w.stride + S::bytes(next.block.from);
        const std::int64_t times = (until - o + WIDTH - 1) / WIDTH;
        Soon soon(at, p.w.stride, next.end - next.begin, S::bytes(next.block.count), x.count * times);
        for (std::int64_t t = 0; t < x.count; t++)
          tile_of<MANY, T, L>(x.rows_of(t), part, numbers, x.at(t, k), total + x.first(t) * OUTPUTS,
                              (T *)p.y + (row + x.first(t)) * p.out + o, soon);
      }
    }
  }
  std::free(kept);
  return true;
}

template <class T, class S, class L>
bool multiply(const RowProduct &p, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t most = S::SCALED ? HALF : MOST, rows = S::PACKED ? ALONE : 6 * MOST;
  return p.rows <= rows ? few<most, T, S>(p, begin, end) : many<T, S, L>(p, begin, end);
}

}  // namespace

// Outputs `begin` to `end`, a multiple of 4 but for the last.
bool LEVEL(const RowProduct &p, std::int64_t begin, std::int64_t end) {
  if (begin == end) return true;  // more threads than outputs
  switch (p.w.lie + (p.half ? 0 : 100)) {
    case BFLOAT16: return multiply<Half, Plain, Laid<Half, false>>(p, begin, end);
#if DOT && WIDTH == 16
    case HIGH_FIRST: return multiply<Half, Shifted<true>, Laid<Half, false>>(p, begin, end);
    case LOW_FIRST: return multiply<Half, Shifted<false>, Laid<Half, false>>(p, begin, end);
#else
    case HIGH_FIRST: return multiply<Half, Nibbles<true, true>, Laid<Half, false>>(p, begin, end);
    case LOW_FIRST: return multiply<Half, Nibbles<false, true>, Laid<Half, false>>(p, begin, end);
#endif
    case SIGNED: return multiply<Half, Signed, Laid<Half, true>>(p, begin, end);
    case FLOAT8: return multiply<Half, Float8, Laid<Half, true>>(p, begin, end);
#if !DOT
    case FLOAT16 + 100: return multiply<float, Natural, Laid<float, false>>(p, begin, end);
    case HIGH_FIRST + 100: return multiply<float, Nibbles<true, false>, Laid<float, false>>(p, begin, end);
    case LOW_FIRST + 100: return multiply<float, Nibbles<false, false>, Laid<float, false>>(p, begin, end);
    case SIGNED + 100: return multiply<float, Signed, Laid<Half, true>>(p, begin, end);
    case FLOAT8 + 100: return multiply<float, Float8, Laid<Half, true>>(p, begin, end);
#endif
  }
  return false;
}
