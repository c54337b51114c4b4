// Many rows: 32 outputs side by side in two vectors, by 256 numbers of their rows at a time. Their codes are laid out so
// that a lane has four neighbours of one output, and stay in the first cache while tiles of x pass: an instruction
// multiplies four numbers of a row of x with four of 16 outputs. Sums are whole numbers, as in blocks_level.h, and what
// follows them is the same chain.

namespace {

constexpr int WIDE = 32;         // outputs
constexpr int TALL = 6;          // rows of x in a tile: its sums, and those of a group, are 24 vectors
constexpr std::int64_t ROWS = 256;  // of x, whose float sums are kept

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

// 256 numbers, or the last ones, of 32 outputs.
struct Tile {
  alignas(64) std::uint8_t codes[64][WIDE][4];
  alignas(64) float scale[8][WIDE], minimum[8][WIDE];  // of each 32 numbers, or in [0] of all
  alignas(64) std::int32_t groups[16][WIDE];           // s_g
  alignas(64) std::int16_t minima[8][WIDE][2];         // m_g of two groups
};

template <class Kind>
void lay_out(const std::uint8_t *const (&w)[WIDE], int count, std::int64_t ahead, Tile &t) {
  constexpr int UNIT = LARGE<Kind> ? Kind::BYTES : 8 * Kind::BYTES;
  alignas(64) std::uint8_t rows[WIDE][256];
  alignas(64) std::uint8_t groups[WIDE][64];
  alignas(16) std::uint16_t scale[8][WIDE], minimum[8][WIDE];
  for (int i = 0; i < WIDE; i++) {
    Bytes q[8] = {};
    for (int c = 0; c < UNIT; c += 64) __builtin_prefetch(w[i] + ahead + c, 0, 2);
    if constexpr (LARGE<Kind>) {
      Groups s, m;
      Kind::codes(w[i], q);
      Kind::groups(w[i], s, m);
      _mm512_store_si512(groups[i], beside(s, m));
      scale[0][i] = Kind::scale(w[i]);
      if constexpr (Kind::MIN) minimum[0][i] = Kind::minimum(w[i]);
    } else {
      for (int b = 0; b < count; b++) {
        const std::uint8_t *at = w[i] + b * Kind::BYTES;
        q[b] = Kind::codes(at);
        scale[b][i] = Kind::scale(at);
        if constexpr (Kind::MIN) minimum[b][i] = Kind::minimum(at);
      }
    }
    for (int j = 0; j < 4; j++) _mm512_store_si512(rows[i] + 64 * j, beside(q[2 * j], q[2 * j + 1]));
  }
  for (int b = 0; b < (LARGE<Kind> ? 1 : count); b++)
    for (int i = 0; i < WIDE; i += 8) {
      *(Floats *)(t.scale[b] + i) = Kind::wide(*(const Raw *)(scale[b] + i));
      if constexpr (Kind::MIN) *(Floats *)(t.minimum[b] + i) = Kind::wide(*(const Raw *)(minimum[b] + i));
    }
  for (int half = 0; half < 2; half++) {
    __m512i a[16];
    for (int j = 0; j < (count + 1) / 2; j++) {
      for (int i = 0; i < 16; i++) a[i] = _mm512_load_si512(rows[16 * half + i] + 64 * j);
      transpose(a);
      for (int i = 0; i < 16; i++) _mm512_store_si512(t.codes[16 * j + i][16 * half], a[i]);
    }
    if constexpr (LARGE<Kind>) {
      for (int i = 0; i < 16; i++) a[i] = _mm512_load_si512(groups[16 * half + i]);
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

template <class Kind, int M>
void tile_of(int rows, const BlockProduct &p, const Tile &t, std::int64_t row, std::int64_t k, int count,
             float (*y)[WIDE]) {
  if (rows == M) {
    Kept x[M];
    for (int m = 0; m < M; m++) x[m] = kept(p.scratch, p.in, row + m);
    return tile<Kind, M>(t, x, k, count, y);
  }
  if constexpr (M > 1) tile_of<Kind, M - 1>(rows, p, t, row, k, count, y);
}

template <class Kind>
void many(const BlockProduct &p, std::int64_t begin, std::int64_t end) {
  constexpr int UNIT = LARGE<Kind> ? Kind::BYTES : 8 * Kind::BYTES;  // bytes of 256 numbers
  alignas(64) Tile t;
  alignas(64) float y[ROWS][WIDE];
  for (std::int64_t o = begin; o < end; o += WIDE)
    for (std::int64_t row = 0; row < p.rows; row += ROWS) {
      const std::int64_t rows = p.rows - row < ROWS ? p.rows - row : ROWS, tiles = (rows + TALL - 1) / TALL;
      std::memset(y, 0, rows * sizeof y[0]);
      for (std::int64_t k = 0; k < p.in; k += 256) {
        const std::uint8_t *w[WIDE];
        for (int i = 0; i < WIDE; i++)
          w[i] = p.w + (o + i < p.out ? o + i : p.out - 1) * p.row_bytes + k / 256 * UNIT;
        const int count = p.in - k < 256 ? (p.in - k) / 32 : 8;
        lay_out<Kind>(w, count, WIDE * p.row_bytes, t);
        for (std::int64_t i = 0; i < tiles; i++) {
          const std::int64_t first = rows * i / tiles, last = rows * (i + 1) / tiles;
          tile_of<Kind, TALL>(last - first, p, t, row + first, k, count, y + first);
        }
      }
      for (std::int64_t m = 0; m < rows; m++) store(p, row + m, o, WIDE, y[m]);
    }
}

}  // namespace
