// What the files of the elementwise kernels share. A plain C interface: no header of torch or Python. Everything is
// dense, the last dimension innermost.

#pragma once

#include <cstdint>

typedef std::uint16_t Bf16;  // the bits of a bfloat16

// How a kernel runs.
struct Running {
  std::int32_t bf16;  // or float
  std::int32_t level, threads;
};

struct Norming {
  const void *x;       // [rows, width]
  const void *weight;  // [width], or null
  const void *bias;    // [width], or null: of rows that are centred
  void *y;             // [rows, width]
  std::int64_t rows, width;
  float eps, offset;         // the offset is added to the weight, but of rows that are centred
  std::int32_t round_first;  // to x's type before the product with the weight, not after it
  std::int32_t centred;      // the mean of a row is taken away first
  Running how;
};

struct Turning {
  const void *x;          // [rows, heads, width]
  const void *cos, *sin;  // [rows, turned]; sin with its sign
  void *y;                // [rows, heads, width]
  std::int64_t rows, heads, width, turned;
  std::int32_t interleaved;  // partners are neighbours, not half of the turned channels apart
  Running how;
};

struct Looking {
  const Bf16 *x;      // [rows, width]
  const Bf16 *times;  // [rows, width], or null
  const Bf16 *table;  // a function's value for each bfloat16
  Bf16 *y;            // [rows, width]
  std::int64_t rows, width;
  Running how;
};

// What `Pointwise` computes of numbers at the same place. Activations are for float only (those of bfloat16 are looked
// up), and so is HALVED: float16.
enum Point { SUM, PRODUCT, SCALED, SILU, GELU_TANH, GELU_QUICK, HALVED };  // as in elementwise.py

struct Pointwise {
  const void *x;         // [rows, width]
  const void *y;         // [rows, width]: the other summand or factor; null for an activation that is not multiplied
  void *out;             // [rows, width]
  std::int64_t rows, width;
  float factor;          // of SCALED
  std::int32_t point;
  Running how;
};

// One instruction level's kernels, for rows `begin` to `end`.
struct Elementwise {
  void (*norm)(const Norming &, std::int64_t begin, std::int64_t end);
  void (*turn)(const Turning &, std::int64_t begin, std::int64_t end);
  void (*look_up)(const Looking &, std::int64_t begin, std::int64_t end);
  void (*pointwise)(const Pointwise &, std::int64_t begin, std::int64_t end);
};

extern const Elementwise elementwise_avx2, elementwise_avx512, elementwise_neon;
