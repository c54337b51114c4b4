// y = x W^T + b where W is in GGUF's blocks and stays so. x is rounded to 8 bits, as the format's own engine does, and
// products are summed as integers: exactly, in any order. What is left are a few float operations for each block, the
// same chain of them in every path, so a row's bits do not depend on its company, on threads or on the processor.
//
// There are two sorts of blocks:
//     32 numbers    d (q - ZERO) + m       x has a scale for 32 numbers, y a float operation or two for each block
//     256 numbers   d s_g (q - ZERO) - dmin m_g   with small whole s_g and m_g for 16 or 32 numbers: x has a scale for 256

#pragma once

#include <cstdint>

struct BlockProduct {
  const std::uint8_t *w;  // [out, row_bytes]
  const void *x;          // [rows, in], float or bfloat16, rows x_stride values apart
  const void *bias;       // [out], of the same type, or null
  void *y;                // [rows, out], of the same type
  std::uint8_t *scratch;  // rows * kept_bytes(in): x in 8 bits
  std::int64_t rows, out, in, row_bytes, x_stride;
  std::int64_t kind;      // as ggml numbers them
  std::int64_t bfloat16;  // whether x, bias and y are bfloat16
};

// A row of x in 8 bits, and behind it what goes with 32, 16 or 256 of its numbers. All parts begin at multiples of 64.
struct Kept {
  std::int8_t *q;       // [in]
  float *scale;         // [in / 32 or in / 256]
  std::int32_t *start;  // [in / 32]: -ZERO times the sum of q
  float *sum;           // [in / 32]: the sum of q, times the scale
  std::int16_t *sums;   // [in / 256, 16]: of 16 numbers, or 8 of 32 and zeros
  std::int8_t *turned;  // [in]: q of 16 blocks, four and four: the first halves of four, then the second ones
};

constexpr std::int64_t up(std::int64_t n) { return (n + 63) / 64 * 64; }

constexpr std::int64_t kept_bytes(std::int64_t in) { return up(in) + up(in / 8) * 4 + (in + 511) / 512 * 512; }

inline Kept kept(std::uint8_t *scratch, std::int64_t in, std::int64_t row) {
  std::uint8_t *at = scratch + row * kept_bytes(in);
  Kept k;
  k.q = (std::int8_t *)at;
  k.scale = (float *)(at + up(in));
  k.start = (std::int32_t *)(at + up(in) + up(in / 8));
  k.sum = (float *)(at + up(in) + 2 * up(in / 8));
  k.sums = (std::int16_t *)(at + up(in) + 3 * up(in / 8));
  k.turned = (std::int8_t *)(at + up(in) + 4 * up(in / 8));
  return k;
}

// x of blocks `begin` to `end` (each 256 numbers, the last perhaps fewer) in all rows, into the scratch.
typedef void (*Keep)(const BlockProduct &, std::int64_t begin, std::int64_t end);
// Outputs `begin` to `end`; `begin` is a multiple of 32.
typedef void (*Multiply)(const BlockProduct &, std::int64_t begin, std::int64_t end);

struct BlockKernel {
  Keep keep;
  Multiply multiply;
};

BlockKernel blocks_avx2(std::int64_t kind);  // nulls for a kind that it has not
BlockKernel blocks_avx512(std::int64_t kind);
BlockKernel blocks_neon(std::int64_t kind);
BlockKernel blocks_neon_dot(std::int64_t kind);
