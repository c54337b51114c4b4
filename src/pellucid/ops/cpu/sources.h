// Where the numbers of a matrix come from, for one instruction level: bfloat16.h reads them through one of these. A
// source has one row of W open, from some k on, and gives vectors of its numbers in float32: those at the even places of
// STEP numbers and those at the odd ones, or of both as bfloat16 (`words`).
//
//     Plain       bfloat16, as it lies
//     Natural     float16, as it lies: the first half of STEP numbers and the second, not the even and the odd ones
//     Nibbles     4 bits that stand for 16 values; (value - zero) · scale is made for all 16 at once, and looked up.
//                 Only where the first of two numbers is in the low half there are zeros
//     Signed      bytes, and
//     Float8      E4M3: a bfloat16 holds each of them exactly, so it is their sums that are scaled, group by group
//
// For a product in bfloat16 `Nibbles` gives numbers that are rounded to it: those of the unpacked matrix. `Shifted` does
// the same in another order, for products in pairs.

#pragma once

#pragma GCC diagnostic ignored "-Wuninitialized"  // of GCC 12's own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

#include <cstring>

#include "half.h"
#include "kernels.h"

#if defined(__x86_64__)
#define IN_REGISTER "+x"
#else
#define IN_REGISTER "+w"
#endif

namespace {

constexpr std::int64_t STEP = 2 * WIDTH;  // numbers given at a time

typedef float Vector __attribute__((vector_size(WIDTH * 4)));
typedef std::uint32_t Words __attribute__((vector_size(WIDTH * 4)));
typedef std::uint16_t Halves __attribute__((vector_size(WIDTH * 4)));
typedef std::int32_t Whole __attribute__((vector_size(WIDTH * 4)));
typedef std::uint32_t Loose __attribute__((vector_size(WIDTH * 4), aligned(1), may_alias));

// Rounded to bfloat16, still in float32. What is not a number stays so, unless an addition carries into its sign: see
// `Nibbles::turn`.
inline Vector rounded(Vector value) {
#if WIDTH == 16
  const __m512i bits = (__m512i)value;
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(1 << 16));
  const __m512i half = _mm512_mask_blend_epi32(odd, _mm512_set1_epi32(0x7fff), _mm512_set1_epi32(0x8000));
  return (Vector)_mm512_and_si512(_mm512_add_epi32(bits, half), _mm512_set1_epi32(-0x10000));
#else
  const Words bits = (Words)value;
  return (Vector)((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u);
#endif
}

inline Words both(Vector even, Vector odd) { return (Words)even >> 16 | ((Words)odd & 0xffff0000u); }

#if WIDTH == 16

inline Words of_bytes(const std::uint8_t *at) { return (Words)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)at)); }
inline Whole of_pairs(const std::uint8_t *at) {  // of bytes: the second with its sign
  return (Whole)_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)at));
}
inline Vector of_halves(const std::uint8_t *at) { return (Vector)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at)); }

struct Table {
  Vector all;
  Table less(float zero) const { return {all - zero}; }
  Table times(float scale) const { return {all * scale}; }
  Table round() const { return {rounded(all)}; }
  Vector at(Words place) const { return (Vector)_mm512_permutexvar_ps((__m512i)place, (__m512)all); }  // its low 4 bits
};

inline Table table(const float *values) { return {(Vector)_mm512_loadu_ps(values)}; }

// E4M3 is a bfloat16 with fewer bits of each kind; but its smallest numbers have no leading one.
inline Words of_float8(const std::uint8_t *at) {
  const __m512i small = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60));
  const __m512i code = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)at));
  const __m512i size = _mm512_and_si512(code, _mm512_set1_epi16(0x7f));
  __m512i word = _mm512_add_epi16(_mm512_slli_epi16(size, 4), _mm512_set1_epi16(120 << 7));
  word = _mm512_mask_permutexvar_epi16(word, _mm512_testn_epi16_mask(code, _mm512_set1_epi16(0x78)), code, small);
  word = _mm512_mask_mov_epi16(word, _mm512_cmpeq_epi16_mask(size, _mm512_set1_epi16(0x7f)), _mm512_set1_epi16(0x7fc0));
  const __m512i sign = _mm512_and_si512(_mm512_slli_epi16(code, 8), _mm512_set1_epi16(-0x8000));
  return (Words)_mm512_or_si512(word, sign);
}

#elif WIDTH == 8

inline Words of_bytes(const std::uint8_t *at) { return (Words)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)at)); }
inline Whole of_pairs(const std::uint8_t *at) {
  return (Whole)_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)at));
}
inline Vector of_halves(const std::uint8_t *at) { return (Vector)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at)); }

struct Table {
  Vector low, high;
  Table less(float zero) const { return {low - zero, high - zero}; }
  Table times(float scale) const { return {low * scale, high * scale}; }
  Table round() const { return {rounded(low), rounded(high)}; }
  Vector at(Words place) const {
    const __m256 below = _mm256_permutevar8x32_ps((__m256)low, (__m256i)place);
    const __m256 above = _mm256_permutevar8x32_ps((__m256)high, (__m256i)place);
    return (Vector)_mm256_blendv_ps(below, above, (__m256)(place << 28));
  }
};

inline Table table(const float *values) { return {(Vector)_mm256_loadu_ps(values), (Vector)_mm256_loadu_ps(values + 8)}; }

inline Words of_float8(const std::uint8_t *at) {
  const __m256i small = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, -128, -64, 0, 32, 64, 96, 0, 0x3b, 0x3b, 0x3b, 0x3c, 0x3c, 0x3c, 0x3c));
  const __m256i code = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)at));
  const __m256i size = _mm256_and_si256(code, _mm256_set1_epi16(0x7f));
  const __m256i large = _mm256_add_epi16(_mm256_slli_epi16(size, 4), _mm256_set1_epi16(120 << 7));
  // Of a word's two bytes the low one is found at its place, and the high one eight further on.
  const __m256i place = _mm256_add_epi16(_mm256_or_si256(size, _mm256_slli_epi16(size, 8)), _mm256_set1_epi16(0x800));
  const __m256i tiny = _mm256_cmpgt_epi16(_mm256_set1_epi16(8), size);
  __m256i word = _mm256_blendv_epi8(large, _mm256_shuffle_epi8(small, place), tiny);
  word = _mm256_blendv_epi8(word, _mm256_set1_epi16(0x7fc0), _mm256_cmpeq_epi16(size, _mm256_set1_epi16(0x7f)));
  return (Words)_mm256_or_si256(word, _mm256_and_si256(_mm256_slli_epi16(code, 8), _mm256_set1_epi16(-0x8000)));
}

#else

inline Words of_bytes(const std::uint8_t *at) {
  std::uint32_t four;
  std::memcpy(&four, at, 4);
  return (Words)vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}
inline Whole of_pairs(const std::uint8_t *at) { return (Whole)vmovl_s16(vreinterpret_s16_u8(vld1_u8(at))); }
inline Vector of_halves(const std::uint8_t *at) { return (Vector)vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(at))); }

struct Table {
  Vector part[4];
  Table less(float zero) const { return {part[0] - zero, part[1] - zero, part[2] - zero, part[3] - zero}; }
  Table times(float scale) const { return {part[0] * scale, part[1] * scale, part[2] * scale, part[3] * scale}; }
  Table round() const { return {rounded(part[0]), rounded(part[1]), rounded(part[2]), rounded(part[3])}; }
  Vector at(Words place) const {  // byte by byte
    const uint8x16x4_t bytes = {(uint8x16_t)part[0], (uint8x16_t)part[1], (uint8x16_t)part[2], (uint8x16_t)part[3]};
    return (Vector)vqtbl4q_u8(bytes, (uint8x16_t)((place & 15) * 0x04040404 + 0x03020100));
  }
};

inline Table table(const float *values) {
  return {(Vector)vld1q_f32(values), (Vector)vld1q_f32(values + 4), (Vector)vld1q_f32(values + 8),
          (Vector)vld1q_f32(values + 12)};
}

inline Words of_float8(const std::uint8_t *at) {
  const uint16x8_t small = {0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60};
  const uint16x8_t code = vmovl_u8(vld1_u8(at)), size = code & 0x7f;
  const uint16x8_t tiny = (uint16x8_t)vqtbl1q_u8((uint8x16_t)small, (uint8x16_t)(size * 0x0202 + 0x0100));
  uint16x8_t word = vbslq_u16(vcltq_u16(size, vdupq_n_u16(8)), tiny, (size << 4) + (120 << 7));
  word = vbslq_u16(vceqq_u16(size, vdupq_n_u16(0x7f)), vdupq_n_u16(0x7fc0), word);
  return (Words)(word | (code << 8 & 0x8000));
}

#endif

// A row of a matrix, from some k on.
struct Open {
  const Matrix *w;
  const std::uint8_t *at;
  std::int64_t place;  // of the next scale; they are taken in turn

  float zero() const { return w->zeros ? w->zeros[place] : 0; }
  float scale() const {
    if (w->scales) return w->scales[place];
    float product = w->map[w->packed[place]] * w->nested[place >> w->nest];
    asm("" : IN_REGISTER(product));  // rounded before the addition, as in torch
    return product + w->offset;
  }

  static constexpr bool FILLED = false;            // up to a whole step with zeros
  static constexpr int NUMBERS = STEP;             // in a vector or two, and `meets`: those of x that they meet
  static Words meets(const void *x) { return *(const Words *)x; }
  static Words order(Words step) { return step; }  // of STEP values of x in bfloat16, as this source has its numbers
};

struct Plain : Open {
  static constexpr bool SCALED = false, NATURAL = false, PACKED = false;
  static constexpr std::int64_t bytes(std::int64_t count) { return count * 2; }
  explicit Plain(const Open &open) : Open(open) {}
  void turn() {}
  Words words(std::int64_t k) const { return *(const Loose *)(at + k * 2); }
  Vector even(std::int64_t k) const { return (Vector)(words(k) << 16); }
  Vector odd(std::int64_t k) const { return (Vector)(words(k) & 0xffff0000u); }
};

struct Natural : Plain {
  static constexpr bool NATURAL = true;
  using Plain::Plain;
  Vector even(std::int64_t k) const { return of_halves(at + k * 2); }
  Vector odd(std::int64_t k) const { return of_halves(at + k * 2 + WIDTH * 2); }
};

template <bool HIGH, bool ROUND>
struct Nibbles : Open {
  static constexpr bool SCALED = false, NATURAL = false, PACKED = true;
  static constexpr std::int64_t bytes(std::int64_t count) { return (count + 1) / 2; }
  Table values, here;
  explicit Nibbles(const Open &open) : Open(open), values(table(w->values)), here(values) {}
  void turn() {
    const float by = scale();
    here = (HIGH ? values : values.less(zero())).times(by == by ? by : __builtin_nanf(""));
    if (ROUND) here = here.round();
    place++;
  }
  Words code(std::int64_t k) const { return of_bytes(at + k / 2); }
  Vector even(std::int64_t k) const { return here.at(HIGH ? code(k) >> 4 : code(k)); }
  Vector odd(std::int64_t k) const { return here.at(HIGH ? code(k) : code(k) >> 4); }
  Words words(std::int64_t k) const { return both(even(k), odd(k)); }
};

#if DOT && WIDTH == 16

// The same, rounded, in an order of its own. STEP numbers are 8 words of 4 nibbles: first come all their first nibbles,
// then all second ones, and so on. So one shift of the words, repeated, brings each nibble to the end of a word, and one
// permutation looks all of them up. It reads 5 bits of each word, so the table lies there twice. What is too small for a
// normal bfloat16 becomes 0 in it, as it would in the product.
template <bool HIGH>
struct Shifted : Open {
  static constexpr bool SCALED = false, NATURAL = false, PACKED = true;
  static constexpr std::int64_t bytes(std::int64_t count) { return (count + 1) / 2; }
  static Words order(Words step) {
    Halves places;
    for (int i = 0; i < STEP; i++) places[i] = i % 8 * 4 + (HIGH ? i / 8 ^ 1 : i / 8);
    return (Words)_mm512_permutexvar_epi16((__m512i)places, (__m512i)step);
  }
  Table values;
  __m512i here = {};
  explicit Shifted(const Open &open) : Open(open), values(table(w->values)) {}
  void turn() {
    const __m512 all = (__m512)(HIGH ? values : values.less(zero())).times(scale()).all;
    place++;
    here = (__m512i)_mm512_cvtne2ps_pbh(all, all);
  }
  Words words(std::int64_t k) const {
    const __m512i bits = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(at + k / 2)));
    const __m512i nibbles = _mm512_srlv_epi32(bits, _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    return (Words)_mm512_permutexvar_epi16(nibbles, here);
  }
};

#endif

struct Signed : Open {
  static constexpr bool SCALED = true, NATURAL = false, PACKED = true;
  static constexpr std::int64_t bytes(std::int64_t count) { return count; }
  Vector factor = {};  // the same in all lanes
  explicit Signed(const Open &open) : Open(open) {}
  void turn() { factor = scale() - Vector{}, place++; }
  Vector even(std::int64_t k) const { return __builtin_convertvector(of_pairs(at + k) << 24 >> 24, Vector); }
  Vector odd(std::int64_t k) const { return __builtin_convertvector(of_pairs(at + k) >> 8, Vector); }
  Words words(std::int64_t k) const { return both(even(k), odd(k)); }
};

struct Float8 : Signed {
  using Signed::Signed;
  Words words(std::int64_t k) const { return of_float8(at + k); }
  Vector even(std::int64_t k) const { return (Vector)(words(k) << 16); }
  Vector odd(std::int64_t k) const { return (Vector)(words(k) & 0xffff0000u); }
};

}  // namespace
