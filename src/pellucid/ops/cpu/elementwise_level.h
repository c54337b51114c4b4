// The elementwise kernels for one instruction level: plain loops, which the compiler turns into its vectors. A level's
// file sets LEVEL and the instructions, and includes this.
//
// They round where torch's separate calls round, and add in the same order, so that both give the same bits.

#pragma GCC optimize("fp-contract=off")  // a product that torch stores is rounded before it is added

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <arm_neon.h>
#endif

#include <cstring>

#include "elementwise.h"
#include "half.h"

namespace {

template <class T>
T narrow(float value);
template <>
inline float narrow<float>(float value) {
  return value;
}
// To the nearest, ties to even. What is not a number stays so: it comes from a bfloat16, and has no bits to round off.
template <>
inline Bf16 narrow<Bf16>(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <class T>
inline float rounded(float value) {
  return wide(narrow<T>(value));
}

#if defined(__x86_64__)
inline float root(float value) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(value))); }
#else
inline float root(float value) { return vget_lane_f32(vsqrt_f32(vdup_n_f32(value)), 0); }
#endif

// The sum of a row's squares as torch adds it: in 32 chains, of which 16 links at a time join those of the next level;
// then in 8 chains what is left, and the rest one by one.
template <class T>
float squares(const T *x, std::int64_t width) {
  float sum[4][32] = {};
  const std::int64_t blocks = width / 32;
  for (std::int64_t i = 0; i < blocks;) {
    for (int lane = 0; lane < 32; lane++) sum[0][lane] += wide(x[i * 32 + lane]) * wide(x[i * 32 + lane]);
    i++;
    for (int level = 1; level < 4 && i % (1 << 4 * level) == 0; level++)
      for (int lane = 0; lane < 32; lane++) {
        sum[level][lane] += sum[level - 1][lane];
        sum[level - 1][lane] = 0;
      }
  }
  for (int level = 1; level < 4; level++)
    for (int lane = 0; lane < 32; lane++) sum[0][lane] += sum[level][lane];
  std::int64_t i = blocks * 32;
  for (; i + 8 <= width; i += 8)
    for (int lane = 0; lane < 8; lane++) sum[0][lane] += wide(x[i + lane]) * wide(x[i + lane]);
  for (int lane = 8; lane < 32; lane++) sum[0][lane % 8] += sum[0][lane];
  float total = 0;
  for (; i < width; i++) total += wide(x[i]) * wide(x[i]);
  for (int lane = 0; lane < 8; lane++) total += sum[0][lane];
  return total;
}

template <class T>
void norm_rows(const Norming &n, std::int64_t begin, std::int64_t end) {
  const T *weight = static_cast<const T *>(n.weight);
  const float offset = n.offset == 0 ? -0.0f : n.offset;  // keeps the sign of a zero
  for (std::int64_t row = begin; row < end; row++) {
    const T *x = static_cast<const T *>(n.x) + row * n.width;
    T *__restrict y = static_cast<T *>(n.y) + row * n.width;
    const float scale = 1 / root(squares(x, n.width) / n.width + n.eps);
    if (!weight)
      for (std::int64_t i = 0; i < n.width; i++) y[i] = narrow<T>(wide(x[i]) * scale);
    else if (!n.round_first)
      for (std::int64_t i = 0; i < n.width; i++) y[i] = narrow<T>(wide(x[i]) * scale * (wide(weight[i]) + offset));
    else if (n.offset != 0)
      for (std::int64_t i = 0; i < n.width; i++)
        y[i] = narrow<T>(rounded<T>(wide(x[i]) * scale) * rounded<T>(wide(weight[i]) + rounded<T>(offset)));
    else
      for (std::int64_t i = 0; i < n.width; i++) y[i] = narrow<T>(rounded<T>(wide(x[i]) * scale) * wide(weight[i]));
  }
}

typedef float Eight __attribute__((vector_size(32)));

inline Eight eight(const float *x) {
  Eight found;
  std::memcpy(&found, x, sizeof found);
  return found;
}
inline Eight eight(const Bf16 *x) {
#if defined(__x86_64__)
  return (Eight)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)x)), 16);
#else
  Eight found;
  for (int i = 0; i < 8; i++) found[i] = wide(x[i]);
  return found;
#endif
}

// The sum of f of a row's numbers: in 32 chains, and what is left one by one.
template <class T, class F>
inline float sum(const T *x, std::int64_t width, F f) {
  Eight chains[4] = {};
  std::int64_t i = 0;
  for (; i + 32 <= width; i += 32)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) chains[j] += f(eight(x + i + 8 * j));
  float rest = 0;
  for (; i < width; i++) rest += f(wide(x[i]));
  const Eight all = (chains[0] + chains[1]) + (chains[2] + chains[3]);
  return ((all[0] + all[4]) + (all[1] + all[5])) + ((all[2] + all[6]) + (all[3] + all[7])) + rest;
}

template <class T>
void centre_rows(const Norming &n, std::int64_t begin, std::int64_t end) {
  const T *weight = static_cast<const T *>(n.weight), *bias = static_cast<const T *>(n.bias);
  for (std::int64_t row = begin; row < end; row++) {
    const T *x = static_cast<const T *>(n.x) + row * n.width;
    T *__restrict y = static_cast<T *>(n.y) + row * n.width;
    const float mean = sum(x, n.width, [](auto value) { return value; }) / n.width;
    const float variance = sum(x, n.width, [&](auto value) { return (value - mean) * (value - mean); }) / n.width;
    const float scale = 1 / root(variance + n.eps);
    if (weight && bias)
      for (std::int64_t i = 0; i < n.width; i++)
        y[i] = narrow<T>((wide(x[i]) - mean) * scale * wide(weight[i]) + wide(bias[i]));
    else if (weight)
      for (std::int64_t i = 0; i < n.width; i++) y[i] = narrow<T>((wide(x[i]) - mean) * scale * wide(weight[i]));
    else
      for (std::int64_t i = 0; i < n.width; i++) y[i] = narrow<T>((wide(x[i]) - mean) * scale);
  }
}

void norm(const Norming &n, std::int64_t begin, std::int64_t end) {
  if (n.centred) return n.how.bf16 ? centre_rows<Bf16>(n, begin, end) : centre_rows<float>(n, begin, end);
  n.how.bf16 ? norm_rows<Bf16>(n, begin, end) : norm_rows<float>(n, begin, end);
}

// A channel and its partner: the product with cos is rounded, the sum with the other product once.
template <class T>
inline T turned(T x, T partner, T cos, T sin) {
  return narrow<T>(__builtin_fmaf(wide(partner), wide(sin), rounded<T>(wide(x) * wide(cos))));
}

template <class T>
void turn_rows(const Turning &t, std::int64_t begin, std::int64_t end) {
  const std::int64_t half = t.turned / 2;
  for (std::int64_t which = begin * t.heads; which < end * t.heads; which++) {
    const T *x = static_cast<const T *>(t.x) + which * t.width;
    const T *cos = static_cast<const T *>(t.cos) + which / t.heads * t.turned;
    const T *sin = static_cast<const T *>(t.sin) + which / t.heads * t.turned;
    T *__restrict y = static_cast<T *>(t.y) + which * t.width;
    if (t.interleaved) {
      for (std::int64_t i = 0; i < t.turned; i += 2) {
        y[i] = turned(x[i], x[i + 1], cos[i], sin[i]);
        y[i + 1] = turned(x[i + 1], x[i], cos[i + 1], sin[i + 1]);
      }
    } else {
      for (std::int64_t i = 0; i < half; i++) y[i] = turned(x[i], x[i + half], cos[i], sin[i]);
      for (std::int64_t i = half; i < t.turned; i++) y[i] = turned(x[i], x[i - half], cos[i], sin[i]);
    }
    std::memcpy(y + t.turned, x + t.turned, (t.width - t.turned) * sizeof(T));
  }
}

void turn(const Turning &t, std::int64_t begin, std::int64_t end) {
  t.how.bf16 ? turn_rows<Bf16>(t, begin, end) : turn_rows<float>(t, begin, end);
}

// One by one: instructions that gather are slow on many processors, and vectors that are put together slower still.
__attribute__((optimize("no-tree-vectorize", "no-tree-slp-vectorize"))) void find(const Bf16 *x, const Bf16 *table,
                                                                                 Bf16 *y, std::int64_t count) {
#pragma GCC unroll 8
  for (std::int64_t i = 0; i < count; i++) y[i] = table[x[i]];
}

void look_up(const Looking &l, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t PIECE = 512;  // found values, which are multiplied in vectors: they stay in the first cache
  Bf16 found[PIECE];
  const std::int64_t first = begin * l.width, last = end * l.width;
  if (!l.times) return find(l.x + first, l.table, l.y + first, last - first);
  for (std::int64_t from = first; from < last; from += PIECE) {
    const std::int64_t count = last - from < PIECE ? last - from : PIECE;
    find(l.x + from, l.table, found, count);
    for (std::int64_t i = 0; i < count; i++) l.y[from + i] = narrow<Bf16>(wide(found[i]) * wide(l.times[from + i]));
  }
}

// exp(x) of x <= 0, to about 1 in the last place; 0 below the normal numbers. As in attention_level.h.
inline float exponential(float x) {
  const float big = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, found in the low bits
  const float shifted = __builtin_fmaf(x, 1.44269504f, big), n = shifted - big;
  const float r = __builtin_fmaf(n, 2.12194440e-4f, __builtin_fmaf(n, -0.693359375f, x));  // ln 2 in two parts
  float power = __builtin_fmaf(r, 0.00139013096f, 0.00836320035f);
  power = __builtin_fmaf(r, power, 0.04166685417f);
  power = __builtin_fmaf(r, power, 0.16666576266f);
  power = __builtin_fmaf(r, power, 0.5f);
  power = __builtin_fmaf(r * r, power, r) + 1.0f;
  std::int32_t bits;
  std::memcpy(&bits, &shifted, 4);
  bits = (bits - 0x4b400000 + 127) << 23;
  float two;
  std::memcpy(&two, &bits, 4);
  return x < -87.0f ? 0.0f : power * two;
}

inline float sigmoid(float x) {
  const float small = exponential(x < 0 ? x : -x);
  return (x < 0 ? small : 1.0f) / (1.0f + small);
}

template <Point POINT>
inline float activated(float x) {
  if (POINT == SILU) return x * sigmoid(x);
  if (POINT == GELU_QUICK) return x * sigmoid(1.702f * x);
  return x * sigmoid(1.5957691216f * __builtin_fmaf(0.044715f * x, x * x, x));  // (1 + tanh(u)) / 2 is sigmoid(2 u)
}

template <Point POINT>
void activate(const Pointwise &p, std::int64_t begin, std::int64_t end) {
  const float *x = static_cast<const float *>(p.x), *y = static_cast<const float *>(p.y);
  float *__restrict out = static_cast<float *>(p.out);
  if (y)
    for (std::int64_t i = begin * p.width; i < end * p.width; i++) out[i] = activated<POINT>(x[i]) * y[i];
  else
    for (std::int64_t i = begin * p.width; i < end * p.width; i++) out[i] = activated<POINT>(x[i]);
}

template <class T>
void join(const Pointwise &p, std::int64_t begin, std::int64_t end) {
  const T *x = static_cast<const T *>(p.x), *y = static_cast<const T *>(p.y);
  T *__restrict out = static_cast<T *>(p.out);
  const float factor = p.factor;
  const std::int64_t first = begin * p.width, last = end * p.width;
  if (p.point == SUM)
    for (std::int64_t i = first; i < last; i++) out[i] = narrow<T>(wide(x[i]) + wide(y[i]));
  else if (p.point == PRODUCT)
    for (std::int64_t i = first; i < last; i++) out[i] = narrow<T>(wide(x[i]) * wide(y[i]));
  else
    for (std::int64_t i = first; i < last; i++) out[i] = narrow<T>(wide(x[i]) * factor);
}

// To float16, to the nearest, ties to even.
void halve(const Pointwise &p, std::int64_t begin, std::int64_t end) {
  const float *x = static_cast<const float *>(p.x);
  std::uint16_t *out = static_cast<std::uint16_t *>(p.out);
  for (std::int64_t i = begin * p.width, count; i < end * p.width; i += count) {
    count = end * p.width - i < 8 ? end * p.width - i : 8;
    float from[8] = {};
    std::uint16_t to[8];
    std::memcpy(from, x + i, count * 4);
#if defined(__x86_64__)
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(_mm256_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT));
#else
    for (int half = 0; half < 8; half += 4)
      vst1_u16(to + half, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(from + half))));
#endif
    std::memcpy(out + i, to, count * 2);
  }
}

void pointwise(const Pointwise &p, std::int64_t begin, std::int64_t end) {
  switch (p.point) {
    case SILU: return activate<SILU>(p, begin, end);
    case GELU_TANH: return activate<GELU_TANH>(p, begin, end);
    case GELU_QUICK: return activate<GELU_QUICK>(p, begin, end);
    case HALVED: return halve(p, begin, end);
    default: return p.how.bf16 ? join<Bf16>(p, begin, end) : join<float>(p, begin, end);
  }
}

}  // namespace

const Elementwise LEVEL = {norm, turn, look_up, pointwise};
