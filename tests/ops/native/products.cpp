// Products and tables against the definition, bit for bit where the order of the sums is promised.

#include "common.h"

extern "C" {
int pellucid_vector();
int pellucid_few_rows(const void *, const void *, const void *, void *, Size, Size, Size, Size, Size, Size, int, int);
int pellucid_bfloat16_best();
int pellucid_bfloat16(const Half *, const Half *, const Half *, Half *, Size, Size, Size, Size, Size, int, int);
void pellucid_lookup4(const std::uint8_t *, const float *, const float *, void *, Size, Size, int, int);
}

namespace {

// `block` multiply-adds at a time, in the order of k.
void few_rows(Size rows, Size out, Size in, Size wide, Size block, bool bias, int threads) {
  const Size panels = (out + wide - 1) / wide, depth = in + 3;
  const std::vector<float> x = floats(rows * in), w = floats(out * in), b = floats(out);
  std::vector<float> packed(panels * depth * wide), y(rows * out), wanted(rows * out);
  for (Size o = 0; o < out; o++)
    for (Size k = 0; k < in; k++) packed[(o / wide * depth + k) * wide + o % wide] = w[o * in + k];
  for (Size m = 0; m < rows; m++)
    for (Size o = 0; o < out; o++) {
      float total = 0;
      for (Size from = 0; from < in; from += block) {
        float sum = 0;
        for (Size k = from; k < in && k < from + block; k++) sum = std::fma(w[o * in + k], x[m * in + k], sum);
        total = from ? total + sum : sum;
      }
      wanted[m * out + o] = bias ? total + b[o] : total;
    }
  const int refused = pellucid_few_rows(packed.data(), x.data(), bias ? b.data() : nullptr, y.data(), rows, out, in, depth,
                                        wide, block, false, threads);
  check(!refused && same(y, wanted), "few rows: %g by %g of %g, panels of %g", rows, out, in, wide);
}

// In bfloat16, two inputs of each output side by side; a row alone has the bits that it has among others.
void few_rows_in_pairs(Size rows, Size out, Size in, Size beside, Size block, bool bias, int threads) {
  const Size panels = (out + beside - 1) / beside, depth = (in + 3) / 2 * 2;
  const std::vector<Half> x = halves(rows * in), w = halves(out * in), b = halves(out);
  std::vector<Half> packed(panels * depth * beside), y(rows * out), alone(out);
  for (Size o = 0; o < out; o++)
    for (Size k = 0; k < in; k++) packed[((o / beside * depth + k / 2 * 2) * beside + o % beside * 2) + k % 2] = w[o * in + k];
  double worst = 0;
  const auto product = [&](Size row, Size count, Half *to) {
    return pellucid_few_rows(packed.data(), x.data() + row * in, bias ? b.data() : nullptr, to, count, out, in, depth, beside,
                             block, true, threads);
  };
  int refused = product(0, rows, y.data());
  for (Size m = 0; m < rows; m++) {
    refused |= product(m, 1, alone.data());
    for (Size o = 0; o < out; o++) {
      double exact = bias ? wide(b[o]) : 0;
      for (Size k = 0; k < in; k++) exact += double(wide(w[o * in + k])) * wide(x[m * in + k]);
      worst = std::fmax(worst, std::fabs(wide(y[m * out + o]) - exact) / (std::fabs(exact) / 256 + 1e-5 * std::sqrt(in)));
      check(alone[o] == y[m * out + o], "row %g of few in pairs: output %g of %g", m, o, out);
    }
  }
  check(!refused && worst <= 1, "few rows in pairs: %g by %g of %g, panels of %g", rows, out, in, beside);
}

// Lane by lane, 1024 products at a time; lanes are added halves to halves.
float lane_by_lane(const Half *w, const Half *x, Size in, int lanes) {
  float total = 0;
  for (Size from = 0; from < in; from += 1024) {
    float sum[16] = {};
    const Size end = from + 1024 < in ? from + 1024 : in;
    for (Size k = from; k < end; k += 2 * lanes)
      for (int odd = 0; odd < 2; odd++)
        for (int lane = 0; lane < lanes && k + 2 * lane + odd < end; lane++)
          sum[lane] = std::fma(wide(w[k + 2 * lane + odd]), wide(x[k + 2 * lane + odd]), sum[lane]);
    for (int half = lanes / 2; half; half /= 2)
      for (int lane = 0; lane < half; lane++) sum[lane] += sum[lane + half];
    total = from ? total + sum[0] : sum[0];
  }
  return total;
}

void bfloat16(int way, Size rows, Size out, Size in, bool bias, int threads) {
  const int lanes[] = {0, 8, 16, 0, 4, 0};  // of the ways whose order is promised
  const Size w_stride = in + 5, x_stride = in + 1;
  const std::vector<Half> w = halves((out - 1) * w_stride + in), x = halves((rows - 1) * x_stride + in), b = halves(out);
  std::vector<Half> y(rows * out), wanted(rows * out);
  double worst = 0;
  const int refused = pellucid_bfloat16(w.data(), x.data(), bias ? b.data() : nullptr, y.data(), rows, out, in, w_stride,
                                        x_stride, way, threads);
  for (Size m = 0; m < rows; m++)
    for (Size o = 0; o < out; o++) {
      const Half *row = w.data() + o * w_stride, *value = x.data() + m * x_stride;
      double exact = bias ? wide(b[o]) : 0;
      for (Size k = 0; k < in; k++) exact += double(wide(row[k])) * wide(value[k]);
      const double apart = std::fabs(wide(y[m * out + o]) - exact);
      worst = std::fmax(worst, apart / (std::fabs(exact) / 256 + 1e-5 * std::sqrt(in)));
      if (lanes[way]) wanted[m * out + o] = narrow(lane_by_lane(row, value, in, lanes[way]) + (bias ? wide(b[o]) : 0));
    }
  check(!refused && worst <= 1, "bfloat16, way %g: %g by %g of %g", way, rows, out, in);
  if (lanes[way]) check(same(y, wanted), "order of bfloat16 sums, way %g: %g by %g of %g", way, rows, out, in);
}

void bfloat16_edges(int way) {
  const Half one = narrow(1), unit = narrow(1.0f / 128), tie = narrow(1.0f / 256), x[] = {one, one, one};
  const Half w[] = {one, tie, 0, one, unit, tie, narrow(INFINITY), one, 0, narrow(NAN), one, 0};
  Half y[4];
  pellucid_bfloat16(w, x, nullptr, y, 1, 4, 3, 3, 3, way, 1);
  check(y[0] == one && wide(y[1]) == 1 + 2.0f / 128, "bfloat16, way %g: ties to even", way);
  check(std::isinf(wide(y[2])) && std::isnan(wide(y[3])), "bfloat16, way %g: what is no number", way);
}

void lookup4(Size count, Size size, int threads) {
  const std::vector<float> scales = floats(count), values = floats(16);
  std::vector<std::uint8_t> codes(count * size / 2);
  for (auto &code : codes) code = chance();
  std::vector<float> y(count * size), wanted(count * size);
  std::vector<Half> half(count * size), wanted_half(count * size);
  for (Size i = 0; i < count * size; i++) {
    wanted[i] = values[i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4] * scales[i / size];
    wanted_half[i] = narrow(wanted[i]);
  }
  pellucid_lookup4(codes.data(), scales.data(), values.data(), y.data(), count, size, 0, threads);
  pellucid_lookup4(codes.data(), scales.data(), values.data(), half.data(), count, size, 1, threads);
  check(same(y, wanted) && same(half, wanted_half), "%g blocks of %g numbers of 4 bits", count, size);
}

}  // namespace

void check_products() {
  const Size shapes[][2] = {{1, 7}, {5, 3}, {37, 77}, {63, 1}, {64, 64}, {65, 1023}, {130, 1030}, {9, 2100}};
  const int vector = pellucid_vector(), ways = 6;
  check(vector > 0, "no level for this processor");
  for (auto [out, in] : shapes)
    for (int rows = 1; vector && rows <= 6; rows++)
      few_rows(rows, out, in, vector * (1 + (rows + in) % (64 / vector)), rows % 2 ? 512 : 1024, rows % 3, 1 + rows % 2);
  if (pellucid_bfloat16_best() == 3)
    for (auto [out, in] : shapes)
      for (Size rows : {1, 2, 6, 7, 13}) few_rows_in_pairs(rows, out, in, 16 * (1 + (rows + in) % 4), 1024, rows % 2, 1 + rows % 2);
  const Half none[8] = {};
  Half y[1];
  int found = 0;
  for (int way = 1; way < ways; way++) {
    if (pellucid_bfloat16(none, none, nullptr, y, 1, 1, 8, 8, 8, way, 1)) continue;  // not of this processor
    found++;
    bfloat16_edges(way);
    for (auto [out, in] : shapes)
      for (Size rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 49}) bfloat16(way, rows, out, in, rows % 2, 1 + rows % 2);
  }
  for (Size size : {2, 32, 34, 64, 4096}) lookup4(5, size, 1), lookup4(7, size, 2);
  std::printf("vectors of %d floats, %d ways to multiply in bfloat16\n", vector, found);
}
