// Tiles of blocks_many.h by AVX-512 and VNNI: an instruction multiplies four numbers of a row of x with four of 16 outputs.

namespace {

// 16 vectors of 16 words, columns for rows.
inline void transpose(__m512i (&a)[16]) {
  __m512i b[16];
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
      a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
    }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; j++) {
      b[i + j] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0x88);
      b[i + j + 4] = _mm512_shuffle_i32x4(a[i + j], a[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; j++) {
    a[j] = _mm512_shuffle_i32x4(b[j], b[j + 8], 0x88);
    a[j + 8] = _mm512_shuffle_i32x4(b[j], b[j + 8], 0xdd);
  }
}

template <class Half>
inline __m512i beside(Half a, Half b) {
  return _mm512_inserti64x4(_mm512_castsi256_si512((__m256i)a), (__m256i)b, 1);
}

struct Tile : Scaled {
  alignas(64) std::uint8_t codes[64][WIDE][4];
  alignas(64) std::int32_t groups[16][WIDE];    // s_g
  alignas(64) std::int16_t minima[8][WIDE][2];  // m_g of two groups
};

template <class Kind>
void turn(const Rows &rows, int count, Tile &t) {
  for (int half = 0; half < 2; half++) {
    __m512i a[16];
    for (int j = 0; j < (count + 1) / 2; j++) {
      for (int i = 0; i < 16; i++) a[i] = _mm512_load_si512(rows.codes[16 * half + i] + 64 * j);
      transpose(a);
      for (int i = 0; i < 16; i++) _mm512_store_si512(t.codes[16 * j + i][16 * half], a[i]);
    }
    if constexpr (LARGE<Kind>) {
      for (int i = 0; i < 16; i++) a[i] = _mm512_load_si512(rows.groups[16 * half + i]);
      transpose(a);
      for (int g = 0; g < 8; g++) {
        _mm512_store_si512(t.groups[2 * g] + 16 * half, _mm512_srai_epi32(_mm512_slli_epi32(a[g], 16), 16));
        _mm512_store_si512(t.groups[2 * g + 1] + 16 * half, _mm512_srai_epi32(a[g], 16));
        _mm512_store_si512(t.minima[g][16 * half], a[8 + g]);
      }
    }
  }
}

// sum += four neighbours of each of 32 outputs by those of M rows of x; for `count` times four.
template <int M>
inline void products(__m512i (&sum)[M][2], const Tile &t, int first, int count, const Kept (&x)[M], std::int64_t k) {
  for (int i = 0; i < count; i++) {
    const __m512i w[2] = {_mm512_load_si512(t.codes[first + i]), _mm512_load_si512(t.codes[first + i][16])};
    for (int m = 0; m < M; m++) {
      const __m512i four = _mm512_set1_epi32(read<std::int32_t>(x[m].q + k + 4 * (first + i)));
      for (int h = 0; h < 2; h++) sum[m][h] = _mm512_dpbusd_epi32(sum[m][h], w[h], four);
    }
  }
}

// y += numbers times their scale and a row's.
inline void add(float *y, __m512i whole, const float *scale, float row) {
  const __m512 by = _mm512_mul_ps(_mm512_load_ps(scale), _mm512_set1_ps(row));
  _mm512_store_ps(y, _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), by, _mm512_load_ps(y)));
}

template <class Kind, int M>
void tile(const Tile &t, const Kept (&x)[M], std::int64_t k, int count, float (*y)[WIDE]) {
  if constexpr (LARGE<Kind>) {
    constexpr int FIRST = 8 - 128 / Kind::GROUP, FOURS = Kind::GROUP / 4;
    const std::int64_t block = k / 256;
    __m512i total[M][2];
    for (int m = 0; m < M; m++)
      for (int h = 0; h < 2; h++) {
        __m512i below = _mm512_setzero_si512();
        for (int j = FIRST; j < 8; j++)
          below = _mm512_dpwssd_epi32(below, _mm512_load_si512(t.minima[j][16 * h]),
                                      _mm512_set1_epi32(read<std::int32_t>(x[m].sums + block * 16 + 2 * j)));
        total[m][h] = _mm512_sub_epi32(_mm512_setzero_si512(), below);
        if constexpr (Kind::MIN) {
          add(y[m] + 16 * h, total[m][h], t.minimum[0] + 16 * h, x[m].scale[block]);
          total[m][h] = _mm512_setzero_si512();
        }
      }
    for (int g = 0; g < 256 / Kind::GROUP; g++) {
      __m512i sum[M][2] = {};
      products<M>(sum, t, g * FOURS, FOURS, x, k);
      for (int h = 0; h < 2; h++) {
        const __m512i scale = _mm512_load_si512(t.groups[g] + 16 * h);
        for (int m = 0; m < M; m++) total[m][h] = _mm512_add_epi32(total[m][h], _mm512_mullo_epi32(sum[m][h], scale));
      }
    }
    for (int m = 0; m < M; m++)
      for (int h = 0; h < 2; h++) add(y[m] + 16 * h, total[m][h], t.scale[0] + 16 * h, x[m].scale[block]);
  } else {
    for (int b = 0; b < count; b++) {
      const std::int64_t block = k / 32 + b;
      __m512i sum[M][2];
      for (int m = 0; m < M; m++) sum[m][0] = sum[m][1] = _mm512_set1_epi32(Kind::ZERO ? x[m].start[block] : 0);
      products<M>(sum, t, 8 * b, 8, x, k);
      for (int m = 0; m < M; m++)
        for (int h = 0; h < 2; h++) {
          float *at = y[m] + 16 * h;
          if constexpr (Kind::MIN)
            _mm512_store_ps(at, _mm512_fmadd_ps(_mm512_load_ps(t.minimum[b] + 16 * h), _mm512_set1_ps(x[m].sum[block]),
                                                _mm512_load_ps(at)));
          add(at, sum[m][h], t.scale[b] + 16 * h, x[m].scale[block]);
        }
    }
  }
}

}  // namespace
