#if defined(__aarch64__)
#include <arm_neon.h>

#include "attention.h"

#define LEVEL attention_neon
#define WIDTH 4
#define QUERIES 4
#define COPIED_PARTS  // there are no masked loads

namespace {

typedef float Vector __attribute__((vector_size(16)));

// 8 channels: in float32 one half and the other, in bfloat16 the even and the odd ones.
struct Pair {
  Vector low, high;
};

inline Vector load(const float *at) { return (Vector)vld1q_f32(at); }
inline void store(float *at, Vector x) { vst1q_f32(at, (float32x4_t)x); }

inline Pair load_pair(const Bf16 *at) {
  const uint32x4_t bits = vreinterpretq_u32_u16(vld1q_u16(&at->bits));
  return {(Vector)vshlq_n_u32(bits, 16), (Vector)vandq_u32(bits, vdupq_n_u32(0xffff0000))};
}

inline float sum(Vector x) { return vaddvq_f32((float32x4_t)x); }
inline float largest(Vector x) { return vmaxvq_f32((float32x4_t)x); }

// The sums of four vectors.
inline void sums(const Vector (&x)[4], float *to) {
  const float32x4_t ab = vpaddq_f32((float32x4_t)x[0], (float32x4_t)x[1]);
  vst1q_f32(to, vpaddq_f32(ab, vpaddq_f32((float32x4_t)x[2], (float32x4_t)x[3])));
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
