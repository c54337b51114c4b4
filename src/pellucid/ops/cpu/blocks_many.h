// Many rows: WIDE outputs side by side in two vectors, by 256 numbers of their rows at a time. Their codes are laid out so
// that a lane has four neighbours of one output, and stay in the first cache while tiles of x pass. Sums are whole
// numbers, as in blocks_level.h, and what follows them is the same chain.

namespace {

constexpr std::int64_t ROWS = 256;  // of x, whose float sums are kept

// Outputs side by side, and rows of x, in a tile: its sums, and what else it needs, fill the registers.
#if VNNI
constexpr int WIDE = 32, TALL = 6;
#else
constexpr int WIDE = 16, TALL = 4;
#endif

// 256 numbers, or the last ones, of each output, row after row: codes (less ZERO, where 0 is taken off them) and scales.
struct Rows {
  alignas(64) std::uint8_t codes[WIDE][256];
  alignas(64) std::int16_t groups[WIDE][32];  // s_g, then m_g
};

struct Scaled {
  alignas(64) float scale[8][WIDE], minimum[8][WIDE];  // of each 32 numbers, or in [0] of all
};

template <class Kind>
void gather(const std::uint8_t *const (&w)[WIDE], int count, std::int64_t ahead, Rows &rows, Scaled &scaled) {
  constexpr int UNIT = LARGE<Kind> ? Kind::BYTES : 8 * Kind::BYTES;
  alignas(16) std::uint16_t scale[8][WIDE], minimum[8][WIDE];
  for (int i = 0; i < WIDE; i++) {
    const auto keep = [&](int b, Bytes q) {
      *(Bytes *)(rows.codes[i] + 32 * b) = AWAY<Kind> ? q - (std::uint8_t)Kind::ZERO : q;
    };
    for (int c = 0; c < UNIT; c += 64) __builtin_prefetch(w[i] + ahead + c, 0, 2);
    if constexpr (LARGE<Kind>) {
      Bytes q[8];
      Groups s, m;
      Kind::codes(w[i], q);
#pragma GCC unroll 8
      for (int b = 0; b < 8; b++) keep(b, q[b]);
      Kind::groups(w[i], s, m);
      *(Groups *)rows.groups[i] = s, *(Groups *)(rows.groups[i] + 16) = m;
      scale[0][i] = Kind::scale(w[i]);
      if constexpr (Kind::MIN) minimum[0][i] = Kind::minimum(w[i]);
    } else {
      for (int b = 0; b < count; b++) {
        const std::uint8_t *at = w[i] + b * Kind::BYTES;
        keep(b, Kind::codes(at));
        scale[b][i] = Kind::scale(at);
        if constexpr (Kind::MIN) minimum[b][i] = Kind::minimum(at);
      }
      if (count % 2) keep(count, Bytes{});  // two are turned at a time
    }
  }
  for (int b = 0; b < (LARGE<Kind> ? 1 : count); b++)
    for (int i = 0; i < WIDE; i += 8) {
      *(Floats *)(scaled.scale[b] + i) = Kind::wide(*(const Raw *)(scale[b] + i));
      if constexpr (Kind::MIN) *(Floats *)(scaled.minimum[b] + i) = Kind::wide(*(const Raw *)(minimum[b] + i));
    }
}

}  // namespace

#if VNNI
#include "blocks_tile_vnni.h"
#else
#include "blocks_tile_avx2.h"
#endif

namespace {

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
  Rows laid;
  Tile t;
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
        gather<Kind>(w, count, WIDE * p.row_bytes, laid, t);
        turn<Kind>(laid, count, t);
        for (std::int64_t i = 0; i < tiles; i++) {
          const std::int64_t first = rows * i / tiles, last = rows * (i + 1) / tiles;
          tile_of<Kind, TALL>(last - first, p, t, row + first, k, count, y + first);
        }
      }
      for (std::int64_t m = 0; m < rows; m++) store(p, row + m, o, WIDE, y[m]);
    }
}

}  // namespace
