// Products with GGUF's blocks, bit for bit: blocks are unpacked number by number, as ggml's formats say, sums are whole
// numbers, and what follows is the chain of float operations that blocks.h promises on every processor.

#include "../../../src/pellucid/ops/cpu/blocks.h"

#include "common.h"

extern "C" {
int pellucid_blocks_has(Size, int);
Size pellucid_blocks_scratch(Size);
int pellucid_blocks(const BlockProduct *, int, int);
}

namespace {

enum Kind {
  Q4_0 = 2, Q4_1, Q5_0 = 6, Q5_1, Q8_0, Q2_K = 10, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL = 20, IQ4_XS = 23, MXFP4 = 39
};  // as ggml numbers them

struct Format {
  Kind kind;
  Size bytes, block, group;  // numbers that share a scale in float16, and one in whole numbers
  int halves[2];             // where those in float16 are, the minimum's second; -1: none
};

const Format FORMATS[] = {
    {Q4_0, 18, 32, 32, {0, -1}},     {Q4_1, 20, 32, 32, {0, 2}},      {Q5_0, 22, 32, 32, {0, -1}},
    {Q5_1, 24, 32, 32, {0, 2}},      {Q8_0, 34, 32, 32, {0, -1}},     {Q2_K, 84, 256, 16, {80, 82}},
    {Q3_K, 110, 256, 16, {108, -1}}, {Q4_K, 144, 256, 32, {0, 2}},    {Q5_K, 176, 256, 32, {0, 2}},
    {Q6_K, 210, 256, 16, {208, -1}}, {IQ4_NL, 18, 32, 32, {0, -1}},   {IQ4_XS, 136, 256, 32, {0, -1}},
    {MXFP4, 17, 32, 32, {-1, -1}},
};

const int NONLINEAR[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int E2M1_TWICE[] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

float half_at(const std::uint8_t *at) { return number16(at[0] | at[1] << 8); }

int nibble(const std::uint8_t *at, int i, int apart) {  // of 2 * apart numbers in `apart` bytes
  return at[i / (2 * apart) * apart + i % apart] >> (i / apart % 2 * 4) & 15;
}

int bit(const std::uint8_t *at, int i) { return at[i / 8] >> i % 8 & 1; }

// Number i of a block, as a whole one.
int value(Kind kind, const std::uint8_t *b, int i) {
  switch (kind) {
    case Q4_0: return nibble(b + 2, i, 16) - 8;
    case Q4_1: return nibble(b + 4, i, 16);
    case Q5_0: return (nibble(b + 6, i, 16) | bit(b + 2, i) << 4) - 16;
    case Q5_1: return nibble(b + 8, i, 16) | bit(b + 4, i) << 4;
    case Q8_0: return std::int8_t(b[2 + i]);
    case Q2_K: return b[16 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
    case Q3_K: return (b[32 + i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3) - (b[i % 32] >> i / 32 & 1 ? 0 : 4);
    case Q4_K: return nibble(b + 16, i, 32);
    case Q5_K: return nibble(b + 48, i, 32) | (b[16 + i % 32] >> i / 32 & 1) << 4;
    case Q6_K: {
      const int j = i % 128, low = b[i / 128 * 64 + j % 64] >> j / 64 * 4 & 15;
      return (low | (b[128 + i / 128 * 32 + j % 32] >> j / 32 * 2 & 3) << 4) - 32;
    }
    case IQ4_NL: return NONLINEAR[nibble(b + 2, i, 16)];
    case IQ4_XS: return NONLINEAR[nibble(b + 8, i, 16)];
    default: return E2M1_TWICE[nibble(b + 1, i, 16)];
  }
}

// What numbers of group g are multiplied with, and what of the minimum is taken off them: whole numbers.
void group(Kind kind, const std::uint8_t *b, int g, int &scale, int &minimum) {
  scale = 1, minimum = 0;
  if (kind == Q2_K) scale = b[g] & 15, minimum = b[g] >> 4;
  if (kind == Q3_K) scale = ((b[96 + g % 8] >> g / 8 * 4 & 15) | (b[104 + g % 4] >> g / 4 * 2 & 3) << 4) - 32;
  if (kind == Q6_K) scale = std::int8_t(b[192 + g]);
  if (kind == IQ4_XS) scale = ((b[4 + g / 2] >> g % 2 * 4 & 15) | (b[2 + g / 4] >> g % 4 * 2 & 3) << 4) - 32;
  if (kind != Q4_K && kind != Q5_K) return;
  const std::uint8_t *s = b + 4;
  scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
  minimum = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
}

// A row of x in whole numbers, with a scale for each block.
struct Whole {
  std::vector<int> numbers;
  std::vector<float> scales;
};

Whole rounded(const float *x, Size in, Size block) {
  Whole found;
  for (Size k = 0; k < in; k += block) {
    float most = 0;
    for (Size i = k; i < k + block; i++) most = std::fmax(most, std::fabs(x[i]));
    const float scale = most / 127, inverse = scale > 0 ? 1 / scale : 0;
    found.scales.push_back(scale);
    for (Size i = k; i < k + block; i++)
      found.numbers.push_back(int(std::fma(x[i], inverse, 12582912.0f) - 12582912.0f));
  }
  return found;
}

float product(const Format &f, const std::uint8_t *w, const Whole &x) {
  float y = 0;
  for (Size b = 0; b < Size(x.scales.size()); b++, w += f.bytes) {
    int whole = 0, below = 0, sum = 0;
    for (Size i = 0; i < f.block; i++) {
      int scale, minimum;
      group(f.kind, w, i / f.group, scale, minimum);
      const int number = x.numbers[b * f.block + i];
      whole += scale * value(f.kind, w, i) * number;
      below -= minimum * number;
      sum += number;
    }
    const float d = f.kind == MXFP4 ? std::ldexp(0.5f, w[0] - 127) : half_at(w + f.halves[0]);
    if (f.halves[1] >= 0) {
      const float m = half_at(w + f.halves[1]);
      y = f.block == 32 ? std::fma(m, x.scales[b] * sum, y) : std::fma(float(below), m * x.scales[b], y);
    }
    y = std::fma(float(whole), d * x.scales[b], y);
  }
  return y;
}

// Any bytes, but for the scales; some blocks with the largest of numbers.
std::vector<std::uint8_t> any(const Format &f, Size blocks) {
  std::vector<std::uint8_t> found(blocks * f.bytes);
  for (Size b = 0; b < blocks; b++) {
    std::uint8_t *at = found.data() + b * f.bytes;
    for (Size i = 0; i < f.bytes; i++) at[i] = b % 7 == 3 ? 0xff : b % 7 == 5 ? 0 : chance();
    for (int where : f.halves)
      if (where >= 0) at[where] = chance(), at[where + 1] = (chance() & 0x80) | (b % 5 ? 0x18 + chance() % 8 : 0);
    if (f.kind == MXFP4) at[0] = b % 3 ? chance() % 131 : b / 3 % 4;
  }
  return found;
}

template <class T>
void same_bits(const Format &f, int level, Size most, Size out, Size in, bool biased) {
  const Size row_bytes = in / f.block * f.bytes, stride = in + 3;
  const std::vector<std::uint8_t> w = any(f, out * in / f.block);
  std::vector<float> values = floats(most * stride);
  if (in > 32) std::fill(values.begin(), values.begin() + 32, 0.0f);
  std::vector<T> x(values.size()), bias(out), wanted(most * out);
  const auto number = [](T one) {
    if constexpr (sizeof(T) == 2)
      return wide(one);
    else
      return one;
  };
  const auto kept = [](float one) {
    if constexpr (sizeof(T) == 2)
      return narrow(one);
    else
      return one;
  };
  for (std::size_t i = 0; i < x.size(); i++) x[i] = kept(values[i]), values[i] = number(x[i]);
  for (T &one : bias) one = kept(noise());
  for (Size m = 0; m < most; m++) {
    const Whole whole = rounded(values.data() + m * stride, in, f.block);
    for (Size o = 0; o < out; o++) {
      const float y = product(f, w.data() + o * row_bytes, whole);
      wanted[m * out + o] = kept(biased ? y + number(bias[o]) : y);
    }
  }
  for (Size rows = 1; rows <= most; rows++) {
    std::vector<std::uint8_t> room(rows * pellucid_blocks_scratch(in) + 64);
    std::uint8_t *scratch = room.data() + (64 - (std::uintptr_t)room.data() % 64);
    std::vector<T> y(rows * out);
    const BlockProduct work{w.data(), x.data(), biased ? bias.data() : nullptr, y.data(), scratch, rows, out, in,
                            row_bytes, stride, f.kind, sizeof(T) == 2};
    const int refused = pellucid_blocks(&work, level, 1 + rows % 2);
    check(!refused && same(y, {wanted.begin(), wanted.begin() + rows * out}),
          "blocks of kind %g, level %g: %g rows by %g numbers", f.kind, level, rows, in);
  }
}

}  // namespace

void check_blocks() {
  int found = 0;
  for (int level = 1; level < 5; level++) {
    if (!pellucid_blocks_has(Q8_0, level)) continue;
    found++;
    for (const Format &f : FORMATS) {
      same_bits<float>(f, level, 9, 37, f.block, false);
      same_bits<float>(f, level, 5, 8, f.block == 32 ? 11 * 32 : 3 * 256, true);
      same_bits<Half>(f, level, 3, 3, f.block == 32 ? 256 : 512, true);
    }
  }
  check(found > 0, "no kernels for blocks");
}
