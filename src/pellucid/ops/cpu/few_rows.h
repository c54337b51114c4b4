// y = x W^T + b, W in panels of `wide` outputs: for one instruction level. A level's file sets LEVEL, WIDTH (floats in a
// vector) and MOST_ROWS (of a tile), and includes this. All numbers are float32; with PAIRS bfloat16, of which each
// output has two of W side by side, as they are multiplied.
//
// For few rows W streams through once, in the order in which it lies: that is all the time there is to save. Each output
// is a chain of multiply-adds in the order of k, `block` of them at a time, as in oneDNN's product; so both give the
// same bits, and which of them runs may depend on the number of rows. (Python compares them, for every matrix.)

#include <cstring>

#include "kernels.h"
#if PAIRS
#include <immintrin.h>
#endif

namespace {

constexpr int MOST_VECTORS = 64 / WIDTH;
constexpr std::int64_t KEPT = 384;  // rows of x that meet all panels before the next: they stay in the second cache

typedef float Vector __attribute__((vector_size(WIDTH * 4)));
typedef float Loose __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

#if PAIRS

typedef Half Number;
constexpr int AT_ONCE = 2;  // numbers of k
typedef std::uint32_t Given;

inline Given given(const Half *x, std::int64_t left) {  // zeros of W meet what is behind the last one
  Given pair = x[0];
  if (left > 1) std::memcpy(&pair, x, 4);
  return pair;
}
inline Vector add(Vector sum, Vector column, Given x) {
  return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)column, (__m512bh)_mm512_set1_epi32(x));
}
inline Vector load(const Half *from) {
  return (Vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
}
inline void store(Vector value, Half *to) { _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)value)); }

#else

typedef float Number;
constexpr int AT_ONCE = 1;
typedef float Given;

inline Given given(const float *x, std::int64_t) { return x[0]; }
inline Vector add(Vector sum, Vector column, Given x) { return sum + column * x; }  // rounded once: -ffp-contract=fast
inline Vector load(const float *from) { return *(const Loose *)from; }
inline void store(Vector value, float *to) { *(Loose *)to = value; }

#endif

// One panel: M rows of x from `row` on, V vectors of outputs.
template <int M, int V>
void panel(const Product &p, std::int64_t which, std::int64_t row) {
  const Number *w = (const Number *)p.w + which * p.depth * p.wide, *x = (const Number *)p.x + row * p.in;
  Vector total[M][V] = {};
  for (std::int64_t k = 0; k < p.in;) {
    const std::int64_t end = k + p.block < p.in ? k + p.block : p.in;
    const bool first = k == 0;
    Vector sum[M][V] = {};
    for (; k < end; k += AT_ONCE, w += V * WIDTH * AT_ONCE)
      for (int v = 0; v < V; v++) {
        const Vector column = *(const Loose *)(w + v * WIDTH * AT_ONCE);
        for (int m = 0; m < M; m++) sum[m][v] = add(sum[m][v], column, given(x + m * p.in + k, p.in - k));
      }
    for (int m = 0; m < M; m++)
      for (int v = 0; v < V; v++) total[m][v] = first ? sum[m][v] : total[m][v] + sum[m][v];
  }
  const std::int64_t from = which * p.wide, count = from + p.wide < p.out ? p.wide : p.out - from;
  Number *y = (Number *)p.y + row * p.out + from, part[V * WIDTH] = {};
  const Number *bias = (const Number *)p.bias + from;
  const bool whole = count == V * WIDTH;
  if (p.bias && !whole) std::memcpy(part, bias, count * sizeof(Number)), bias = part;
  for (int v = 0; v < V && p.bias; v++)
    for (int m = 0; m < M; m++) total[m][v] += load(bias + v * WIDTH);
  for (int m = 0; m < M; m++, y += p.out) {
    for (int v = 0; v < V; v++) store(total[m][v], (whole ? y : part) + v * WIDTH);
    if (!whole) std::memcpy(y, part, count * sizeof(Number));
  }
}

template <int M, int V>
bool panels(const Product &p, std::int64_t which, std::int64_t row, std::int64_t rows) {
  if (rows == M && p.wide == V * WIDTH) return panel<M, V>(p, which, row), true;
  if constexpr (V > 1) return panels<M, V - 1>(p, which, row, rows);
  if constexpr (M > 1) return panels<M - 1, MOST_VECTORS>(p, which, row, rows);
  return false;
}

}  // namespace

bool LEVEL(const Product &p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t first = 0; first < p.rows; first += KEPT) {
    const std::int64_t some = p.rows - first < KEPT ? p.rows - first : KEPT, tiles = (some + MOST_ROWS - 1) / MOST_ROWS;
    for (std::int64_t which = begin; which < end; which++)
      for (std::int64_t t = 0; t < tiles; t++) {
        const std::int64_t row = some * t / tiles, rows = some * (t + 1) / tiles - row;
        if (!panels<MOST_ROWS, MOST_VECTORS>(p, which, first + row, rows)) return false;
      }
  }
  return true;
}
