// Numbers of 4 bits that stand for 16 values, scaled block by block: NF4, FP4 (quant/_bitsandbytes.py). The value of a
// number is one product, so a block's 16 products are made once, rounded once, and looked up. And the way back: the
// nearest of 16 values to each number.

#include "half.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of GCC 12's own header
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

typedef Half Bf16;

inline void scaled(const float *values, float scale, float *to) {
  for (int i = 0; i < 16; i++) to[i] = values[i] * scale;
}

inline void scaled(const float *values, float scale, Bf16 *to) {
  for (int i = 0; i < 16; i++) to[i] = narrow(values[i] * scale);
}

// `bytes` bytes to twice as many numbers, the high half first.
template <class T>
inline void look_up(const std::uint8_t *codes, const T *table, T *y, std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; i++) {
    y[2 * i] = table[codes[i] >> 4];
    y[2 * i + 1] = table[codes[i] & 15];
  }
}

template <class T>
void blocks(const std::uint8_t *codes, const float *scales, const float *values, T *y, std::int64_t size,
            std::int64_t begin, std::int64_t end) {
  T table[16];
  for (std::int64_t b = begin; b < end; b++) {
    scaled(values, scales[b], table);
    look_up(codes + b * size / 2, table, y + b * size, size / 2);
  }
}

#if defined(__x86_64__)

bool has_words() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

const bool words = has_words();

__attribute__((target("avx512f,avx512bw,avx512vl"))) void blocks_avx512(const std::uint8_t *codes, const float *scales,
                                                                       const float *values, Bf16 *y, std::int64_t size,
                                                                       std::int64_t begin, std::int64_t end) {
  const __m512 sixteen = _mm512_loadu_ps(values);
  for (std::int64_t b = begin; b < end; b++) {
    const __m512 product = _mm512_mul_ps(sixteen, _mm512_set1_ps(scales[b]));
    const __m512i bits = _mm512_castps_si512(product);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i near = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    near = _mm512_mask_mov_epi32(near, _mm512_cmp_ps_mask(product, product, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc0));
    const __m512i table = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(near));
    const std::uint8_t *from = codes + b * size / 2;
    Bf16 *to = y + b * size;
    for (std::int64_t i = 0; i < size / 2; i += 16) {  // a block has 32 numbers or more
      const __m512i each = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(from + i)));
      const __m512i low = _mm512_slli_epi32(_mm512_and_si512(each, _mm512_set1_epi32(15)), 16);
      const __m512i place = _mm512_or_si512(_mm512_srli_epi32(each, 4), low);
      _mm512_storeu_si512(to + 2 * i, _mm512_permutexvar_epi16(place, table));
    }
  }
}

#elif defined(__aarch64__)

// 32 numbers at a time: their low bytes and their high ones are looked up apart.
void blocks_neon(const std::uint8_t *codes, const float *scales, const float *values, Bf16 *y, std::int64_t size,
                 std::int64_t begin, std::int64_t end) {
  Bf16 table[16];
  for (std::int64_t b = begin; b < end; b++) {
    scaled(values, scales[b], table);
    const uint8x16x2_t bytes = vld2q_u8((const std::uint8_t *)table);  // low, high
    const std::uint8_t *from = codes + b * size / 2;
    std::uint8_t *to = (std::uint8_t *)(y + b * size);
    for (std::int64_t i = 0; i < size / 2; i += 16, to += 64) {
      const uint8x16_t pair = vld1q_u8(from + i), first = vshrq_n_u8(pair, 4), second = vandq_u8(pair, vdupq_n_u8(15));
      for (int half = 0; half < 2; half++) {
        const uint8x16_t place = half ? vzip2q_u8(first, second) : vzip1q_u8(first, second);
        vst2q_u8(to + half * 32, {{vqtbl1q_u8(bytes.val[0], place), vqtbl1q_u8(bytes.val[1], place)}});
      }
    }
  }
}

#endif

void part(const std::uint8_t *codes, const float *scales, const float *values, void *y, std::int64_t size, int bf16,
          std::int64_t begin, std::int64_t end) {
  if (!bf16) return blocks(codes, scales, values, (float *)y, size, begin, end);
#if defined(__x86_64__)
  if (words && size % 32 == 0) return blocks_avx512(codes, scales, values, (Bf16 *)y, size, begin, end);
#elif defined(__aarch64__)
  if (size % 32 == 0) return blocks_neon(codes, scales, values, (Bf16 *)y, size, begin, end);
#endif
  blocks(codes, scales, values, (Bf16 *)y, size, begin, end);
}

}  // namespace

namespace {

constexpr std::int64_t ROW = 32;  // numbers at a time, of which a block has a multiple

struct Nearest {
  const float *x;             // [count, size]
  const float *bounds;        // [15], between the values in order
  const std::uint8_t *names;  // [16], of the values in order
  std::uint8_t *codes;        // [count, size / 2]
  float *scales;              // [count]
  std::int64_t size;
};

// As torch has it: a block with one NaN is NaN, and so are its scaled numbers, which are above all bounds.
inline __attribute__((always_inline)) void nearest(const Nearest &p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t b = begin; b < end; b++) {
    const float *x = p.x + b * p.size;
    float largest = 0;
    std::uint32_t strange = 0;
    for (std::int64_t i = 0; i < p.size; i++) {
      const float magnitude = __builtin_fabsf(x[i]);
      largest = magnitude > largest ? magnitude : largest;
      strange |= magnitude != magnitude;
    }
    if (strange) largest = __builtin_nanf("");
    p.scales[b] = largest;
    const float by = 1 / (largest < 1e-38f ? 1e-38f : largest);
    for (std::int64_t from = 0; from < p.size; from += ROW) {
      float scaled[ROW];
      std::int32_t place[ROW] = {};
      for (int i = 0; i < ROW; i++) scaled[i] = x[from + i] * by;
      for (int j = 0; j < 15; j++)
        for (int i = 0; i < ROW; i++) place[i] += !(p.bounds[j] >= scaled[i]);
      std::uint8_t *to = p.codes + (b * p.size + from) / 2;
      for (int i = 0; i < ROW / 2; i++) to[i] = p.names[place[2 * i]] << 4 | p.names[place[2 * i + 1]];
    }
  }
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512vl"))) void nearest_avx512(const Nearest &p, std::int64_t begin,
                                                                         std::int64_t end) {
  nearest(p, begin, end);
}
#endif

void nearest_part(const Nearest &p, std::int64_t begin, std::int64_t end) {
#if defined(__x86_64__)
  if (words) return nearest_avx512(p, begin, end);
#endif
  nearest(p, begin, end);
}

}  // namespace

// codes [count, size / 2] and scales [count] of x [count, size]; `size` is a multiple of 32.
extern "C" void pellucid_nearest4(const float *x, const float *bounds, const std::uint8_t *names, std::uint8_t *codes,
                                  float *scales, std::int64_t count, std::int64_t size, int threads) {
  const Nearest p{x, bounds, names, codes, scales, size};
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int thread = 0; thread < threads; thread++)
    nearest_part(p, count * thread / threads, count * (thread + 1) / threads);
}

// y [count, size] of bfloat16 or float from codes [count, size / 2], scales [count] and values [16].
extern "C" void pellucid_lookup4(const std::uint8_t *codes, const float *scales, const float *values, void *y,
                                 std::int64_t count, std::int64_t size, int bf16, int threads) {
  if (threads < 2) return part(codes, scales, values, y, size, bf16, 0, count);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int thread = 0; thread < threads; thread++)
    part(codes, scales, values, y, size, bf16, count * thread / threads, count * (thread + 1) / threads);
}
