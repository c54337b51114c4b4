// One row of x, 512 bits wide. Memory should be all there is to wait for, so rows of W stream through one behind the other.
// Each leaves some numbers in the first cache; when 16 rows have passed, these are turned, outputs side by side, for the
// chain of float operations that all paths have. Vectors that are used again and again are loaded, not made of words:
// GCC makes them anew each time.

namespace {

constexpr int TURNED = 16;  // rows of W

// Lines of W on their way, in the order in which they lie: the processor's own prefetching joins in then.
struct Ahead {
  const std::int64_t lead;
  const std::uint8_t *next;

  Ahead(const BlockProduct &p, std::int64_t begin)
      : lead(4 * p.row_bytes + 8192), next(p.w + begin * p.row_bytes) {  // it falls back until rows are turned
    for (std::int64_t c = 0; c < lead; c += 64) lines<1>();
  }

  void at(const std::uint8_t *row) { next = row + lead; }

  template <int COUNT>
  void lines() {
#pragma GCC unroll 16
    for (int c = 0; c < COUNT; c++) __builtin_prefetch(next + 64 * c);
    next += 64 * COUNT;
  }
};

inline __m512i pairs(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

// The sums of each four lanes of four vectors.
inline __m512i fours(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i first = pairs(a, b), second = pairs(c, d);
  return _mm512_add_epi32(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
}

inline __m512 numbers(__m512i x) { return _mm512_cvtepi32_ps(x); }

template <class Kind>
inline __m512 scales16(const std::uint16_t *raw) {
  const __m512d low = _mm512_castps_pd(_mm512_castps256_ps512((__m256)Kind::wide(*(const Raw *)raw)));
  return _mm512_castpd_ps(_mm512_insertf64x4(low, (__m256d)Kind::wide(*(const Raw *)(raw + 8)), 1));
}

inline const std::uint8_t *row_of(const BlockProduct &p, std::int64_t o) {  // behind the last one the last again
  return p.w + (o < p.out ? o : p.out - 1) * p.row_bytes;
}

// ------------------------------------------------------------------------------------------------ 32 neighbours

// The whole numbers of 16 blocks.
template <class Kind>
inline __m512i sixteen(const std::uint8_t *at, const Kept &x, std::int64_t block) {
  __m512i sum[8];
  if constexpr (PACKED<Kind>) {  // low halves of four blocks in one vector, high ones in another, as x.turned has them
    for (int j = 0; j < 4; j++) {
      const std::uint8_t *b = at + j * Kind::BYTES + Kind::CODES;
      __m512i both = _mm512_castsi128_si512((__m128i)read<Sixteen>(b));
      both = _mm512_inserti32x4(both, (__m128i)read<Sixteen>(b + 4 * Kind::BYTES), 1);
      both = _mm512_inserti32x4(both, (__m128i)read<Sixteen>(b + 8 * Kind::BYTES), 2);
      both = _mm512_inserti32x4(both, (__m128i)read<Sixteen>(b + 12 * Kind::BYTES), 3);
      const __m512i fifteen = _mm512_set1_epi8(15);
      __m512i low = _mm512_and_si512(both, fifteen), high = _mm512_and_si512(_mm512_srli_epi16(both, 4), fifteen);
      if constexpr (LOOKED_UP<Kind>) {
        const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)Kind::VALUES));
        low = _mm512_shuffle_epi8(table, low), high = _mm512_shuffle_epi8(table, high);
      }
      const std::int8_t *by = x.turned + block * 32 + 128 * j;
      sum[j] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, _mm512_load_si512(by));
      sum[j] = _mm512_dpbusd_epi32(sum[j], high, _mm512_load_si512(by + 64));
    }
    return fours(sum[0], sum[1], sum[2], sum[3]);
  } else {
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
      const std::uint8_t *b = at + 2 * j * Kind::BYTES;
      sum[j] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), beside(Kind::codes(b), Kind::codes(b + Kind::BYTES)),
                                   _mm512_load_si512(x.q + block * 32 + 64 * j));
    }
    const __m512i a = fours(sum[0], sum[1], sum[2], sum[3]), b = fours(sum[4], sum[5], sum[6], sum[7]);
    const __m512i whole = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
    const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    return _mm512_permutexvar_epi32(order, whole);
  }
}

// What has passed of 16 rows: `pass` keeps some blocks of row i, and `turn` adds those of all rows to their outputs.
template <class Kind>
struct Small {
  static constexpr int SPAN = 256, NUMBERS = 32;  // blocks at a time; numbers of one
  static constexpr int LINES = Kind::BYTES / 4;   // with each 16 blocks; the others while as many of 16 rows are turned
  alignas(64) float whole[SPAN / 16][TURNED][16];
  alignas(64) std::uint16_t scale[SPAN][TURNED], minimum[SPAN][TURNED];

  void pass(int i, const std::uint8_t *at, std::int64_t first, int count, const Kept &x, Ahead &ahead) {
    for (int b = 0; b < count; b += 16, at += 16 * Kind::BYTES) {
      const std::uint8_t *these = at;
      std::uint8_t last[16 * Kind::BYTES];
      if (count - b < 16) these = (const std::uint8_t *)std::memcpy(last, at, (count - b) * Kind::BYTES);
      ahead.lines<LINES>();
      for (int j = 0; j < 16; j++) {
        scale[b + j][i] = Kind::scale(these + j * Kind::BYTES);
        if constexpr (Kind::MIN) minimum[b + j][i] = Kind::minimum(these + j * Kind::BYTES);
      }
      __m512i sum = sixteen<Kind>(these, x, first + b);
      if (Kind::ZERO) sum = _mm512_add_epi32(sum, _mm512_load_si512(x.start + first + b));
      _mm512_store_ps(whole[b / 16][i], numbers(sum));
    }
  }

  __m512 turn(__m512 y, std::int64_t first, int count, const Kept &x, Ahead &ahead) const {
    for (int b = 0; b < count; b += 16) {
      __m512i turned[16];
      for (int i = 0; i < 16; i++) turned[i] = _mm512_load_si512(whole[b / 16][i]);
      transpose(turned);
      for (int j = 0; j < 16; j++) {
        if (j % 4 == 0) ahead.lines<Kind::BYTES - 4 * LINES>();
        if (b + j == count) break;
        const std::int64_t block = first + b + j;
        const __m512 d = _mm512_mul_ps(scales16<Kind>(scale[b + j]), _mm512_set1_ps(x.scale[block]));
        if constexpr (Kind::MIN) y = _mm512_fmadd_ps(scales16<Kind>(minimum[b + j]), _mm512_set1_ps(x.sum[block]), y);
        y = _mm512_fmadd_ps((__m512)turned[j], d, y);
      }
    }
    return y;
  }
};

// ------------------------------------------------------------------------------------------------ 256 neighbours

// 32 bytes twice; and numbers for their first and second time, to shift by.
inline __m512i twice(const std::uint8_t *at) { return _mm512_broadcast_i64x4((__m256i)read<Bytes>(at)); }

inline __m512i first_second(int a, int b) { return beside(_mm256_set1_epi16(a), _mm256_set1_epi16(b)); }

// The codes of 256 numbers, 64 and 64.
template <class Kind>
inline void wide_codes(const std::uint8_t *b, __m512i (&q)[4]) {
  const __m512i fifteen = _mm512_set1_epi8(15), places = first_second(0, 4);
  if constexpr (std::is_same<Kind, Q4_K>::value) {
    for (int j = 0; j < 4; j++) q[j] = _mm512_and_si512(_mm512_srlv_epi16(twice(b + 16 + 32 * j), places), fifteen);
  } else if constexpr (std::is_same<Kind, Q5_K>::value) {
    for (int j = 0; j < 4; j++) {
      const __m512i fifth = _mm512_srlv_epi16(twice(b + 16), first_second(2 * j, 2 * j + 1));
      q[j] = _mm512_and_si512(_mm512_srlv_epi16(twice(b + 48 + 32 * j), places), fifteen);
      q[j] = _mm512_or_si512(q[j], _mm512_slli_epi16(_mm512_and_si512(fifth, _mm512_set1_epi8(1)), 4));
    }
  } else {
    Bytes codes[8];
    Kind::codes(b, codes);
    for (int j = 0; j < 4; j++) q[j] = beside(codes[2 * j], codes[2 * j + 1]);
  }
}

// Where the scales of 64 numbers are among eight of them, for pairs of products.
template <int GROUP>
struct Places {
  alignas(64) std::uint8_t at[GROUP / 8][64] = {};
  constexpr Places() {
    for (int i = 0; i < 8 * GROUP; i++) at[i / 64][i % 64] = i / GROUP * 2 + i % 2;
  }
};
template <int GROUP>
constexpr Places<GROUP> PLACES;

// The lanes whose sum is a block's whole number; with MIN the upper half is what its minima take off.
template <class Kind>
inline __m512i lanes(const std::uint8_t *at, const Kept &x, std::int64_t block) {
  __m512i q[4], sum = _mm512_setzero_si512();
  Groups s, low;
  wide_codes<Kind>(at, q);
  Kind::groups(at, s, low);
  const __m256i lower = (__m256i)products(low, *(const Groups *)(x.sums + block * 16));
  const __m512i scales[2] = {_mm512_broadcast_i32x4(_mm256_castsi256_si128((__m256i)s)),
                             _mm512_broadcast_i32x4(_mm256_extracti128_si256((__m256i)s, 1))};
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    __m512i codes = q[j], by = _mm512_load_si512(x.q + block * 256 + j * 64);
    if (Kind::MOST > 127) {  // pairs are summed in 16 bits
      const __m512i values = _mm512_sub_epi8(codes, _mm512_set1_epi8((char)Kind::ZERO));
      codes = _mm512_abs_epi8(values);
      by = _mm512_mask_sub_epi8(by, _mm512_movepi8_mask(values), _mm512_setzero_si512(), by);
    }
    constexpr int COUNT = Kind::GROUP / 8;  // vectors that eight scales are for
    const __m512i these = _mm512_shuffle_epi8(scales[j / COUNT], _mm512_load_si512(PLACES<Kind::GROUP>.at[j % COUNT]));
    sum = _mm512_dpwssd_epi32(sum, _mm512_maddubs_epi16(codes, by), these);
  }
  if constexpr (Kind::MIN)
    return beside(_mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1)), lower);
  else
    return Kind::MOST > 127 ? sum : _mm512_sub_epi32(sum, _mm512_zextsi256_si512(lower));
}

template <class Kind>
struct Large {
  static constexpr int SPAN = 32, NUMBERS = 256;
  static constexpr int LINES = Kind::BYTES / 64;  // with each block; the others when four rows' are summed
  __m512i each[4][SPAN], sums[4][SPAN];           // of four rows; of four times four
  alignas(64) std::uint16_t scale[SPAN][TURNED], minimum[SPAN][TURNED];

  void pass(int i, const std::uint8_t *at, std::int64_t first, int count, const Kept &x, Ahead &ahead) {
    for (int b = 0; b < count; b++, at += Kind::BYTES) {
      ahead.lines<LINES>();
      scale[b][i] = Kind::scale(at);
      if constexpr (Kind::MIN) minimum[b][i] = Kind::minimum(at);
      each[i % 4][b] = lanes<Kind>(at, x, first + b);
    }
    for (int b = 0; i % 4 == 3 && b < count; b++) {
      ahead.lines<(Kind::BYTES + 15) / 16 - 4 * LINES>();
      sums[i / 4][b] = fours(each[0][b], each[1][b], each[2][b], each[3][b]);
    }
  }

  __m512 turn(__m512 y, std::int64_t first, int count, const Kept &x, Ahead &) const {
    for (int b = 0; b < count; b++) {
      __m512i half[2];
      for (int j = 0; j < 2; j++)
        half[j] = _mm512_add_epi32(_mm512_shuffle_i32x4(sums[2 * j][b], sums[2 * j + 1][b], 0x88),
                                   _mm512_shuffle_i32x4(sums[2 * j][b], sums[2 * j + 1][b], 0xdd));
      __m512i whole = _mm512_shuffle_i32x4(half[0], half[1], 0x88);
      const __m512i upper = _mm512_shuffle_i32x4(half[0], half[1], 0xdd);
      const __m512 by = _mm512_set1_ps(x.scale[first + b]);
      if constexpr (Kind::MIN)
        y = _mm512_fmadd_ps(numbers(_mm512_sub_epi32(_mm512_setzero_si512(), upper)),
                            _mm512_mul_ps(scales16<Kind>(minimum[b]), by), y);
      else
        whole = _mm512_add_epi32(whole, upper);
      y = _mm512_fmadd_ps(numbers(whole), _mm512_mul_ps(scales16<Kind>(scale[b]), by), y);
    }
    return y;
  }
};

// ------------------------------------------------------------------------------------------------ all

// Q6_K's rows are read at 37 GB/s by 8 outputs side by side (blocks_level.h), and at 28 one by one.
template <class Kind>
constexpr bool ONE_BY_ONE = !std::is_same<Kind, Q6_K>::value;

template <class Kind>
void one(const BlockProduct &p, std::int64_t begin, std::int64_t end) {
  using Passed = typename std::conditional<LARGE<Kind>, Large<Kind>, Small<Kind>>::type;
  const Kept x = kept(p.scratch, p.in, 0);
  const std::int64_t blocks = p.in / Passed::NUMBERS;
  Ahead ahead(p, begin);
  Passed passed;
  for (std::int64_t o = begin; o < end; o += TURNED) {
    __m512 y = _mm512_setzero_ps();
    ahead.at(row_of(p, o));
    for (std::int64_t first = 0; first < blocks; first += Passed::SPAN) {
      const int count = blocks - first < Passed::SPAN ? blocks - first : Passed::SPAN;
      for (int i = 0; i < TURNED; i++) passed.pass(i, row_of(p, o + i) + first * Kind::BYTES, first, count, x, ahead);
      y = passed.turn(y, first, count, x, ahead);
    }
    alignas(64) float out[TURNED];
    _mm512_store_ps(out, y);
    store(p, 0, o, TURNED, out);
  }
}

}  // namespace
