// Tiles of blocks_many.h by AVX2. It multiplies bytes in pairs, whose sums it keeps in 16 bits: of small codes several of
// them fit there, so they are added before they are widened to 32 bits; where a group has a scale, that widens them.

namespace {

struct Tile : Scaled {
  alignas(64) std::uint8_t codes[64][WIDE][4];   // less ZERO, where 0 is taken off them
  alignas(64) std::int16_t groups[16][WIDE][2];  // s_g twice
  alignas(64) std::int16_t minima[8][WIDE][2];   // m_g of two groups
};

// 8 vectors of 8 words, columns for rows.
inline void transpose(__m256i (&a)[8]) {
  __m256i b[8];
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = _mm256_unpacklo_epi64(b[i + j], b[i + j + 2]);
      a[i + 2 * j + 1] = _mm256_unpackhi_epi64(b[i + j], b[i + j + 2]);
    }
  for (int j = 0; j < 4; j++) {
    b[j] = _mm256_permute2x128_si256(a[j], a[j + 4], 0x20);
    b[j + 4] = _mm256_permute2x128_si256(a[j], a[j + 4], 0x31);
  }
  for (int j = 0; j < 8; j++) a[j] = b[j];
}

inline __m256i at(const void *from) { return _mm256_load_si256((const __m256i *)from); }
inline void put(__m256i value, void *to) { _mm256_store_si256((__m256i *)to, value); }

template <class Kind>
void turn(const Rows &rows, int count, Tile &t) {
  for (int half = 0; half < WIDE; half += 8) {
    __m256i a[8];
    for (int j = 0; j < count; j++) {
      for (int i = 0; i < 8; i++) a[i] = at(rows.codes[half + i] + 32 * j);
      transpose(a);
      for (int i = 0; i < 8; i++) put(a[i], t.codes[8 * j + i][half]);
    }
    if constexpr (LARGE<Kind>) {
      for (int i = 0; i < 8; i++) a[i] = at(rows.groups[half + i]);
      transpose(a);
      for (int g = 0; g < 8; g++) {
        const __m256i first = _mm256_slli_epi32(a[g], 16), second = _mm256_srli_epi32(a[g], 16);
        put(_mm256_or_si256(first, _mm256_srli_epi32(first, 16)), t.groups[2 * g][half]);
        put(_mm256_or_si256(second, _mm256_slli_epi32(second, 16)), t.groups[2 * g + 1][half]);
      }
      for (int i = 0; i < 8; i++) a[i] = at(rows.groups[half + i] + 16);
      transpose(a);
      for (int g = 0; g < 8; g++) put(a[g], t.minima[g][half]);
    }
  }
}

// How many of `count` pairs of products of these codes with numbers of at most 127 fit in 16 bits: 1, 2, 4 or all.
template <class Kind>
constexpr int fitting(int count) {
  const int most = AWAY<Kind> ? 1 : 32767 / (2 * 127 * Kind::MOST);
  return most >= count ? count : most >= 4 ? 4 : most >= 2 ? 2 : 1;
}

// sum += `by` times four neighbours of each of 16 outputs by those of M rows of x, for COUNT times four.
template <class Kind, int COUNT, int M>
inline void products(__m256i (&sum)[M][2], const Tile &t, int first, const __m256i (&by)[2], const Kept (&x)[M],
                     std::int64_t k) {
  constexpr int SOME = fitting<Kind>(COUNT);
#pragma GCC unroll 1  // GCC would add in another order, and store what it adds
  for (int i = 0; i < COUNT; i += SOME) {
    __m256i pairs[M][2] = {};
#pragma GCC unroll 1
    for (int j = 0; j < SOME; j++) {
      const __m256i w[2] = {at(t.codes[first + i + j]), at(t.codes[first + i + j][8])};
#pragma GCC unroll 8
      for (int m = 0; m < M; m++) {
        const __m256i four = _mm256_set1_epi32(read<std::int32_t>(x[m].q + k + 4 * (first + i + j)));
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
          const __m256i two = AWAY<Kind> ? _mm256_maddubs_epi16(_mm256_abs_epi8(w[h]), _mm256_sign_epi8(four, w[h]))
                                         : _mm256_maddubs_epi16(w[h], four);
          pairs[m][h] = _mm256_add_epi16(pairs[m][h], two);
        }
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
      for (int h = 0; h < 2; h++) sum[m][h] = _mm256_add_epi32(sum[m][h], _mm256_madd_epi16(pairs[m][h], by[h]));
  }
}

// y += numbers times their scale and a row's.
inline void add(float *y, __m256i whole, const float *scale, float row) {
  const __m256 by = _mm256_mul_ps(_mm256_load_ps(scale), _mm256_set1_ps(row));
  _mm256_store_ps(y, _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), by, _mm256_load_ps(y)));
}

template <class Kind, int M>
void tile(const Tile &t, const Kept (&x)[M], std::int64_t k, int count, float (*y)[WIDE]) {
  if constexpr (LARGE<Kind>) {
    constexpr int FIRST = 8 - 128 / Kind::GROUP;
    const std::int64_t block = k / 256;
    __m256i total[M][2];
    for (int m = 0; m < M; m++)
      for (int h = 0; h < 2; h++) {
        __m256i below = _mm256_setzero_si256();
        for (int j = FIRST; j < 8 && !AWAY<Kind>; j++) {
          const __m256i sums = _mm256_set1_epi32(read<std::int32_t>(x[m].sums + block * 16 + 2 * j));
          below = _mm256_add_epi32(below, _mm256_madd_epi16(at(t.minima[j][8 * h]), sums));
        }
        total[m][h] = _mm256_sub_epi32(_mm256_setzero_si256(), below);
        if constexpr (Kind::MIN) {
          add(y[m] + 8 * h, total[m][h], t.minimum[0] + 8 * h, x[m].scale[block]);
          total[m][h] = _mm256_setzero_si256();
        }
      }
    for (int g = 0; g < 256 / Kind::GROUP; g++) {
      const __m256i by[2] = {at(t.groups[g]), at(t.groups[g][8])};
      products<Kind, Kind::GROUP / 4>(total, t, g * Kind::GROUP / 4, by, x, k);
    }
    for (int m = 0; m < M; m++)
      for (int h = 0; h < 2; h++) add(y[m] + 8 * h, total[m][h], t.scale[0] + 8 * h, x[m].scale[block]);
  } else {
    const __m256i one = _mm256_set1_epi16(1), by[2] = {one, one};
    for (int b = 0; b < count; b++) {
      const std::int64_t block = k / 32 + b;
      __m256i sum[M][2];
      for (int m = 0; m < M; m++)
        sum[m][0] = sum[m][1] = _mm256_set1_epi32(Kind::ZERO && !AWAY<Kind> ? x[m].start[block] : 0);
      products<Kind, 8>(sum, t, 8 * b, by, x, k);
      for (int m = 0; m < M; m++)
        for (int h = 0; h < 2; h++) {
          float *to = y[m] + 8 * h;
          if constexpr (Kind::MIN)
            _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_load_ps(t.minimum[b] + 8 * h), _mm256_set1_ps(x[m].sum[block]),
                                                _mm256_load_ps(to)));
          add(to, sum[m][h], t.scale[b] + 8 * h, x[m].scale[block]);
        }
    }
  }
}

}  // namespace
