// What blocks_kinds.h and blocks_level.h ask of the processor, in AVX2; blocks_neon.h has the same names. With VNNI,
// products of bytes are summed in 32 bits at once.

#include <immintrin.h>

namespace {

typedef std::uint8_t Bytes __attribute__((vector_size(32)));
typedef std::int16_t Groups __attribute__((vector_size(32)));
typedef float Floats __attribute__((vector_size(32)));
typedef std::int32_t Ints __attribute__((vector_size(32)));
typedef Ints Lanes;  // a sum that is not yet one number

// ------------------------------------------------------------------------------------------------ from bytes to codes

// The low halves of 16 bytes, then the high ones.
inline Bytes nibbles(const std::uint8_t *at) {
  const __m128i both = _mm_loadu_si128((const __m128i *)at);
  return (Bytes)_mm256_set_m128i(_mm_srli_epi16(both, 4), both) & 15;
}

// Bytes shifted down by N bits, of which those of `mask` are kept: bits of a neighbour would come in otherwise.
template <int N>
inline Bytes down(Bytes x, int mask) {
  return (Bytes)_mm256_srli_epi16((__m256i)x, N) & (std::uint8_t)mask;
}

template <int N>
inline Bytes upward(Bytes x) {  // of bytes whose high bits are zero
  return (Bytes)_mm256_slli_epi16((__m256i)x, N);
}

inline Bytes looked_up(const std::uint8_t (&table)[16], Bytes places) {
  const __m128i values = _mm_loadu_si128((const __m128i *)table);
  return (Bytes)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), (__m256i)places);
}

// Bit i of 32, as 16 or 0 in byte i.
inline Bytes fifth_bits(const std::uint8_t *at) {
  const __m256i word = _mm256_set1_epi32(read<std::int32_t>(at));
  const __m256i places = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x(0x8040201008040201);
  const __m256i found = _mm256_and_si256(_mm256_shuffle_epi8(word, places), bit);
  return (Bytes)_mm256_and_si256(_mm256_cmpeq_epi8(found, bit), _mm256_set1_epi8(16));
}

// ------------------------------------------------------------------------------------------------ scales

inline Floats halves(Raw raw) { return (Floats)_mm256_cvtph_ps((__m128i)raw); }

inline Floats powers(Raw raw) {  // half of 2^(e - 127)
  const __m256i e = _mm256_cvtepu16_epi32((__m128i)raw), one = _mm256_set1_epi32(1);
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
  const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  return (Floats)_mm256_blendv_epi8(normal, small, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e));
}

inline Groups sixteen_groups(Sixteen bytes) { return (Groups)_mm256_cvtepu8_epi16((__m128i)bytes); }

inline Groups sixteen_signed(Sixteen bytes) { return (Groups)_mm256_cvtepi8_epi16((__m128i)bytes); }

// 8 scales and 8 minima of 6 bits in 12 bytes: the first four whole, the others in what those left.
inline void six_bits(const std::uint8_t *at, Groups &s, Groups &m) {
  const __m128i all = _mm_loadu_si128((const __m128i *)at);
  const __m128i rest = _mm_shuffle_epi8(all, _mm_setr_epi8(8, 9, 10, 11, 8, 9, 10, 11, -1, -1, -1, -1, -1, -1, -1, -1));
  const __m128i low = _mm_and_si128(_mm_srlv_epi32(rest, _mm_setr_epi32(0, 4, 0, 0)), _mm_set1_epi8(15));
  const __m128i high = _mm_and_si128(_mm_srli_epi16(all, 2), _mm_set1_epi8(48));
  const __m128i first = _mm_and_si128(all, _mm_set1_epi8(63));
  s = m = sixteen_groups((Sixteen)_mm_unpacklo_epi32(first, _mm_or_si128(low, high)));
}

// The scales of a block, for `spread`: the first eight in both halves of a vector, and the last.
struct Scales {
  __m256i first, last;
};

inline Scales scales(Groups s) {
  return {_mm256_permute4x64_epi64((__m256i)s, 0x44), _mm256_permute4x64_epi64((__m256i)s, 0xee)};
}

// Those of 32 numbers, for pairs of products.
template <class Kind>
inline __m256i spread(const Scales &all, int which) {
  const int first = Kind::GROUP == 32 ? which : 2 * which, second = Kind::GROUP == 32 ? first : first + 1;
  const short a = (2 * first & 15) | ((2 * first & 15) + 1) << 8, b = (2 * second & 15) | ((2 * second & 15) + 1) << 8;
  return _mm256_shuffle_epi8(first < 8 ? all.first : all.last, _mm256_setr_m128i(_mm_set1_epi16(a), _mm_set1_epi16(b)));
}

// ------------------------------------------------------------------------------------------------ products

// Where pairs of products are summed in 16 bits, large codes do not fit: 0 is taken off them first.
#if VNNI
template <class Kind>
constexpr bool AWAY = false;
#else
template <class Kind>
constexpr bool AWAY = Kind::MOST > 127;
#endif

// Products of 32 codes with whole numbers, four to a lane; of codes less ZERO where 0 is taken off.
template <class Kind>
inline Lanes dot(Bytes q, Bytes x) {
#if VNNI
  return (Lanes)_mm256_dpbusd_epi32(_mm256_setzero_si256(), (__m256i)q, (__m256i)x);
#else
  __m256i codes = (__m256i)q, by = (__m256i)x;
  if (AWAY<Kind>) {
    const __m256i values = (__m256i)(q - (std::uint8_t)Kind::ZERO);
    codes = _mm256_abs_epi8(values);
    by = _mm256_sign_epi8(by, values);
  }
  return (Lanes)_mm256_madd_epi16(_mm256_maddubs_epi16(codes, by), _mm256_set1_epi16(1));
#endif
}

// sum + scales times products of 32 codes: in 16 bits first, where the codes are small enough.
template <class Kind>
inline Lanes scaled_dot(Lanes sum, Bytes q, Bytes x, __m256i scales) {
  __m256i codes = (__m256i)q, by = (__m256i)x;
  if (Kind::MOST > 127) {
    const __m256i values = (__m256i)(q - (std::uint8_t)Kind::ZERO);
    codes = _mm256_abs_epi8(values);
    by = _mm256_sign_epi8(by, values);
  }
  const __m256i pairs = _mm256_maddubs_epi16(codes, by);
#if VNNI
  return (Lanes)_mm256_dpwssd_epi32((__m256i)sum, pairs, scales);
#else
  return sum + (Lanes)_mm256_madd_epi16(pairs, scales);
#endif
}

// Products of what goes with 16 groups, two to a lane.
inline Lanes products(Groups a, Groups b) { return (Lanes)_mm256_madd_epi16((__m256i)a, (__m256i)b); }

// The sums of the lanes of eight vectors.
inline Ints across(const Lanes (&a)[8]) {
  Ints two[4], four[2];
  for (int i = 0; i < 4; i++)
    two[i] = (Ints)_mm256_unpacklo_epi32((__m256i)a[2 * i], (__m256i)a[2 * i + 1]) +
             (Ints)_mm256_unpackhi_epi32((__m256i)a[2 * i], (__m256i)a[2 * i + 1]);
  for (int i = 0; i < 2; i++)
    four[i] = (Ints)_mm256_unpacklo_epi64((__m256i)two[2 * i], (__m256i)two[2 * i + 1]) +
              (Ints)_mm256_unpackhi_epi64((__m256i)two[2 * i], (__m256i)two[2 * i + 1]);
  return (Ints)_mm256_permute2x128_si256((__m256i)four[0], (__m256i)four[1], 0x20) +
         (Ints)_mm256_permute2x128_si256((__m256i)four[0], (__m256i)four[1], 0x31);
}

inline Floats numbers(Ints x) { return (Floats)_mm256_cvtepi32_ps((__m256i)x); }

// y += a b, rounded once, on every path.
inline Floats plus(Floats y, Floats a, Floats b) { return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)y); }

}  // namespace
