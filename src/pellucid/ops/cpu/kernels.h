// What the files of this folder share. A plain C interface: no header of torch or Python.

#pragma once

#include <cstdint>

struct Product {
  const float *w;     // [out / wide, depth, wide], zeros behind the last output
  const float *x;     // [rows, in]
  const float *bias;  // [out], or null
  float *y;           // [rows, out]
  std::int64_t rows, out, in;
  std::int64_t depth;  // inputs that a panel has room for
  std::int64_t wide;   // outputs that lie side by side
  std::int64_t block;  // products summed before they join the total
};

// Panels `begin` to `end` of a product; false where rows or `wide` are more than the level was written for.
typedef bool (*Level)(const Product &, std::int64_t begin, std::int64_t end);

bool few_rows_avx2(const Product &, std::int64_t begin, std::int64_t end);
bool few_rows_avx512(const Product &, std::int64_t begin, std::int64_t end);
bool few_rows_neon(const Product &, std::int64_t begin, std::int64_t end);

typedef std::uint16_t Half;  // the bits of a bfloat16

struct HalfProduct {
  const Half *w;     // [out, in], rows w_stride values apart
  const Half *x;     // [rows, in], rows x_stride values apart
  const Half *bias;  // [out], or null
  Half *y;           // [rows, out]
  std::int64_t rows, out, in, w_stride, x_stride;
};

// Outputs `begin` to `end` of a product; `begin` is a multiple of 4.
typedef void (*HalfLevel)(const HalfProduct &, std::int64_t begin, std::int64_t end);

void bfloat16_avx2(const HalfProduct &, std::int64_t begin, std::int64_t end);
void bfloat16_avx512(const HalfProduct &, std::int64_t begin, std::int64_t end);
void bfloat16_dot(const HalfProduct &, std::int64_t begin, std::int64_t end);
