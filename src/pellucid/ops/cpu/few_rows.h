// y = x W^T + b for few rows of x in float32, W in panels of `wide` outputs: for one instruction level. A level's file
// sets LEVEL, WIDTH (floats in a vector) and MOST_ROWS, and includes this.
//
// W streams through once, in the order in which it lies: that is all the time there is to save. Each output is a chain
// of multiply-adds in the order of k, `block` of them at a time, as in oneDNN's product for many rows; so both give the
// same bits, and which of them runs may depend on the number of rows. (Python compares them, for every matrix.)

#include "kernels.h"

namespace {

constexpr int MOST_VECTORS = 64 / WIDTH;

typedef float Vector __attribute__((vector_size(WIDTH * 4)));
typedef float Loose __attribute__((vector_size(WIDTH * 4), aligned(4)));

// One panel: M rows of x, V vectors of outputs.
template <int M, int V>
void panel(const Product &p, std::int64_t which) {
  const float *w = p.w + which * p.depth * p.wide;
  Vector total[M][V] = {};
  for (std::int64_t k = 0; k < p.in;) {
    const std::int64_t end = k + p.block < p.in ? k + p.block : p.in;
    const bool first = k == 0;
    Vector sum[M][V] = {};
    for (; k < end; k++, w += V * WIDTH)
      for (int v = 0; v < V; v++) {
        const Vector column = *(const Loose *)(w + v * WIDTH);
        for (int m = 0; m < M; m++) sum[m][v] += column * p.x[m * p.in + k];  // rounded once: -ffp-contract=fast
      }
    for (int m = 0; m < M; m++)
      for (int v = 0; v < V; v++) total[m][v] = first ? sum[m][v] : total[m][v] + sum[m][v];
  }
  const std::int64_t from = which * p.wide, count = from + p.wide < p.out ? p.wide : p.out - from;
  for (int m = 0; m < M; m++) {
    float y[V * WIDTH];
    for (int v = 0; v < V; v++) *(Loose *)(y + v * WIDTH) = total[m][v];
    float *to = p.y + m * p.out + from;
    for (std::int64_t o = 0; o < count; o++) to[o] = p.bias ? y[o] + p.bias[from + o] : y[o];
  }
}

template <int M, int V>
bool panels(const Product &p, std::int64_t begin, std::int64_t end) {
  if (p.rows == M && p.wide == V * WIDTH) {
    for (std::int64_t which = begin; which < end; which++) panel<M, V>(p, which);
    return true;
  }
  if constexpr (V > 1) return panels<M, V - 1>(p, begin, end);
  if constexpr (M > 1) return panels<M - 1, MOST_VECTORS>(p, begin, end);
  return false;
}

}  // namespace

bool LEVEL(const Product &p, std::int64_t begin, std::int64_t end) {
  return panels<MOST_ROWS, MOST_VECTORS>(p, begin, end);
}
