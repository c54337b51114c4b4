// What AVX-512 gives to attention_level.h.

#include <immintrin.h>

#include "attention.h"

#define WIDTH 16
#define QUERIES 4

namespace {

typedef float Vector __attribute__((vector_size(64)));

// 32 channels: in float32 and float16 one half and the other, in bfloat16 the even and the odd ones.
struct Pair {
  Vector low, high;
};

inline Vector load(const float *at) { return (Vector)_mm512_loadu_ps(at); }
inline void store(float *at, Vector x) { _mm512_storeu_ps(at, (__m512)x); }

// Vectors of two bfloat16 in a lane.
inline Vector load_bits(const Bf16 *at) { return (Vector)_mm512_loadu_si512(at); }
inline Vector load_bits(const Bf16 *at, std::int64_t count) {
  return (Vector)_mm512_maskz_loadu_epi16((1u << count) - 1, at);
}
inline Pair split(Vector both) {
  const __m512i bits = (__m512i)both;
  return {(Vector)_mm512_slli_epi32(bits, 16), (Vector)_mm512_and_si512(bits, _mm512_set1_epi32(0xffff0000))};
}
inline Pair load_pair(const Bf16 *at) { return split(load_bits(at)); }

// The first `count` channels, fewer than 32, and zeros.
inline Pair load_pair(const float *at, std::int64_t count) {
  const std::uint32_t mask = (1u << count) - 1;
  return {(Vector)_mm512_maskz_loadu_ps(mask & 0xffff, at), (Vector)_mm512_maskz_loadu_ps(mask >> 16, at + 16)};
}
inline Pair load_pair(const Bf16 *at, std::int64_t count) { return split(load_bits(at, count)); }

inline Pair load_pair(const F16 *at) {
  const __m256i *two = (const __m256i *)at;
  return {(Vector)_mm512_cvtph_ps(_mm256_loadu_si256(two)), (Vector)_mm512_cvtph_ps(_mm256_loadu_si256(two + 1))};
}
inline Pair load_pair(const F16 *at, std::int64_t count) {
  const __m512i both = _mm512_maskz_loadu_epi16((1u << count) - 1, at);
  return {(Vector)_mm512_cvtph_ps(_mm512_castsi512_si256(both)),
          (Vector)_mm512_cvtph_ps(_mm512_extracti64x4_epi64(both, 1))};
}

// Bytes, or words of two, in lanes.
inline __m512i load_bytes(const std::uint8_t *at) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)at));
}
inline __m512i load_words(const std::uint8_t *at) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)at));
}

inline float sum(Vector x) { return _mm512_reduce_add_ps((__m512)x); }
inline float largest(Vector x) { return _mm512_reduce_max_ps((__m512)x); }

// The sums of four vectors within quarters: a quarter has one of each vector.
inline __m512 of_quarters(const Vector (&x)[4]) {
  const __m512 a = (__m512)x[0], b = (__m512)x[1], c = (__m512)x[2], d = (__m512)x[3];
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
}

// The sums of four vectors.
inline void sums(const Vector (&x)[4], float scale, float *to) {
  const __m512 abcd = of_quarters(x);
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
  const __m128 all = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  _mm_storeu_ps(to, _mm_mul_ps(all, _mm_set1_ps(scale)));
}

// Those of four queries by four keys, a row for each query.
inline void sums(const Vector (&x)[4][4], float scale, float *to, std::int64_t step) {
  __m512 y[4];
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) y[i] = of_quarters(x[i]);
  const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(y[0], y[1], 0x44), _mm512_shuffle_f32x4(y[0], y[1], 0xee));
  const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(y[2], y[3], 0x44), _mm512_shuffle_f32x4(y[2], y[3], 0xee));
  const __m512 sum = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  const __m512 all = _mm512_mul_ps(sum, _mm512_set1_ps(scale));
  _mm_storeu_ps(to, _mm512_castps512_ps128(all));
  _mm_storeu_ps(to + step, _mm512_extractf32x4_ps(all, 1));
  _mm_storeu_ps(to + 2 * step, _mm512_extractf32x4_ps(all, 2));
  _mm_storeu_ps(to + 3 * step, _mm512_extractf32x4_ps(all, 3));
}

// The order in which that adds the lanes of a vector: halves of this list to halves, down to single lanes.
constexpr int LANES[] = {0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15};

// Lane j of vector i becomes lane i of vector j.
inline void transpose(Vector (&x)[16]) {
  __m512 a[16];
  for (int i = 0; i < 16; i += 4) {  // within quarters of vectors
    const __m512 p = _mm512_unpacklo_ps((__m512)x[i], (__m512)x[i + 1]);
    const __m512 q = _mm512_unpackhi_ps((__m512)x[i], (__m512)x[i + 1]);
    const __m512 r = _mm512_unpacklo_ps((__m512)x[i + 2], (__m512)x[i + 3]);
    const __m512 s = _mm512_unpackhi_ps((__m512)x[i + 2], (__m512)x[i + 3]);
    a[i] = _mm512_shuffle_ps(p, r, 0x44);
    a[i + 1] = _mm512_shuffle_ps(p, r, 0xee);
    a[i + 2] = _mm512_shuffle_ps(q, s, 0x44);
    a[i + 3] = _mm512_shuffle_ps(q, s, 0xee);
  }
  for (int i = 0; i < 4; i++) {  // the quarters
    const __m512 p = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), q = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
    const __m512 r = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88), s = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
    x[i] = (Vector)_mm512_shuffle_f32x4(p, r, 0x88);
    x[i + 8] = (Vector)_mm512_shuffle_f32x4(p, r, 0xdd);
    x[i + 4] = (Vector)_mm512_shuffle_f32x4(q, s, 0x88);
    x[i + 12] = (Vector)_mm512_shuffle_f32x4(q, s, 0xdd);
  }
}

}  // namespace

#include "attention_level.h"
