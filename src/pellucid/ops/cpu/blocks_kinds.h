// The kinds of GGUF's blocks: how their bytes become whole numbers in their order, and what scales them. The definitions
// are written out in quant/_blocks.py. Included by a level's file, whose instructions the compiler then uses.

#include <cstring>
#include <type_traits>

#include "blocks.h"

namespace {

typedef std::uint8_t Sixteen __attribute__((vector_size(16)));
typedef std::uint16_t Raw __attribute__((vector_size(16)));  // scales of 8 blocks, as they are in them
typedef std::uint64_t Words __attribute__((vector_size(16)));

template <class T>
inline T read(const void *at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

// Bytes: 32 neighbours. Groups: what goes with 16 groups of a block, or with 8. Floats and Ints: of 8 outputs.
#if defined(__x86_64__)
#include "blocks_x86.h"
#else
#include "blocks_neon.h"
#endif

namespace {

inline std::uint16_t half(const std::uint8_t *at) { return read<std::uint16_t>(at); }

struct Halves {  // scales in float16
  static Floats wide(Raw raw) { return halves(raw); }
};

// ------------------------------------------------------------------------------------------------ 32 neighbours

// ZERO: the code that stands for 0. MIN: whether m is added. MOST: the largest code. CODES: where those of 4 bits begin,
// of which there is nothing more; VALUES: what they are looked up in.
struct Q4_0 : Halves {
  static constexpr int BYTES = 18, ZERO = 8, MOST = 15;
  static constexpr bool MIN = false;
  static constexpr int CODES = 2;
  static Bytes codes(const std::uint8_t *b) { return nibbles(b + 2); }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b); }
};

struct Q4_1 : Halves {
  static constexpr int BYTES = 20, ZERO = 0, MOST = 15;
  static constexpr bool MIN = true;
  static constexpr int CODES = 4;
  static Bytes codes(const std::uint8_t *b) { return nibbles(b + 4); }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b); }
  static std::uint16_t minimum(const std::uint8_t *b) { return half(b + 2); }
};

struct Q5_0 : Halves {
  static constexpr int BYTES = 22, ZERO = 16, MOST = 31;
  static constexpr bool MIN = false;
  static Bytes codes(const std::uint8_t *b) { return nibbles(b + 6) | fifth_bits(b + 2); }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b); }
};

struct Q5_1 : Halves {
  static constexpr int BYTES = 24, ZERO = 0, MOST = 31;
  static constexpr bool MIN = true;
  static Bytes codes(const std::uint8_t *b) { return nibbles(b + 8) | fifth_bits(b + 4); }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b); }
  static std::uint16_t minimum(const std::uint8_t *b) { return half(b + 2); }
};

struct Q8_0 : Halves {
  static constexpr int BYTES = 34, ZERO = 128, MOST = 255;
  static constexpr bool MIN = false;
  static Bytes codes(const std::uint8_t *b) { return read<Bytes>(b + 2) ^ (std::uint8_t)128; }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b); }
};

constexpr std::uint8_t NONLINEAR[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};  // + 128

struct IQ4_NL : Halves {
  static constexpr int BYTES = 18, ZERO = 128, MOST = 241;
  static constexpr bool MIN = false;
  static constexpr int CODES = 2;
  static constexpr const std::uint8_t (&VALUES)[16] = NONLINEAR;
  static Bytes codes(const std::uint8_t *b) { return looked_up(NONLINEAR, nibbles(b + 2)); }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b); }
};

constexpr std::uint8_t E2M1_TWICE[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};  // + 12

struct MXFP4 {
  static constexpr int BYTES = 17, ZERO = 12, MOST = 24;
  static constexpr bool MIN = false;
  static constexpr int CODES = 1;
  static constexpr const std::uint8_t (&VALUES)[16] = E2M1_TWICE;
  static Bytes codes(const std::uint8_t *b) { return looked_up(E2M1_TWICE, nibbles(b + 1)); }
  static std::uint16_t scale(const std::uint8_t *b) { return b[0]; }
  static Floats wide(Raw raw) { return powers(raw); }
};

// ------------------------------------------------------------------------------------------------ 256 neighbours

// GROUP: numbers with one s_g and m_g. s_g are in `s` from its first place on; m_g in `m`, 8 of them in its upper half.
// Without MIN, m_g is ZERO s_g, and d scales both.

struct Q4_K : Halves {
  static constexpr int BYTES = 144, ZERO = 0, MOST = 15, GROUP = 32;
  static constexpr bool MIN = true;
  static void codes(const std::uint8_t *b, Bytes (&q)[8]) {
    for (int i = 0; i < 4; i++) {
      const Bytes both = read<Bytes>(b + 16 + 32 * i);
      q[2 * i] = both & 15;
      q[2 * i + 1] = down<4>(both, 15);
    }
  }
  static void groups(const std::uint8_t *b, Groups &s, Groups &m) { six_bits(b + 4, s, m); }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b); }
  static std::uint16_t minimum(const std::uint8_t *b) { return half(b + 2); }
};

struct Q5_K : Halves {
  static constexpr int BYTES = 176, ZERO = 0, MOST = 31, GROUP = 32;
  static constexpr bool MIN = true;
  static void codes(const std::uint8_t *b, Bytes (&q)[8]) {
    const Bytes fifth = read<Bytes>(b + 16);
    for (int i = 0; i < 4; i++) {
      const Bytes both = read<Bytes>(b + 48 + 32 * i);
      const Bytes low = fifth >> (std::uint8_t)(2 * i) & 1, high = fifth >> (std::uint8_t)(2 * i + 1) & 1;
      q[2 * i] = (both & 15) | upward<4>(low);
      q[2 * i + 1] = down<4>(both, 15) | upward<4>(high);
    }
  }
  static void groups(const std::uint8_t *b, Groups &s, Groups &m) { six_bits(b + 4, s, m); }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b); }
  static std::uint16_t minimum(const std::uint8_t *b) { return half(b + 2); }
};

struct Q6_K : Halves {
  static constexpr int BYTES = 210, ZERO = 32, MOST = 63, GROUP = 16;
  static constexpr bool MIN = false;
  static void codes(const std::uint8_t *b, Bytes (&q)[8]) {
    for (int i = 0; i < 2; i++) {
      const Bytes first = read<Bytes>(b + 64 * i), second = read<Bytes>(b + 64 * i + 32);
      const Bytes high = read<Bytes>(b + 128 + 32 * i);
      q[4 * i] = (first & 15) | upward<4>(high & 3);
      q[4 * i + 1] = (second & 15) | upward<2>(high & 12);
      q[4 * i + 2] = down<4>(first, 15) | (high & 48);
      q[4 * i + 3] = down<4>(second, 15) | down<2>(high, 48);
    }
  }
  static void groups(const std::uint8_t *b, Groups &s, Groups &m) {
    s = sixteen_signed(read<Sixteen>(b + 192));
    m = s << 5;
  }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b + 208); }
};

struct Q2_K : Halves {
  static constexpr int BYTES = 84, ZERO = 0, MOST = 3, GROUP = 16;
  static constexpr bool MIN = true;
  static void codes(const std::uint8_t *b, Bytes (&q)[8]) {
    for (int i = 0; i < 2; i++) {
      const Bytes four = read<Bytes>(b + 16 + 32 * i);
      q[4 * i] = four & 3;
      q[4 * i + 1] = down<2>(four, 3);
      q[4 * i + 2] = down<4>(four, 3);
      q[4 * i + 3] = down<6>(four, 3);
    }
  }
  static void groups(const std::uint8_t *b, Groups &s, Groups &m) {
    const Sixteen both = read<Sixteen>(b);
    s = sixteen_groups(both & 15);
    m = sixteen_groups(both >> 4);
  }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b + 80); }
  static std::uint16_t minimum(const std::uint8_t *b) { return half(b + 82); }
};

struct Q3_K : Halves {
  static constexpr int BYTES = 110, ZERO = 4, MOST = 7, GROUP = 16;
  static constexpr bool MIN = false;
  static void codes(const std::uint8_t *b, Bytes (&q)[8]) {
    const Bytes third = read<Bytes>(b);
    for (int i = 0; i < 2; i++) {
      const Bytes four = read<Bytes>(b + 32 + 32 * i);
      const Bytes low[4] = {four & 3, down<2>(four, 3), down<4>(four, 3), down<6>(four, 3)};
      for (int j = 0; j < 4; j++) q[4 * i + j] = low[j] | upward<2>(third >> (std::uint8_t)(4 * i + j) & 1);
    }
  }
  static void groups(const std::uint8_t *b, Groups &s, Groups &m) {
    const std::uint64_t low = read<std::uint64_t>(b + 96);
    const std::uint32_t high = read<std::uint32_t>(b + 104);
    const std::uint64_t first = (low & 0x0f0f0f0f0f0f0f0f) | (std::uint64_t)(high << 4 & 0x30303030) |
                                (std::uint64_t)(high << 2 & 0x30303030) << 32;
    const std::uint64_t second = (low >> 4 & 0x0f0f0f0f0f0f0f0f) | (std::uint64_t)(high & 0x30303030) |
                                 (std::uint64_t)(high >> 2 & 0x30303030) << 32;
    s = sixteen_groups((Sixteen)Words{first, second}) - 32;
    m = s << 2;
  }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b + 108); }
};

struct IQ4_XS : Halves {
  static constexpr int BYTES = 136, ZERO = 128, MOST = 241, GROUP = 32;
  static constexpr bool MIN = false;
  static void codes(const std::uint8_t *b, Bytes (&q)[8]) {
    for (int i = 0; i < 8; i++) q[i] = looked_up(NONLINEAR, nibbles(b + 8 + 16 * i));
  }
  static void groups(const std::uint8_t *b, Groups &s, Groups &m) {
    std::uint64_t low = read<std::uint32_t>(b + 4), high = read<std::uint16_t>(b + 2);  // 8 of 4 bits, 8 of 2: to bytes
    low = (low | low << 16) & 0x0000ffff0000ffff, high = (high | high << 24) & 0x000000ff000000ff;
    low = (low | low << 8) & 0x00ff00ff00ff00ff, high = (high | high << 12) & 0x000f000f000f000f;
    low = (low | low << 4) & 0x0f0f0f0f0f0f0f0f, high = (high | high << 6) & 0x0303030303030303;
    const std::uint64_t both = low | high << 4;
    const Groups upper = {1, 1, 1, 1, 1, 1, 1, 1, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO};
    s = m = (sixteen_groups((Sixteen)Words{both, both}) - 32) * upper;
  }
  static std::uint16_t scale(const std::uint8_t *b) { return half(b); }
};

}  // namespace
