// Norms, rotations, tables of functions and what is computed number by number, against the definition.

#include "../../../src/pellucid/ops/cpu/elementwise.h"

#include "common.h"

extern "C" {
int pellucid_has_elementwise(int);
void pellucid_norm(const Norming *);
void pellucid_turn(const Turning *);
void pellucid_look_up(const Looking *);
void pellucid_pointwise(const Pointwise *);
}

namespace {

template <class T>
float number(T x) {
  if constexpr (sizeof(T) == 2)
    return wide(x);
  else
    return x;
}

template <class T>
T kept(float x) {
  if constexpr (sizeof(T) == 2)
    return narrow(x);
  else
    return x;
}

template <class T>
std::vector<T> array(Size count) {
  std::vector<T> found(count);
  for (T &x : found) x = kept<T>(noise());
  return found;
}

template <class T>
void norm(int level, Size rows, Size width, bool weighted, bool round_first, float offset, int threads) {
  const std::vector<T> x = array<T>(rows * width), weight = array<T>(width);
  std::vector<T> y(rows * width);
  const Norming work{x.data(), weighted ? weight.data() : nullptr, nullptr, y.data(), rows, width, 1e-6f, offset,
                     round_first, false, {sizeof(T) == 2, level, threads}};
  pellucid_norm(&work);
  double worst = 0;
  for (Size row = 0; row < rows; row++) {
    double sum = 0;
    for (Size i = 0; i < width; i++) sum += double(number(x[row * width + i])) * number(x[row * width + i]);
    for (Size i = 0; i < width; i++) {
      const double exact = number(x[row * width + i]) / std::sqrt(sum / width + 1e-6) *
                           (weighted ? number(weight[i]) + double(offset) : 1);
      worst = std::fmax(worst, std::fabs(number(y[row * width + i]) - exact) / (std::fabs(exact) + 1e-3));
    }
  }
  check(worst < (sizeof(T) == 2 ? 0.012 : 3e-6), "norm, level %g: %g by %g is off by %g", level, rows, width, worst);
}

template <class T>
void centred_norm(int level, Size rows, Size width, bool weighted, bool biased, int threads) {
  const std::vector<T> x = array<T>(rows * width), weight = array<T>(width), bias = array<T>(width);
  std::vector<T> y(rows * width);
  const Norming work{x.data(), weighted ? weight.data() : nullptr, biased ? bias.data() : nullptr, y.data(), rows, width,
                     1e-6f, 0, false, true, {sizeof(T) == 2, level, threads}};
  pellucid_norm(&work);
  double worst = 0;
  for (Size row = 0; row < rows; row++) {
    double mean = 0, sum = 0;
    for (Size i = 0; i < width; i++) mean += number(x[row * width + i]) / double(width);
    for (Size i = 0; i < width; i++) sum += (number(x[row * width + i]) - mean) * (number(x[row * width + i]) - mean);
    const double scale = 1 / std::sqrt(sum / width + 1e-6);
    for (Size i = 0; i < width; i++) {
      const double x_i = number(x[row * width + i]), by = scale * (weighted ? number(weight[i]) : 1);
      const double exact = (x_i - mean) * by + (biased ? number(bias[i]) : 0);
      // what is taken away, and what is added, round too
      const double size = std::fabs(exact) + (std::fabs(x_i) + std::fabs(mean)) * std::fabs(by);
      worst = std::fmax(worst, std::fabs(number(y[row * width + i]) - exact) / (size + 1e-3));
    }
  }
  check(worst < (sizeof(T) == 2 ? 0.012 : 2e-6), "centred norm, level %g: %g by %g is off by %g", level, rows, width, worst);
}

template <class T>
void turn(int level, Size rows, Size heads, Size width, Size turned, bool interleaved, int threads) {
  const std::vector<T> x = array<T>(rows * heads * width), cos = array<T>(rows * turned), sin = array<T>(rows * turned);
  std::vector<T> y(x.size()), wanted = x;
  const Turning work{x.data(), cos.data(), sin.data(), y.data(), rows, heads, width, turned, interleaved,
                     {sizeof(T) == 2, level, threads}};
  pellucid_turn(&work);
  for (Size which = 0; which < rows * heads; which++)
    for (Size i = 0; i < turned; i++) {
      const Size partner = interleaved ? i ^ 1 : (i + turned / 2) % turned, at = which / heads * turned + i;
      const T product = kept<T>(number(x[which * width + i]) * number(cos[at]));
      wanted[which * width + i] =
          kept<T>(std::fma(number(x[which * width + partner]), number(sin[at]), number(product)));
    }
  check(same(y, wanted), "rotation, level %g: %g heads of %g, of which %g turn", level, heads, width, turned);
}

void look_up(int level, Size numbers, bool times, int threads) {
  const std::vector<Half> x = halves(numbers), by = halves(numbers), table = halves(65536);
  std::vector<Half> y(numbers), wanted(numbers);
  const Looking work{x.data(), times ? by.data() : nullptr, table.data(), y.data(), numbers, 1, {1, level, threads}};
  pellucid_look_up(&work);
  for (Size i = 0; i < numbers; i++)
    wanted[i] = times ? narrow(wide(table[x[i]]) * wide(by[i])) : table[x[i]];
  check(same(y, wanted), "%g numbers of a table, level %g", numbers, level);
}

// Sums, products and activations of floats; to the last bit but for the activations.
void pointwise(int level, int point, bool times, Size width, int threads) {
  const Size rows = 3;
  const std::vector<float> x = floats(rows * width), by = floats(rows * width);
  std::vector<float> y(rows * width);
  const Pointwise work{x.data(), times ? by.data() : nullptr, y.data(), rows, width, 0.3f, point, {0, level, threads}};
  pellucid_pointwise(&work);
  double worst = 0;
  for (Size i = 0; i < rows * width; i++) {
    const double one = x[i], inner = 0.7978845608028654 * (one + 0.044715 * one * one * one);
    double wanted = point == SUM ? x[i] + by[i] : point == PRODUCT ? x[i] * by[i] : x[i] * 0.3f;
    if (point == SILU) wanted = one / (1 + std::exp(-one));
    if (point == GELU_TANH) wanted = one / 2 * (1 + std::tanh(inner));
    if (point == GELU_QUICK) wanted = one / (1 + std::exp(-1.702 * one));
    if (point >= SILU && times) wanted *= by[i];
    worst = std::fmax(worst, std::fabs(y[i] - wanted) / (std::fabs(wanted) + 1e-3));
  }
  check(worst <= (point < SILU ? 0 : 1e-6), "number by number, level %g: %g of %g is off by %g", level, point, width, worst);
}

// The float16 nearest to each float, the even one of two: beside all of them, and halfway between.
void halved(int level, int threads) {
  std::vector<float> x;
  std::vector<std::uint16_t> wanted;
  for (int bits = 0; bits < 0x7c00; bits++)
    for (int sign = 0; sign < 2; sign++) {
      const int next = bits + 1;
      const float low = number16(bits), high = next < 0x7c00 ? number16(next) : 65536, middle = (low + high) / 2;
      for (float value : {low, std::nextafter(middle, low), middle, std::nextafter(middle, high)}) {
        x.push_back(sign ? -value : value);
        wanted.push_back((value < middle || (value == middle && bits % 2 == 0) ? bits : next) | sign << 15);
      }
    }
  x.push_back(INFINITY), wanted.push_back(0x7c00);
  const Size numbers = x.size();
  std::vector<std::uint16_t> y(numbers);
  const Pointwise work{x.data(), nullptr, y.data(), numbers, 1, 0, HALVED, {0, level, threads}};
  pellucid_pointwise(&work);
  check(same(y, wanted), "float16, level %g", level);
}

template <class T>
void all(int level) {
  for (Size width : {8, 9, 31, 32, 33, 100, 768, 16391})
    for (int how = 0; how < 6; how++)
      norm<T>(level, 1 + width % 5, width, how, how % 2, how > 3 ? 1.0f : 0.0f, 1 + how % 2);
  for (Size width : {8, 9, 31, 32, 33, 100, 768, 16391})
    for (int how = 0; how < 3; how++)
      centred_norm<T>(level, 1 + width % 5, width, how, how > 1, 1 + how % 2);
  for (Size width : {2, 6, 16, 64, 80})
    for (int how = 0; how < 4; how++) turn<T>(level, 5, 3, width, how < 2 ? width : width / 2 / 2 * 2, how % 2, 1 + how / 2);
}

}  // namespace

void check_elementwise() {
  int found = 0;
  for (int level = 0; level < 4; level++) {
    if (!pellucid_has_elementwise(level)) continue;
    found++;
    all<float>(level);
    all<Half>(level);
    for (Size numbers : {1, 7, 512, 1500}) look_up(level, numbers, false, 1), look_up(level, numbers, true, 2);
    for (int point = SUM; point < HALVED; point++)
      for (Size width : {1, 13, 200}) pointwise(level, point, point < SCALED || (point > SCALED && width > 1), width, 1 + width % 2);
    halved(level, 2);
  }
  check(found > 1, "no elementwise kernels");
}
