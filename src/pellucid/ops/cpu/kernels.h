// What the files of this folder share. A plain C interface: no header of torch or Python.

#pragma once

#include <cstdint>

// Everything in float32, or in bfloat16; then W is [out / wide, depth / 2, wide, 2].
struct Product {
  const void *w;     // [out / wide, depth, wide], zeros behind the last output and the last input
  const void *x;     // [rows, in]
  const void *bias;  // [out], or null
  void *y;           // [rows, out]
  std::int64_t rows, out, in;
  std::int64_t depth;  // inputs that a panel has room for
  std::int64_t wide;   // outputs that lie side by side
  std::int64_t block;  // products summed before they join the total
  std::int64_t half;   // bfloat16
};

// Panels `begin` to `end` of a product; false where `wide` is more than the level was written for.
typedef bool (*Level)(const Product &, std::int64_t begin, std::int64_t end);

bool few_rows_avx2(const Product &, std::int64_t begin, std::int64_t end);
bool few_rows_avx512(const Product &, std::int64_t begin, std::int64_t end);
bool few_rows_dot(const Product &, std::int64_t begin, std::int64_t end);
bool few_rows_neon(const Product &, std::int64_t begin, std::int64_t end);

typedef std::uint16_t Half;  // the bits of a bfloat16

// How the numbers of a matrix lie: those of 4 bits with the first of two in the high or in the low half of a byte.
enum Lie { BFLOAT16, FLOAT16, HIGH_FIRST, LOW_FIRST, SIGNED, FLOAT8 };

// Scales, and what is added to zero before them, are [out / height, groups]. Scales may be packed in turn: then they are
// map[packed] · nested + offset, with one `nested` for 2^nest of them.
struct Matrix {
  const void *numbers;  // [out, in], rows `stride` bytes apart
  std::int64_t stride;
  std::int64_t lie;
  std::int64_t group, height, groups;  // numbers side by side, and rows, that share a scale; groups of a row
  const float *values;                 // [16], of 4 bits: what they stand for
  const float *scales, *zeros;         // or null
  const std::uint8_t *packed;
  const float *map, *nested;
  std::int64_t nest;
  float offset;
};

struct RowProduct {
  Matrix w;
  const void *x;     // [rows, in], rows x_stride values apart
  const void *bias;  // [out], or null
  void *y;           // [rows, out]
  std::int64_t rows, out, in, x_stride;
  bool half;  // x, bias and y are bfloat16, not float32
};

// Outputs `begin` to `end` of a product; `begin` is a multiple of 4. False where the level has no such product.
typedef bool (*RowLevel)(const RowProduct &, std::int64_t begin, std::int64_t end);

bool bfloat16_avx2(const RowProduct &, std::int64_t begin, std::int64_t end);
bool bfloat16_avx512(const RowProduct &, std::int64_t begin, std::int64_t end);
bool bfloat16_dot(const RowProduct &, std::int64_t begin, std::int64_t end);
bool bfloat16_neon(const RowProduct &, std::int64_t begin, std::int64_t end);
bool bfloat16_neon_dot(const RowProduct &, std::int64_t begin, std::int64_t end);
