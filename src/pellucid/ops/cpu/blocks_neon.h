// What blocks_kinds.h and blocks_level.h ask of the processor, in NEON; blocks_x86.h has the same names. With DOT, four
// products of bytes are summed by one instruction.

#include <arm_neon.h>

#include <type_traits>

namespace {

// Two vectors as one: GCC keeps what is wider than a register in memory.
template <class V>
struct Two {
  V low, high;
};

template <class V>
using Element = std::decay_t<decltype(std::declval<V &>()[0])>;

#define BOTH(SIGN)                                                          \
  template <class V>                                                        \
  inline Two<V> operator SIGN(Two<V> a, Two<V> b) {                         \
    return {a.low SIGN b.low, a.high SIGN b.high};                          \
  }                                                                         \
  template <class V>                                                        \
  inline Two<V> operator SIGN(Two<V> a, Element<V> b) {                     \
    return {a.low SIGN b, a.high SIGN b};                                   \
  }
BOTH(&) BOTH(|) BOTH(^) BOTH(<<) BOTH(>>) BOTH(+) BOTH(-) BOTH(*)
#undef BOTH

typedef Two<uint8x16_t> Bytes;
typedef Two<int16x8_t> Groups;
typedef Two<float32x4_t> Floats;
typedef Two<int32x4_t> Ints;
typedef int32x4_t Lanes;  // a sum that is not yet one number

// ------------------------------------------------------------------------------------------------ from bytes to codes

// The low halves of 16 bytes, then the high ones.
inline Bytes nibbles(const std::uint8_t *at) {
  const uint8x16_t both = vld1q_u8(at);
  return {both & 15, both >> 4};
}

// Bytes shifted down by N bits, of which those of `mask` are kept.
template <int N>
inline Bytes down(Bytes x, int mask) {
  return N == 8 - __builtin_popcount(mask) ? x >> N : x >> N & mask;
}

template <int N>
inline Bytes upward(Bytes x) {  // of bytes whose high bits are zero
  return x << N;
}

inline Bytes looked_up(const std::uint8_t (&table)[16], Bytes places) {
  const uint8x16_t values = vld1q_u8(table);
  return {vqtbl1q_u8(values, places.low), vqtbl1q_u8(values, places.high)};
}

// Bit i of 32, as 16 or 0 in byte i.
inline Bytes fifth_bits(const std::uint8_t *at) {
  const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  const Bytes word = {vcombine_u8(vdup_n_u8(at[0]), vdup_n_u8(at[1])), vcombine_u8(vdup_n_u8(at[2]), vdup_n_u8(at[3]))};
  return Bytes{vtstq_u8(word.low, bit), vtstq_u8(word.high, bit)} & 16;
}

// ------------------------------------------------------------------------------------------------ scales

inline Floats halves(Raw raw) {
  const float16x8_t all = vreinterpretq_f16_u16((uint16x8_t)raw);
  return {vcvt_f32_f16(vget_low_f16(all)), vcvt_high_f32_f16(all)};
}

inline float32x4_t power(uint32x4_t e) {  // half of 2^(e - 127)
  const uint32x4_t normal = (e - 1) << 23, small = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
  return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), small, normal));
}

inline Floats powers(Raw raw) {
  const uint16x8_t all = (uint16x8_t)raw;
  return {power(vmovl_u16(vget_low_u16(all))), power(vmovl_high_u16(all))};
}

inline Groups sixteen_groups(Sixteen bytes) {
  const uint8x16_t all = (uint8x16_t)bytes;
  return {vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(all))), vreinterpretq_s16_u16(vmovl_high_u8(all))};
}

inline Groups sixteen_signed(Sixteen bytes) {
  const int8x16_t all = (int8x16_t)bytes;
  return {vmovl_s8(vget_low_s8(all)), vmovl_high_s8(all)};
}

// 8 scales and 8 minima of 6 bits in 12 bytes: the first four whole, the others in what those left.
inline void six_bits(const std::uint8_t *at, Groups &s, Groups &m) {
  const std::uint64_t first = read<std::uint64_t>(at), rest = read<std::uint32_t>(at + 8);
  const std::uint64_t whole = first & 0x3f3f3f3f3f3f3f3f, high = first >> 2 & 0x3030303030303030;
  const std::uint64_t others = ((rest | rest << 28) & 0x0f0f0f0f0f0f0f0f) | high;
  const uint32x4_t all = vreinterpretq_u32_u64(uint64x2_t{whole, others});
  s = m = sixteen_groups((Sixteen)uint32x4_t{all[0], all[2], all[1], all[3]});
}

// The scales of a block, for `spread`.
struct Scales {
  alignas(16) std::int32_t all[16];
};

inline Scales scales(Groups s) {
  Scales found;
  vst1q_s32(found.all, vmovl_s16(vget_low_s16(s.low)));
  vst1q_s32(found.all + 4, vmovl_high_s16(s.low));
  vst1q_s32(found.all + 8, vmovl_s16(vget_low_s16(s.high)));
  vst1q_s32(found.all + 12, vmovl_high_s16(s.high));
  return found;
}

// Those of 32 numbers: where they share one, the first.
template <class Kind>
inline const std::int32_t *spread(const Scales &scales, int which) {
  return scales.all + (Kind::GROUP == 32 ? which : 2 * which);
}

// ------------------------------------------------------------------------------------------------ products

// Codes are signed here: 0 is taken off the large ones first.
template <class Kind>
constexpr bool AWAY = Kind::MOST > 127;

template <class Kind>
inline Bytes away(Bytes q) {
  return AWAY<Kind> ? q - Kind::ZERO : q;
}

// sum + products of 16 neighbours, four to a lane. Without DOT two products, of at most 128 by 127, are summed in 16 bits.
inline Lanes more(Lanes sum, uint8x16_t q, uint8x16_t x) {
  const int8x16_t a = vreinterpretq_s8_u8(q), b = vreinterpretq_s8_u8(x);
#if DOT
  return vdotq_s32(sum, a, b);
#else
  return vpadalq_s16(sum, vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b));
#endif
}

// Products of 32 codes with whole numbers, eight to a lane; of codes less ZERO where 0 is taken off.
template <class Kind>
inline Lanes dot(Bytes q, Bytes x) {
  q = away<Kind>(q);
  return more(more(Lanes{}, q.low, x.low), q.high, x.high);
}

// sum + scales times products of 32 codes.
template <class Kind>
inline Lanes scaled_dot(Lanes sum, Bytes q, Bytes x, const std::int32_t *scales) {
  if (Kind::GROUP == 32) return vmlaq_n_s32(sum, dot<Kind>(q, x), scales[0]);
  q = away<Kind>(q);
  sum = vmlaq_n_s32(sum, more(Lanes{}, q.low, x.low), scales[0]);
  return vmlaq_n_s32(sum, more(Lanes{}, q.high, x.high), scales[1]);
}

// Products of what goes with 16 groups, four to a lane.
inline Lanes products(Groups a, Groups b) {
  const Lanes first = vmlal_high_s16(vmull_s16(vget_low_s16(a.low), vget_low_s16(b.low)), a.low, b.low);
  return vmlal_high_s16(vmlal_s16(first, vget_low_s16(a.high), vget_low_s16(b.high)), a.high, b.high);
}

// The sums of the lanes of eight vectors.
inline Ints across(const Lanes (&a)[8]) {
  return {vpaddq_s32(vpaddq_s32(a[0], a[1]), vpaddq_s32(a[2], a[3])),
          vpaddq_s32(vpaddq_s32(a[4], a[5]), vpaddq_s32(a[6], a[7]))};
}

inline Floats numbers(Ints x) { return {vcvtq_f32_s32(x.low), vcvtq_f32_s32(x.high)}; }

// y += a b, rounded once, on every path.
inline Floats plus(Floats y, Floats a, Floats b) {
  return {vfmaq_f32(y.low, a.low, b.low), vfmaq_f32(y.high, a.high, b.high)};
}

}  // namespace
