#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#include <immintrin.h>

#include "attention.h"

#define LEVEL attention_avx2
#define WIDTH 8
#define QUERIES 2

namespace {

typedef float Vector __attribute__((vector_size(32)));

inline Vector load(const float *at) { return (Vector)_mm256_loadu_ps(at); }
inline Vector load(const Bf16 *at) {
  const __m128i bits = _mm_loadu_si128((const __m128i *)at);
  return (Vector)_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
}

// The first `count` numbers, and zeros.
template <class E>
inline Vector load(const E *at, std::int64_t count) {
  E found[8] = {};
  for (std::int64_t i = 0; i < count; i++) found[i] = at[i];
  return load(found);
}

inline void store(float *at, Vector x) { _mm256_storeu_ps(at, (__m256)x); }

inline float sum(__m128 x) {
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline float sum(Vector x) {
  return sum(_mm_add_ps(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1)));
}

// The sums of four vectors.
inline void sums(const Vector (&x)[4], float *to) {
  const __m256 a = (__m256)x[0], b = (__m256)x[1], c = (__m256)x[2], d = (__m256)x[3];
  const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
  const __m256 abcd = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

}  // namespace

#include "attention_level.h"
#endif
