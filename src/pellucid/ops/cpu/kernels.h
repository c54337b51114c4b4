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
