#if defined(__aarch64__)
#include <arm_neon.h>

#include "attention.h"

#define LEVEL attention_neon
#define WIDTH 4
#define QUERIES 4

namespace {

typedef float Vector __attribute__((vector_size(16)));

// 8 channels: in float32 and float16 one half and the other, in bfloat16 the even and the odd ones.
struct Pair {
  Vector low, high;
};

inline Vector load(const float *at) { return (Vector)vld1q_f32(at); }
inline void store(float *at, Vector x) { vst1q_f32(at, (float32x4_t)x); }

// Vectors of two bfloat16 in a lane; there are no masked loads.
inline Vector load_bits(const Bf16 *at) { return (Vector)vld1q_u16(&at->bits); }
inline Vector load_bits(const Bf16 *at, std::int64_t count) {
  Bf16 found[8] = {};
  for (std::int64_t i = 0; i < count; i++) found[i] = at[i];
  return load_bits(found);
}
inline Pair split(Vector both) {
  const uint32x4_t bits = (uint32x4_t)both;
  return {(Vector)vshlq_n_u32(bits, 16), (Vector)vandq_u32(bits, vdupq_n_u32(0xffff0000))};
}
inline Pair load_pair(const Bf16 *at) { return split(load_bits(at)); }
inline Pair load_pair(const Bf16 *at, std::int64_t count) { return split(load_bits(at, count)); }

// The first `count` channels, fewer than 8, and zeros.
inline Pair load_pair(const float *at, std::int64_t count) {
  float found[8] = {};
  for (std::int64_t i = 0; i < count; i++) found[i] = at[i];
  return {load(found), load(found + 4)};
}

inline Pair load_pair(const F16 *at) {
  const float16x8_t both = vreinterpretq_f16_u16(vld1q_u16(&at->bits));
  return {(Vector)vcvt_f32_f16(vget_low_f16(both)), (Vector)vcvt_f32_f16(vget_high_f16(both))};
}
inline Pair load_pair(const F16 *at, std::int64_t count) {
  F16 found[8] = {};
  for (std::int64_t i = 0; i < count; i++) found[i] = at[i];
  return load_pair(found);
}

// Bytes, or words of two, in lanes.
inline uint32x4_t load_bytes(const std::uint8_t *at) {
  std::uint32_t four;
  __builtin_memcpy(&four, at, 4);
  return vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}
inline uint32x4_t load_words(const std::uint8_t *at) { return vmovl_u16(vreinterpret_u16_u8(vld1_u8(at))); }

inline float sum(Vector x) { return vaddvq_f32((float32x4_t)x); }
inline float largest(Vector x) { return vmaxvq_f32((float32x4_t)x); }

// The sums of four vectors.
inline void sums(const Vector (&x)[4], float scale, float *to) {
  const float32x4_t ab = vpaddq_f32((float32x4_t)x[0], (float32x4_t)x[1]);
  const float32x4_t all = vpaddq_f32(ab, vpaddq_f32((float32x4_t)x[2], (float32x4_t)x[3]));
  vst1q_f32(to, vmulq_n_f32(all, scale));
}

// The order in which that adds the lanes of a vector: halves of this list to halves, down to single lanes.
constexpr int LANES[] = {0, 1, 2, 3};

// Lane j of vector i becomes lane i of vector j.
inline void transpose(Vector (&x)[4]) {
  const float32x4x2_t p = vtrnq_f32((float32x4_t)x[0], (float32x4_t)x[1]);
  const float32x4x2_t q = vtrnq_f32((float32x4_t)x[2], (float32x4_t)x[3]);
  for (int i = 0; i < 2; i++) {
    x[i] = (Vector)vcombine_f32(vget_low_f32(p.val[i]), vget_low_f32(q.val[i]));
    x[i + 2] = (Vector)vcombine_f32(vget_high_f32(p.val[i]), vget_high_f32(q.val[i]));
  }
}

}  // namespace

#include "attention_level.h"
#endif
