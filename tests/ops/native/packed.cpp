// Products with packed matrices against the definition in float64, and each row against itself in company.

#include "../../../src/pellucid/ops/cpu/kernels.h"

#include "common.h"

extern "C" int pellucid_packed(const Matrix *, const void *, const void *, void *, Size, Size, Size, Size, int, int, int);

namespace {

// float16 of numbers that are not too small or large for it; the bits that it has not are dropped.
std::uint16_t float16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const int exponent = int(bits >> 23 & 255) - 112;
  return (bits >> 16 & 0x8000) | (exponent > 0 ? exponent << 10 | (bits >> 13 & 0x3ff) : 0);
}

float number8(std::uint8_t code) {  // E4M3
  const int exponent = code >> 3 & 15, fraction = code & 7;
  const float size = exponent ? std::ldexp(8 + fraction, exponent - 10) : std::ldexp(fraction, -9);
  return code & 128 ? -size : size;
}

struct Packed {
  Lie lie;
  Size group, height;
  bool zeros, nested;
};

template <class T>
void product(const Packed &how, Size most, Size out, Size in, int way) {
  const bool half = sizeof(T) == 2;
  const Size group = how.group ? how.group : Size(1) << 60, groups = how.group ? (in + group - 1) / group : 1;
  const Size scales = (out + how.height - 1) / how.height * groups;
  const Size row_bytes = how.lie == FLOAT16 ? in * 2 : how.lie == HIGH_FIRST || how.lie == LOW_FIRST ? (in + 1) / 2 : in;
  const Size stride = row_bytes + (how.lie == FLOAT16 ? 2 : 3);
  std::vector<std::uint8_t> numbers((out - 1) * stride + row_bytes), packed(scales);
  std::vector<float> w(out * in), values = floats(16), scale = floats(scales), zero = floats(scales);
  std::vector<float> map = floats(256), nested = floats((scales + 3) / 4);
  for (auto &code : packed) code = chance();
  for (auto &code : numbers) code = chance();
  for (Size o = 0; o < out; o++)
    for (Size k = 0; k < in; k++) {
      const Size which = o / how.height * groups + (how.group ? k / group : 0);
      float s = how.nested ? map[packed[which]] * nested[which >> 2] + 0.5f : scale[which];
      std::uint8_t *row = numbers.data() + o * stride;
      float &value = w[o * in + k];
      if (how.lie == FLOAT16) {
        const std::uint16_t bits = float16(noise());
        std::memcpy(row + 2 * k, &bits, 2);
        value = number16(bits);
      } else if (how.lie == SIGNED) {
        value = std::int8_t(row[k]);
      } else if (how.lie == FLOAT8) {
        if ((row[k] & 127) == 127) row[k] = 0;  // not a number
        value = number8(row[k]);
      } else {
        const int code = (how.lie == HIGH_FIRST) == (k % 2 == 0) ? row[k / 2] >> 4 : row[k / 2] & 15;
        value = (values[code] - (how.zeros ? zero[which] : 0)) * s;
        if (half) value = wide(narrow(value));
        s = 1;
      }
      if (how.lie != FLOAT16) value *= s;
    }
  std::vector<T> x(most * in), bias(out), y(most * out);
  for (auto *array : {&x, &bias})
    for (T &one : *array)
      if constexpr (sizeof(T) == 2)
        one = narrow(noise());
      else
        one = noise();
  const Matrix matrix = {numbers.data(), stride, how.lie, group, how.height, groups, values.data(),
                         how.nested ? nullptr : scale.data(), how.zeros ? zero.data() : nullptr, packed.data(),
                         map.data(), nested.data(), 2, 0.5f};
  const int refused =
      pellucid_packed(&matrix, x.data(), bias.data(), y.data(), most, out, in, in, half, way, 2);
  check(!refused, "packed, kind %g, way %g is refused", how.lie, way);
  const auto number = [](T one) {
    if constexpr (sizeof(T) == 2)
      return wide(one);
    else
      return one;
  };
  double worst = 0;
  for (Size m = 0; m < most; m++)
    for (Size o = 0; o < out; o++) {
      double exact = number(bias[o]), size = 1;
      for (Size k = 0; k < in; k++) {
        const double term = double(w[o * in + k]) * number(x[m * in + k]);
        exact += term;
        size += term * term;
      }
      worst = std::fmax(worst, std::fabs(number(y[m * out + o]) - exact) /
                                   (half * std::fabs(exact) / 256 + 3e-6 * std::sqrt(size) + 1e-7 * std::sqrt(size * in)));
    }
  check(worst <= 1, "packed, kind %g, way %g: off by %g of what rounding allows, in %g", how.lie, way, worst, in);
  for (Size rows : {1, 3, 5}) {
    std::vector<T> few(rows * out);
    pellucid_packed(&matrix, x.data(), bias.data(), few.data(), rows, out, in, in, half, way, 1);
    check(same(few, {y.begin(), y.begin() + rows * out}), "packed, kind %g, way %g: %g rows alone", how.lie, way, rows);
  }
}

}  // namespace

void check_packed() {
  const Packed kinds[] = {{HIGH_FIRST, 64, 1, false, false}, {HIGH_FIRST, 32, 1, false, true}, {LOW_FIRST, 32, 1, true, false},
                          {LOW_FIRST, 0, 1, false, false},   {SIGNED, 0, 1, false, false},     {SIGNED, 64, 3, false, false},
                          {FLOAT8, 128, 5, false, false},    {FLOAT16, 0, 1, false, false}};
  const Size shapes[][2] = {{1, 7}, {5, 33}, {37, 77}, {130, 1100}};
  const Half none[8] = {};
  const float one = 1;
  const Matrix nothing = {none, 16, FLOAT8, Size(1) << 60, 1, 1, nullptr, &one};
  for (int way = 1; way < 6; way++) {
    Half y[1];
    if (pellucid_packed(&nothing, none, nullptr, y, 1, 1, 8, 8, 1, way, 1)) continue;  // not of this processor
    for (const Packed &how : kinds)
      for (auto [out, in] : shapes) {
        if (how.lie != FLOAT16) product<Half>(how, 13, out, in, way);
        if (way != 3 && way != 5) product<float>(how, 9, out, in, way);
      }
  }
}
