// Products with GGUF's blocks for one instruction level: the file that includes this sets LEVEL, and perhaps VNNI
// (products of bytes summed in 32 bits; and 512 bits wide, for one row in blocks_one.h and for many in blocks_many.h) or
// DOT (the same of Arm). Many rows have tiles of their own on x86.
//
// Few rows: W's bytes are read once, in their order, for 8 outputs at a time. A block becomes whole numbers in
// registers, is multiplied with each row of x, and eight sums of some lanes become one vector of eight outputs. The next
// eight rows of W are fetched meanwhile, in the order in which they lie: then the processor's own prefetching joins in.

#include "blocks_kinds.h"
#include "half.h"

namespace {

constexpr int OUTPUTS = 8;  // side by side
#if VNNI
constexpr int FEW = 2;  // rows of x at a time
#else
constexpr int FEW = 4;
#endif

// ------------------------------------------------------------------------------------------------ x in 8 bits

// `count` numbers to whole ones of at most 127 and their scale. What is not finite makes the scale NaN.
inline float rounded(const float *x, std::int8_t *q, int count) {
  std::uint32_t most = 0;
  for (int i = 0; i < count; i++) {
    const std::uint32_t size = read<std::uint32_t>(x + i) & 0x7fffffff;
    most = size > most ? size : most;
  }
  if (most >= 0x7f800000) {
    std::memset(q, 0, count);
    return __builtin_nanf("");
  }
  const float scale = read<float>(&most) / 127;
  const float inverse = scale > 0 ? 1 / scale : 0;  // of the smallest numbers it is infinite, and so is what follows
  if (inverse > 3e38f) {
    std::memset(q, 0, count);
    return 0;
  }
  for (int i = 0; i < count; i++) {
    const float near = __builtin_fmaf(x[i], inverse, 12582912);  // 1.5 * 2^23: the last bit is a one
    q[i] = (std::int8_t)(read<std::int32_t>(&near) - 0x4b400000);
  }
  return scale;
}

inline int sum_of(const std::int8_t *q, int count) {
  int sum = 0;
  for (int i = 0; i < count; i++) sum += q[i];
  return sum;
}

inline void load(const BlockProduct &p, std::int64_t row, std::int64_t k, int count, float *to) {
  if (!p.bfloat16) return (void)std::memcpy(to, (const float *)p.x + row * p.x_stride + k, count * 4);
  const std::uint16_t *from = (const std::uint16_t *)p.x + row * p.x_stride + k;
  for (int i = 0; i < count; i++) to[i] = wide(from[i]);
}

template <class Kind>
void keep_small(const BlockProduct &p, std::int64_t begin, std::int64_t end) {
  const std::int64_t last = end * 8 < p.in / 32 ? end * 8 : p.in / 32;
  for (std::int64_t row = 0; row < p.rows; row++) {
    const Kept x = kept(p.scratch, p.in, row);
    for (std::int64_t b = begin * 8; b < last; b++) {
      alignas(64) float values[32];
      load(p, row, b * 32, 32, values);
      x.scale[b] = rounded(values, x.q + b * 32, 32);
      const int sum = sum_of(x.q + b * 32, 32);
      x.start[b] = -Kind::ZERO * sum;
      x.sum[b] = x.scale[b] * (float)sum;
#if VNNI
      std::int8_t *turned = x.turned + b / 16 * 512 + b % 4 * 128 + b / 4 % 4 * 16;
      std::memcpy(turned, x.q + b * 32, 16);
      std::memcpy(turned + 64, x.q + b * 32 + 16, 16);
#endif
    }
  }
}

template <class Kind>
void keep_large(const BlockProduct &p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = 0; row < p.rows; row++) {
    const Kept x = kept(p.scratch, p.in, row);
    for (std::int64_t b = begin; b < end; b++) {
      alignas(64) float values[256];
      load(p, row, b * 256, 256, values);
      x.scale[b] = rounded(values, x.q + b * 256, 256);
      constexpr int COUNT = 256 / Kind::GROUP, FIRST = 16 - COUNT;
      for (int g = 0; g < FIRST; g++) x.sums[b * 16 + g] = 0;
      for (int g = 0; g < COUNT; g++)
        x.sums[b * 16 + FIRST + g] = sum_of(x.q + b * 256 + g * Kind::GROUP, Kind::GROUP);
    }
  }
}

template <class Kind, class = void>
constexpr bool LARGE = false;
template <class Kind>
constexpr bool LARGE<Kind, decltype((void)Kind::GROUP)> = true;

template <class Kind, class = void>
constexpr bool PACKED = false;
template <class Kind>
constexpr bool PACKED<Kind, decltype((void)Kind::CODES)> = true;

template <class Kind, class = void>
constexpr bool LOOKED_UP = false;
template <class Kind>
constexpr bool LOOKED_UP<Kind, decltype((void)Kind::VALUES)> = true;

// ------------------------------------------------------------------------------------------------ products

// The rows of W that stand side by side: behind the last output the last one again.
inline void sides(const BlockProduct &p, std::int64_t o, const std::uint8_t *(&w)[OUTPUTS]) {
  for (int i = 0; i < OUTPUTS; i++) w[i] = p.w + (o + i < p.out ? o + i : p.out - 1) * p.row_bytes;
}

void store(const BlockProduct &p, std::int64_t row, std::int64_t o, int count, const float *y) {
  for (int i = 0; i < count && o + i < p.out; i++) {
    const std::int64_t at = row * p.out + o + i;
    if (p.bfloat16) {
      const float bias = p.bias ? wide(((const std::uint16_t *)p.bias)[o + i]) : 0;
      ((std::uint16_t *)p.y)[at] = narrow(p.bias ? y[i] + bias : y[i]);
    } else {
      ((float *)p.y)[at] = p.bias ? y[i] + ((const float *)p.bias)[o + i] : y[i];
    }
  }
}

template <class Kind, int M>
void small(const BlockProduct &p, std::int64_t row, std::int64_t begin, std::int64_t end) {
  Kept x[M];
  for (int m = 0; m < M; m++) x[m] = kept(p.scratch, p.in, row + m);
  const std::int64_t blocks = p.in / 32;
  for (std::int64_t o = begin; o < end; o += OUTPUTS) {
    const std::uint8_t *w[OUTPUTS];
    sides(p, o, w);
    const std::uint8_t *next = p.w + (o + OUTPUTS) * p.row_bytes;
    Floats y[M] = {};
    for (std::int64_t first = 0; first < blocks; first += 8) {
      const int count = blocks - first < 8 ? blocks - first : 8;
      alignas(16) std::uint16_t scale[8][OUTPUTS], minimum[8][OUTPUTS];
      for (int i = 0; i < OUTPUTS; i++) {
        const std::uint8_t *at = w[i] + first * Kind::BYTES;
        for (int c = 0; c < count * Kind::BYTES; c += 64) __builtin_prefetch(next + c);
        next += count * Kind::BYTES;
        for (int b = 0; b < count; b++) {
          scale[b][i] = Kind::scale(at + b * Kind::BYTES);
          if constexpr (Kind::MIN) minimum[b][i] = Kind::minimum(at + b * Kind::BYTES);
        }
      }
      for (int b = 0; b < count; b++) {
        const std::int64_t block = first + b;
        Lanes sum[M][OUTPUTS];
        for (int i = 0; i < OUTPUTS; i++) {
          const Bytes q = Kind::codes(w[i] + block * Kind::BYTES);
          for (int m = 0; m < M; m++) sum[m][i] = dot<Kind>(q, *(const Bytes *)(x[m].q + block * 32));
        }
        const Floats d = Kind::wide(*(const Raw *)scale[b]);
        Floats least = {};
        if constexpr (Kind::MIN) least = Kind::wide(*(const Raw *)minimum[b]);
        for (int m = 0; m < M; m++) {
          Ints whole = across(sum[m]);
          if (Kind::ZERO && !AWAY<Kind>) whole = whole + x[m].start[block];
          if constexpr (Kind::MIN) y[m] = plus(y[m], least, Floats{} + x[m].sum[block]);
          y[m] = plus(y[m], numbers(whole), d * x[m].scale[block]);
        }
      }
    }
    for (int m = 0; m < M; m++) {
      alignas(32) float out[OUTPUTS];
      *(Floats *)out = y[m];
      store(p, row + m, o, OUTPUTS, out);
    }
  }
}

template <class Kind, int M>
void large(const BlockProduct &p, std::int64_t row, std::int64_t begin, std::int64_t end) {
  Kept x[M];
  for (int m = 0; m < M; m++) x[m] = kept(p.scratch, p.in, row + m);
  const std::int64_t blocks = p.in / 256;
  for (std::int64_t o = begin; o < end; o += OUTPUTS) {
    const std::uint8_t *w[OUTPUTS];
    sides(p, o, w);
    const std::uint8_t *next = p.w + (o + OUTPUTS) * p.row_bytes;
    Floats y[M] = {};
    for (std::int64_t block = 0; block < blocks; block++) {
      Lanes sum[M][OUTPUTS], below[M][OUTPUTS];
      alignas(16) std::uint16_t scale[OUTPUTS], minimum[OUTPUTS];
      for (int i = 0; i < OUTPUTS; i++) {
        const std::uint8_t *at = w[i] + block * Kind::BYTES;
        for (int c = 0; c < Kind::BYTES; c += 64) __builtin_prefetch(next + c);
        next += Kind::BYTES;
        Bytes q[8];
        Groups s, low;
        Kind::codes(at, q);
        Kind::groups(at, s, low);
        scale[i] = Kind::scale(at);
        if constexpr (Kind::MIN) minimum[i] = Kind::minimum(at);
        for (int m = 0; m < M; m++) {
          const Lanes lower = products(low, *(const Groups *)(x[m].sums + block * 16));
          sum[m][i] = Kind::MIN || Kind::MOST > 127 ? Lanes{} : -lower;
          if (Kind::MIN) below[m][i] = lower;
        }
        const Scales all = scales(s);
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
          const auto these = spread<Kind>(all, g);
          for (int m = 0; m < M; m++)
            sum[m][i] = scaled_dot<Kind>(sum[m][i], q[g], *(const Bytes *)(x[m].q + block * 256 + g * 32), these);
        }
      }
      const Floats d = Kind::wide(*(const Raw *)scale);
      Floats least = {};
      if constexpr (Kind::MIN) least = Kind::wide(*(const Raw *)minimum);
      for (int m = 0; m < M; m++) {
        if constexpr (Kind::MIN) y[m] = plus(y[m], numbers(Ints{} - across(below[m])), least * x[m].scale[block]);
        y[m] = plus(y[m], numbers(across(sum[m])), d * x[m].scale[block]);
      }
    }
    for (int m = 0; m < M; m++) {
      alignas(32) float out[OUTPUTS];
      *(Floats *)out = y[m];
      store(p, row + m, o, OUTPUTS, out);
    }
  }
}

template <class Kind, int M>
void few(const BlockProduct &p, std::int64_t row, int rows, std::int64_t begin, std::int64_t end) {
  if (rows == M) {
    if constexpr (LARGE<Kind>) return large<Kind, M>(p, row, begin, end);
    else return small<Kind, M>(p, row, begin, end);
  }
  if constexpr (M > 1) few<Kind, M - 1>(p, row, rows, begin, end);
}

}  // namespace

#if defined(__x86_64__)
#include "blocks_many.h"
#endif
#if VNNI
#include "blocks_one.h"
#endif

namespace {

constexpr std::int64_t GROUP = 128;  // outputs, whose bytes stay in the second cache for all rows

template <class Kind>
void multiply(const BlockProduct &p, std::int64_t begin, std::int64_t end) {
#if VNNI
  if constexpr (ONE_BY_ONE<Kind>)
    if (p.rows == 1) return one<Kind>(p, begin, end);
#endif
#if defined(__x86_64__)
  if (p.rows > FEW) return many<Kind>(p, begin, end);
#endif
  for (std::int64_t o = begin; o < end; o += GROUP)
    for (std::int64_t row = 0; row < p.rows; row += FEW)
      few<Kind, FEW>(p, row, p.rows - row < FEW ? p.rows - row : FEW, o, o + GROUP < end ? o + GROUP : end);
}

template <class Kind>
constexpr BlockKernel kernel() {
  if constexpr (LARGE<Kind>) return {keep_large<Kind>, multiply<Kind>};
  else return {keep_small<Kind>, multiply<Kind>};
}

}  // namespace

BlockKernel LEVEL(std::int64_t kind) {
  switch (kind) {  // ggml.h, enum ggml_type
    case 2: return kernel<Q4_0>();
    case 3: return kernel<Q4_1>();
    case 6: return kernel<Q5_0>();
    case 7: return kernel<Q5_1>();
    case 8: return kernel<Q8_0>();
    case 10: return kernel<Q2_K>();
    case 11: return kernel<Q3_K>();
    case 12: return kernel<Q4_K>();
    case 13: return kernel<Q5_K>();
    case 14: return kernel<Q6_K>();
    case 20: return kernel<IQ4_NL>();
    case 23: return kernel<IQ4_XS>();
    case 39: return kernel<MXFP4>();
    default: return {nullptr, nullptr};
  }
}
