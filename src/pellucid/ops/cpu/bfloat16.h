// y = x W^T + b with float32 sums, for any number of rows of x and for one instruction level; x and y in bfloat16 or in
// float32, W as sources.h reads it. A level's file sets LEVEL, WIDTH (floats in a vector), SUMS (vectors that a tile's
// sums may take), MOST and MANY (rows of a tile, for few rows and for many) and perhaps DOT (products in pairs, of
// bfloat16 only), and includes this.
//
// A tile is some rows of x by at most 4 rows of W, an accumulator each; a lane of it sums every WIDTH-th pair of products.
// A row's bits do not depend on the tile that it is in: each output is the same chain of operations over k in all of
// them, `BLOCK` products at a time, and its lanes are added halves to halves.
//
//     few     W is read where it lies, once, in a few streams from end to end: that is all the time there is to save
//     many    a part of W is laid out in the second cache, where it lies in the order in which each tile reads it

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
    const Pairs row = *(const Pairs *)(x + m * STEP);
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

template <int M, int P>
inline void multiply_add(Vector (&sum)[M][P], const Vector (&part)[P], const Value *x) {
#pragma GCC unroll 8
  for (int m = 0; m < M; m++) {
    const Vector row = *(const Vector *)(x + m * STEP);
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) sum[m][p] += part[p] * row;  // rounded once: -ffp-contract=fast
  }
}

template <int M, int P, class S>
inline void step(Vector (&sum)[M][P], const S *w, std::int64_t k, const Value *x) {
  Vector part[P];
#pragma GCC unroll 8
  for (int p = 0; p < P; p++) part[p] = w[p].even(k);
  multiply_add(sum, part, x);
#pragma GCC unroll 8
  for (int p = 0; p < P; p++) part[p] = w[p].odd(k);
  multiply_add(sum, part, x + WIDTH);
}

#endif

typedef std::int32_t Places __attribute__((vector_size(WIDTH * 4)));
#define PICK(a, b, ...) __builtin_shuffle(a, b, Places{__VA_ARGS__})  // these lanes of a and then b

// The sums of the lanes of WIDTH vectors, of each its halves added to halves.
inline __attribute__((always_inline)) Vector across(const Vector (&v)[WIDTH]) {
#if WIDTH == 16
  Vector half[8], quarter[4], eighth[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    const Vector &a = v[i % 4 + i / 4 * 8], &b = v[i % 4 + i / 4 * 8 + 4];
    half[i] = PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
              PICK(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    quarter[i] = PICK(half[i], half[i + 4], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                 PICK(half[i], half[i + 4], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    const Vector &a = quarter[2 * i], &b = quarter[2 * i + 1];
    eighth[i] = PICK(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                PICK(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }
  return PICK(eighth[0], eighth[1], 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +
         PICK(eighth[0], eighth[1], 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
#elif WIDTH == 8
  Vector half[4], quarter[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    half[i] = PICK(v[i], v[i + 4], 0, 1, 2, 3, 8, 9, 10, 11) + PICK(v[i], v[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    const Vector &a = half[2 * i], &b = half[2 * i + 1];
    quarter[i] = PICK(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + PICK(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
  }
  return PICK(quarter[0], quarter[1], 0, 2, 8, 10, 4, 6, 12, 14) + PICK(quarter[0], quarter[1], 1, 3, 9, 11, 5, 7, 13, 15);
#else
  const Vector ab = PICK(v[0], v[1], 0, 1, 4, 5) + PICK(v[0], v[1], 2, 3, 6, 7);
  const Vector cd = PICK(v[2], v[3], 0, 1, 4, 5) + PICK(v[2], v[3], 2, 3, 6, 7);
  return PICK(ab, cd, 0, 2, 4, 6) + PICK(ab, cd, 1, 3, 5, 7);
#endif
}

typedef float Floats __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef Half LooseHalves __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));

// WIDTH values in memory, or one.
inline Vector load(const float *from) { return *(const Floats *)from; }
inline Vector load(const Half *from) {
  return (Vector)(__builtin_convertvector(*(const LooseHalves *)from, Words) << 16);
}
inline void store(Vector value, float *to) { *(Floats *)to = value; }
inline void store(Vector value, Half *to) {  // as `narrow`
  const Words bits = (Words)value, number = (Words)(value == value);
  const Words near = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  *(LooseHalves *)to = __builtin_convertvector((near & number) | (0x7fc0 & ~number), LooseHalves);
}
inline void store(float value, float *to) { *to = value; }
inline void store(float value, Half *to) { *to = narrow(value); }

// Rows of x as tiles of at most `most` of them read them: STEP values of each row in turn, zeros up to a whole step.
struct Tiles {
  std::int64_t rows, count, in;
  Value *x;

  Tiles(std::int64_t rows, std::int64_t most, std::int64_t in, Value *x)
      : rows(rows), count((rows + most - 1) / most), in(room(in)), x(x) {}
  static std::int64_t room(std::int64_t in) { return (in + STEP - 1) / STEP * STEP; }
  std::int64_t first(std::int64_t t) const { return rows * t / count; }
  std::int64_t rows_of(std::int64_t t) const { return first(t + 1) - first(t); }
  const Value *at(std::int64_t t, std::int64_t k) const { return x + first(t) * in + rows_of(t) * k; }

  template <class S, class T>
  void lay_out(const T *from, std::int64_t stride, std::int64_t count_in) {
    for (std::int64_t t = 0; t < count; t++)
      for (std::int64_t m = 0, beside = rows_of(t); m < beside; m++, from += stride) {
        Value *to = x + first(t) * in + m * STEP;
        std::int64_t k = 0;
        for (; k + STEP <= count_in; k += STEP) keep<S>(from + k, to + k * beside);
        if (k == count_in) continue;
        alignas(64) T last[STEP] = {};
        std::memcpy(last, from + k, (count_in - k) * sizeof(T));
        keep<S>(last, to + k * beside);
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

// The sums of M rows of x by P rows of W in a block: [M, P], and what fills the last vector. `next` bytes behind a row's
// numbers are those that will be wanted next.
template <int M, int P, class S>
inline __attribute__((always_inline)) void sums(const RowProduct &p, const Block &block, S *w, const Value *x,
                                                std::int64_t next, float *to) {
  constexpr std::int64_t line = S::bytes(STEP) < 64 ? 64 / S::bytes(STEP) * STEP : 1;  // numbers
  Vector sum[M][P] = {}, scaled[M][P] = {};
  const std::int64_t here = S::bytes(AHEAD), there = here + next - S::bytes(block.count);
  const auto steps = [&](std::int64_t at, std::int64_t k, bool whole) {
    // One row has so few operations that the processor itself looks far enough ahead.
    if constexpr (M > 1 && !S::FILLED)
      if (whole && k % line == 0)
#pragma GCC unroll 4
        for (int i = 0; i < P; i++)
          __builtin_prefetch(w[i].at + S::bytes(k) + (k + AHEAD < block.count ? here : there), 0, 3);
    step<M, P>(sum, w, at, x + k * M);
  };
  const auto scale = [&] {
    if constexpr (S::SCALED)
#pragma GCC unroll 8
      for (int m = 0; m < M; m++)
#pragma GCC unroll 4
        for (int i = 0; i < P; i++) scaled[m][i] += sum[m][i] * w[i].factor, sum[m][i] = Vector{};
  };
  const auto turn = [&] {
    scale();
#pragma GCC unroll 4
    for (int i = 0; i < P; i++) w[i].turn();
  };
  walk<P>(block, p.w.group, w, steps, turn);
  scale();
  const auto &all = S::SCALED ? scaled : sum;
#pragma GCC unroll 8
  for (int i = 0; i < M * P; i += WIDTH) {
    Vector some[WIDTH];
#pragma GCC unroll 16
    for (int j = 0; j < WIDTH; j++) {
      const int place = i + j < M * P ? i + j : M * P - 1;
      some[j] = all[place / P][place % P];
    }
    store(across(some), to + i);
  }
}

// W in a few streams: row o, and those 1, 2, 3 times `apart` behind it, for the rows o of a group.
struct Streams {
  std::int64_t begin, end, apart, last;
  std::int64_t output(std::int64_t o, int i) const { return o + i * apart < last ? o + i * apart : last; }
};

// M rows of x, from `first` on, by a group of each stream.
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
      alignas(64) float part[SIZE];
      sums<M, P>(p, block, w, x + k * M, o + 1 < of.end ? p.w.stride : back + S::bytes(BLOCK), part);
      float *sum = total[o - of.begin];
#pragma GCC unroll 4
      for (int i = 0; i < SIZE; i += WIDTH) store(k ? load(sum + i) + load(part + i) : load(part + i), sum + i);
    }
  }
  for (std::int64_t o = of.begin; o < of.end; o++) {
    float *sum = total[o - of.begin];
    alignas(64) T value[SIZE];
    for (int i = 0; i < M * P && p.bias; i++) sum[i] += wide(((const T *)p.bias)[of.output(o, i % P)]);
    for (int i = 0; i < SIZE; i += WIDTH) store(load(sum + i), value + i);
    for (int i = 0; i < M * P; i++) ((T *)p.y)[(first + i / P) * p.out + of.output(o, i % P)] = value[i];
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
  tiles.lay_out<S>((const T *)p.x, p.x_stride, p.in);
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

// A row of a part of W that is laid out: STEP numbers of each of four rows in turn, zeros up to a whole step.
template <class U, bool SCALE>
struct Laid : Open {
  static constexpr bool SCALED = SCALE, PACKED = false, FILLED = true;
  typedef U Number;
  static constexpr std::int64_t bytes(std::int64_t count) { return count * 4 * sizeof(U); }
  static U *row(U *numbers, std::int64_t o) { return numbers + o / 4 * 4 * BLOCK + o % 4 * STEP; }
  float factor = 1;
  explicit Laid(const Open &open) : Open(open) {}
  void turn() {
    if (SCALE) factor = scale(), place++;
  }
  Words words(std::int64_t k) const { return *(const Words *)(at + bytes(k)); }
  Vector even(std::int64_t k) const { return sizeof(U) == 4 ? (Vector)words(k) : (Vector)(words(k) << 16); }
  Vector odd(std::int64_t k) const {
    return sizeof(U) == 4 ? *(const Vector *)(at + bytes(k) + WIDTH * 4) : (Vector)(words(k) & 0xffff0000u);
  }
};

// A part of W: these outputs, in a block of k.
struct Part {
  const RowProduct &p;
  const Block block;
  const std::int64_t begin, end;
};

template <class S, class L>
void lay_out(const Part &part, typename L::Number *numbers) {
  for (std::int64_t o = part.begin; o < (part.end + 3) / 4 * 4; o++) {
    auto *to = L::row(numbers, o - part.begin);
    S w[1] = {part.block.lying<S>(part.p.w, o < part.end ? o : part.end - 1)};
    const auto steps = [&](std::int64_t at, std::int64_t k, bool) {
      if constexpr (sizeof(*to) == 2) {
        *(Words *)(to + k * 4) = w[0].words(at);
      } else {
        store(w[0].even(at), to + k * 4);
        store(w[0].odd(at), to + k * 4 + WIDTH);
      }
    };
    walk<1>(part.block, part.p.w.group, w, steps, [&] { w[0].turn(); });
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

// M rows of x by a part of W.
template <int M, class L>
void tile(const Part &part, typename L::Number *numbers, const Value *x, float *total, Soon &w_soon, Soon &x_soon) {
  constexpr int P = beside(M);
  static_assert(4 % P == 0);
  typedef float Some __attribute__((vector_size(P * 4), aligned(4), may_alias));
  for (std::int64_t o = part.begin; o < part.end; o += P, total += P) {
    const auto row = [&](int i) {
      const auto *at = L::row(numbers, o - part.begin + i);
      return L(part.block.row(part.p.w, o + i < part.end ? o + i : part.end - 1, (const std::uint8_t *)at));
    };
    L w[4] = {row(0), row(1), row(P > 2 ? 2 : 0), row(P > 2 ? 3 : 0)};
    alignas(64) float sum[whole(M * P)];
    sums<M, P>(part.p, part.block, w, x, 0, sum);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      Some *to = (Some *)(total + m * OUTPUTS);
      const Some some = *(const Some *)(sum + m * P);
      *to = part.block.from ? *to + some : some;
    }
    w_soon.fetch();
    x_soon.fetch();
  }
}

template <int M, class L>
void tile_of(std::int64_t rows, const Part &part, typename L::Number *numbers, const Value *x, float *total, Soon &w_soon,
             Soon &x_soon) {
  if (rows == M) return tile<M, L>(part, numbers, x, total, w_soon, x_soon);
  if constexpr (M > 1) tile_of<M - 1, L>(rows, part, numbers, x, total, w_soon, x_soon);
}

template <class T>
void finish(const float *total, const T *bias, std::int64_t count, T *y) {
  std::int64_t i = 0;
  for (; i + WIDTH <= count; i += WIDTH) store(bias ? load(total + i) + load(bias + i) : load(total + i), y + i);
  for (; i < count; i++) store(bias ? total[i] + wide(bias[i]) : total[i], y + i);
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
    x.lay_out<S>((const T *)p.x + row * p.x_stride, p.x_stride, p.in);
    for (std::int64_t o = begin; o < end; o += OUTPUTS) {
      const std::int64_t until = least(o + OUTPUTS, end), count = until - o;
      for (std::int64_t k = 0; k < p.in; k += BLOCK) {
        const Part part{p, Block(p, k), o, until};
        lay_out<S, L>(part, numbers);
        // The next part is of the same outputs, or of the next ones.
        const bool same = k + BLOCK < p.in;
        const Part next{p, Block(p, same ? k + BLOCK : 0), same ? o : until, same ? until : least(until + OUTPUTS, end)};
        const std::uint8_t *at = (const std::uint8_t *)p.w.numbers + next.begin * p.w.stride + S::bytes(next.block.from);
        const std::int64_t fours = (count + 3) / 4;
        Soon w_soon(at, p.w.stride, next.end - next.begin, S::bytes(next.block.count), x.count * fours);
        for (std::int64_t t = 0; t < x.count; t++) {
          const std::int64_t more = t + 1 < x.count ? x.rows_of(t + 1) : 0;
          Soon x_soon(x.at(t + 1, k), 0, more > 0, more * part.block.count * sizeof(Value), fours);
          tile_of<MANY, L>(x.rows_of(t), part, numbers, x.at(t, k), total + x.first(t) * OUTPUTS, w_soon, x_soon);
        }
      }
      for (std::int64_t m = 0; m < x.rows; m++)
        finish(total + m * OUTPUTS, p.bias ? (const T *)p.bias + o : nullptr, count, (T *)p.y + (row + m) * p.out + o);
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
