// y = x W^T + b in bfloat16 with float32 sums, for any number of rows of x and for one instruction level. W is read
// where it lies, row by row, as in the file: nothing is packed. A level's file sets LEVEL, WIDTH (floats in a vector),
// FEW, MOST, MANY (rows of a tile, see `LEVEL` below) and perhaps DOT (products in pairs), and includes this.
//
// A tile is a few rows of x by 4 or 2 rows of W, an accumulator each; a lane of it sums every WIDTH-th pair of products.
// A row's bits do not depend on the tile that it is in: each output is the same chain of operations over k in all of
// them, `BLOCK` products at a time, and its lanes are added halves to halves.

#if DOT
#include <immintrin.h>
#endif

#include <cstring>

#include "kernels.h"

namespace {

constexpr std::int64_t OUTPUTS = 128;     // their part of W in a block of k stays in the second cache ...
constexpr std::int64_t GROUP = 48;        // ... while so many rows of x, in tiles, are multiplied with it
constexpr std::int64_t STEP = 2 * WIDTH;  // values in a vector

typedef float Vector __attribute__((vector_size(WIDTH * 4)));
typedef std::uint32_t Loose __attribute__((vector_size(WIDTH * 4), aligned(2), may_alias));
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

inline float wide(Half half) {
  const std::uint32_t bits = (std::uint32_t)half << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline Half narrow(float value) {  // to the nearest, ties to even
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

#if DOT

typedef Half Kept;  // x is used as it lies
constexpr std::int64_t BLOCK = 2048;  // k: a tile's rows of x stay in the first cache

inline void keep(const Half *from, Kept *to) { std::memcpy(to, from, STEP * 2); }

template <int M, int P>
inline void step(Vector (&sum)[M][P], const Half *const (&w)[P], std::int64_t k, const Kept *x) {
  __m512bh part[P];
  for (int p = 0; p < P; p++) part[p] = (__m512bh)_mm512_loadu_si512(w[p] + k);
  for (int m = 0; m < M; m++) {
    const __m512bh row = (__m512bh)_mm512_load_si512(x + m * BLOCK + k);
    for (int p = 0; p < P; p++) sum[m][p] = (Vector)_mm512_dpbf16_ps((__m512)sum[m][p], part[p], row);
  }
}

#else

typedef float Kept;  // x in float32, the even places of a vector before the odd ones
constexpr std::int64_t BLOCK = 1024;  // k: a tile's rows of x stay in the first cache

inline Vector even(const Half *at) { return (Vector)(*(const Loose *)at << 16); }
inline Vector odd(const Half *at) { return (Vector)(*(const Loose *)at & 0xffff0000u); }

inline void keep(const Half *from, Kept *to) {
  *(Vector *)to = even(from);
  *(Vector *)(to + WIDTH) = odd(from);
}

template <int M, int P>
inline void step(Vector (&sum)[M][P], const Half *const (&w)[P], std::int64_t k, const Kept *x) {
  Vector part[P];
  for (int p = 0; p < P; p++) part[p] = even(w[p] + k);
  for (int m = 0; m < M; m++) {
    const Vector row = *(const Vector *)(x + m * BLOCK + k);
    for (int p = 0; p < P; p++) sum[m][p] += part[p] * row;  // rounded once: -ffp-contract=fast
  }
  for (int p = 0; p < P; p++) part[p] = odd(w[p] + k);
  for (int m = 0; m < M; m++) {
    const Vector row = *(const Vector *)(x + m * BLOCK + k + WIDTH);
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
  const HalfProduct &product;
  std::int64_t begin, end;  // outputs
  std::int64_t from, to;    // k
};

// M rows of x by all outputs of a part, P at a time; what lies `ahead` of a value read is fetched into the second cache.
template <int M, int P>
void tile(const Part &part, const Kept *x, float *total, std::int64_t ahead) {
  const HalfProduct &p = part.product;
  const std::int64_t count = part.to - part.from, whole = count - count % STEP;
  for (std::int64_t o = part.begin; o < part.end; o += P) {
    const Half *w[P];
    for (int i = 0; i < P; i++) w[i] = p.w + (o + i < p.out ? o + i : p.out - 1) * p.w_stride + part.from;
    Vector sum[M][P] = {};
    for (std::int64_t k = 0; k < whole; k += STEP) {
      for (int i = 0; i < P; i++) __builtin_prefetch(w[i] + k + ahead, 0, 2);
      step<M, P>(sum, w, k, x);
    }
    if (whole < count) {
      alignas(64) Half rest[P][STEP] = {};
      const Half *last[P];
      for (int i = 0; i < P; i++) {
        std::memcpy(rest[i], w[i] + whole, (count - whole) * 2);
        last[i] = rest[i];
      }
      step<M, P>(sum, last, 0, x + whole);
    }
    float *at = total + (o - part.begin);
    for (int m = 0; m < M; m += 4 / P) {
      const int next = P == 2 && m + 1 < M ? m + 1 : m;
      float *below = at + next * OUTPUTS, *here = at + m * OUTPUTS;
      Four sums = across(sum[m][0], sum[m][1], sum[next][P == 2 ? 0 : 2], sum[next][P == 2 ? 1 : 3]);
      float *where[4] = {here, here + 1, P == 2 ? below : here + 2, P == 2 ? below + 1 : here + 3};
      if (part.from) sums = Four{*where[0], *where[1], *where[2], *where[3]} + sums;
      for (int i = 0; i < 4; i++) *where[i] = sums[i];
    }
  }
}

template <int M>
void tile_of(int rows, const Part &part, const Kept *x, float *total, std::int64_t ahead) {
  if (rows == M) return tile<M, M <= FEW ? 4 : 2>(part, x, total, ahead);
  if constexpr (M > 1) tile_of<M - 1>(rows, part, x, total, ahead);
}

// `count` values of a row of x, and zeros up to a whole vector.
void keep_row(const Half *x, std::int64_t count, Kept *to) {
  std::int64_t k = 0;
  for (; k + STEP <= count; k += STEP) keep(x + k, to + k);
  if (k == count) return;
  alignas(64) Half rest[STEP] = {};
  std::memcpy(rest, x + k, (count - k) * 2);
  keep(rest, to + k);
}

}  // namespace

// Outputs `begin` to `end`, a multiple of 4 but for the last. Up to MOST rows are one tile; more are tiles of at most
// MANY. Tiles of more than FEW rows take 2 rows of W, not 4: accumulators must not be more than registers.
void LEVEL(const HalfProduct &p, std::int64_t begin, std::int64_t end) {
  alignas(64) float total[GROUP][OUTPUTS];
  alignas(64) Kept x[MOST][BLOCK];
  for (std::int64_t o = begin; o < end; o += OUTPUTS) {
    const std::int64_t until = o + OUTPUTS < end ? o + OUTPUTS : end;
    for (std::int64_t row = 0; row < p.rows; row += GROUP) {
      const std::int64_t rows = p.rows - row < GROUP ? p.rows - row : GROUP;
      const std::int64_t tiles = rows <= MOST ? 1 : (rows + MANY - 1) / MANY;
      for (std::int64_t k = 0; k < p.in; k += BLOCK) {
        const Part part{p, o, until, k, k + BLOCK < p.in ? k + BLOCK : p.in};
        // The first tile waits for memory: the next rows of W are fetched. The others do not: the next part is.
        const std::int64_t next = part.to < p.in ? BLOCK : OUTPUTS * p.w_stride - k;
        for (std::int64_t t = 0; t < tiles; t++) {
          const std::int64_t first = rows * t / tiles, last = rows * (t + 1) / tiles;
          for (std::int64_t m = first; m < last; m++)
            keep_row(p.x + (row + m) * p.x_stride + k, part.to - k, x[m - first]);
          tile_of<MOST>(last - first, part, x[0], total[first], t ? next : 4 * p.w_stride);
        }
      }
      for (std::int64_t m = 0; m < rows; m++) {
        Half *y = p.y + (row + m) * p.out + o;
        for (std::int64_t i = 0; p.bias && i < until - o; i++) total[m][i] += wide(p.bias[o + i]);
        for (std::int64_t i = 0; i < until - o; i++) y[i] = narrow(total[m][i]);
      }
    }
  }
}
