// Attention over a paged cache: what its files share. A plain C interface: no header of torch or Python.

#pragma once

#include <cstdint>

constexpr int TILE = 64;          // keys that a softmax takes at a time; tiles begin at multiples of it
constexpr int BLOCK = 64;         // queries that share a key head and pass over its keys together
constexpr int MOST_QUERIES = 64;  // of a piece
constexpr int WIDEST_PAIR = 32;   // channels that any level loads together

struct Bf16 {
  std::uint16_t bits;
};

struct F16 {
  std::uint16_t bits;
};

// Pages in few bits, dense: x = low + step * code. Keys have a `low` and a `step` for each channel of a page, values for
// each token of it; with 4 bits a byte holds two tokens, the earlier one in its lower half.
struct Codes {
  const std::uint8_t *k, *v;  // [pages, page, kv_heads, channels or values]; with 4 bits [pages, page / 2, ...]
  const Bf16 *k_low, *k_step;  // [pages, kv_heads, channels]
  const Bf16 *v_low, *v_step;  // [pages, page, kv_heads]
  std::int64_t pages, bits;    // bits 0: there are none
};

// As Python packs it (paged.py): 8 bytes each, in this order. Steps are in elements.
struct Attending {
  const void *q;                // [queries, heads, channels], dense
  const void *k, *v;            // [pages, page, kv_heads, channels or values]
  void *out;                    // [queries, heads, values], dense
  const std::int32_t *tables;   // [rows, entries]: the page of each `page` tokens of a row, or the complement (~) of that
                                // of codes; null for rows without pages
  const std::int64_t *starts;   // [rows]: without pages, the first of a row's keys among all [pages]; `page` is 1
  const std::int64_t *lengths;  // [rows]: queries of a row, the last ones of its tokens
  const std::int64_t *ends;     // [rows]: tokens of a row
  const float *sinks, *slopes;  // [heads], or null
  const float *const *biases;   // for each row [heads, length, end], or null
  const std::int64_t *bias_steps;  // for each row: to the next head, to the next query
  std::int64_t numbers;            // what q, k, v and out are: 0 float32, 1 bfloat16; 2 float32, but k and v float16
  std::int64_t rows, queries, entries, pages, page, heads, kv_heads, channels, values;
  std::int64_t k_page_step, k_token_step, k_head_step, v_page_step, v_token_step, v_head_step;
  std::int64_t window, chunk;  // 0 for none
  std::int64_t causal;         // whether a query sees no later key; else a window reaches to both sides
  double scale, cap;           // 0 for no cap
  Codes codes;
};

// New keys and values for the pools; packed like the above.
struct Writing {
  void *k, *v;                  // [pages, page, kv_heads, channels or values]
  const void *new_k, *new_v;    // [tokens, kv_heads, channels or values], dense
  const std::int64_t *slots;    // [tokens]: page * tokens of a page + place in the page
  std::int64_t tokens, bytes;   // of a number
  std::int64_t pages, page, kv_heads, channels, values;
  std::int64_t k_page_step, k_token_step, k_head_step, v_page_step, v_token_step, v_head_step;
};

// Queries of a row, for some key heads: `count` for each, from `begin` on. Query m of a key head is that of token m / R
// and of head m % R of the group, R = heads / kv_heads. At most BLOCK for a head and MOST_QUERIES together.
struct Piece {
  std::int64_t row, begin, count;
  std::int64_t kv_begin, kv_end;
  std::int64_t first_token;  // of the row, in q and out
};

// (static: a file compiled for newer processors must not lend its copy to others.)
// Position of the earliest key that the query at `position` sees.
static inline std::int64_t first_seen(const Attending &a, std::int64_t position) {
  std::int64_t first = 0;
  if (a.window && position - a.window + a.causal > first) first = position - a.window + a.causal;
  if (a.chunk && position / a.chunk * a.chunk > first) first = position / a.chunk * a.chunk;
  return first;
}

// Position of the latest key that it sees, in a row of `end` tokens.
static inline std::int64_t last_seen(const Attending &a, std::int64_t position, std::int64_t end) {
  if (a.causal) return position;
  std::int64_t last = end - 1;
  if (a.window && position + a.window < last) last = position + a.window;
  if (a.chunk && (position / a.chunk + 1) * a.chunk - 1 < last) last = (position / a.chunk + 1) * a.chunk - 1;
  return last;
}

// Floats that a piece needs as scratch, in whole lines of memory.
static inline std::int64_t scratch_of(const Attending &a) {
  const std::int64_t whole = a.channels / WIDEST_PAIR + a.values / WIDEST_PAIR + 2;
  return BLOCK * TILE + 2 * (MOST_QUERIES + TILE) * whole * WIDEST_PAIR;
}

typedef void (*Attention)(const Attending &, const Piece &, float *scratch);

void attention_avx2(const Attending &, const Piece &, float *scratch);
void attention_avx512(const Attending &, const Piece &, float *scratch);
void attention_dot(const Attending &, const Piece &, float *scratch);
void attention_neon(const Attending &, const Piece &, float *scratch);
