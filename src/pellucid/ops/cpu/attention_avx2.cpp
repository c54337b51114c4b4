#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#include <immintrin.h>

#include "attention.h"

#define LEVEL attention_avx2
#define WIDTH 8
#define QUERIES 2

namespace {

typedef float Vector __attribute__((vector_size(32)));

// 16 channels: in float32 and float16 one half and the other, in bfloat16 the even and the odd ones.
struct Pair {
  Vector low, high;
};

inline Vector load(const float *at) { return (Vector)_mm256_loadu_ps(at); }
inline void store(float *at, Vector x) { _mm256_storeu_ps(at, (__m256)x); }

// Vectors of two bfloat16 in a lane.
inline Vector load_bits(const Bf16 *at) { return (Vector)_mm256_loadu_si256((const __m256i *)at); }
inline Vector load_bits(const Bf16 *at, std::int64_t count) {
  Bf16 found[16] = {};
  for (std::int64_t i = 0; i < count; i++) found[i] = at[i];
  return load_bits(found);
}
inline Pair split(Vector both) {
  const __m256i bits = (__m256i)both;
  return {(Vector)_mm256_slli_epi32(bits, 16), (Vector)_mm256_and_si256(bits, _mm256_set1_epi32(0xffff0000))};
}
inline Pair load_pair(const Bf16 *at) { return split(load_bits(at)); }
inline Pair load_pair(const Bf16 *at, std::int64_t count) { return split(load_bits(at, count)); }

// The first `count` channels, fewer than 16, and zeros.
inline Pair load_pair(const float *at, std::int64_t count) {
  float found[16] = {};
  for (std::int64_t i = 0; i < count; i++) found[i] = at[i];
  return {load(found), load(found + 8)};
}

inline Pair load_pair(const F16 *at) {
  const __m128i *two = (const __m128i *)at;
  return {(Vector)_mm256_cvtph_ps(_mm_loadu_si128(two)), (Vector)_mm256_cvtph_ps(_mm_loadu_si128(two + 1))};
}
inline Pair load_pair(const F16 *at, std::int64_t count) {
  F16 found[16] = {};
  for (std::int64_t i = 0; i < count; i++) found[i] = at[i];
  return load_pair(found);
}

// Bytes, or words of two, in lanes.
inline __m256i load_bytes(const std::uint8_t *at) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)at));
}
inline __m256i load_words(const std::uint8_t *at) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)at));
}

inline float sum(Vector x) {
  __m128 y = _mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

inline float largest(Vector x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

// The sums of four vectors.
inline void sums(const Vector (&x)[4], float scale, float *to) {
  const __m256 a = (__m256)x[0], b = (__m256)x[1], c = (__m256)x[2], d = (__m256)x[3];
  const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
  const __m256 abcd = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
  const __m128 all = _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1));
  _mm_storeu_ps(to, _mm_mul_ps(all, _mm_set1_ps(scale)));
}

// The order in which that adds the lanes of a vector: halves of this list to halves, down to single lanes.
constexpr int LANES[] = {0, 2, 1, 3, 4, 6, 5, 7};

// Lane j of vector i becomes lane i of vector j.
inline void transpose(Vector (&x)[8]) {
  __m256 a[8];
  for (int i = 0; i < 8; i += 4) {  // within halves of vectors
    const __m256 p = _mm256_unpacklo_ps((__m256)x[i], (__m256)x[i + 1]);
    const __m256 q = _mm256_unpackhi_ps((__m256)x[i], (__m256)x[i + 1]);
    const __m256 r = _mm256_unpacklo_ps((__m256)x[i + 2], (__m256)x[i + 3]);
    const __m256 s = _mm256_unpackhi_ps((__m256)x[i + 2], (__m256)x[i + 3]);
    a[i] = _mm256_shuffle_ps(p, r, 0x44);
    a[i + 1] = _mm256_shuffle_ps(p, r, 0xee);
    a[i + 2] = _mm256_shuffle_ps(q, s, 0x44);
    a[i + 3] = _mm256_shuffle_ps(q, s, 0xee);
  }
  for (int i = 0; i < 4; i++) {  // the halves
    x[i] = (Vector)_mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
    x[i + 4] = (Vector)_mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
  }
}

}  // namespace

#include "attention_level.h"
#endif
