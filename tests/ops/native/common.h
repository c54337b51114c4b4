// What the checks of the native kernels share: numbers by chance, arrays that end where they end, a count of failures.

#pragma once

#pragma GCC optimize("fp-contract=off")  // a product is rounded before it is added, except by fma

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

typedef std::uint16_t Half;  // the bits of a bfloat16
typedef std::int64_t Size;

inline int checked = 0, failed = 0;

inline void check(bool right, const char *format, double a = 0, double b = 0, double c = 0, double d = 0) {
  checked++;
  if (right) return;
  failed++;
  std::printf(format, a, b, c, d);
  std::printf("\n");
}

inline std::mt19937 chance(0);

inline float noise() { return std::normal_distribution<float>()(chance); }

inline std::vector<float> floats(Size count) {
  std::vector<float> found(count);
  for (float &x : found) x = noise();
  return found;
}

inline float wide(Half half) {
  const std::uint32_t bits = std::uint32_t(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline Half narrow(float value) {  // to the nearest, ties to even
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline float number16(std::uint16_t bits) {  // a float16
  const int exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  const float size = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
  return bits & 0x8000 ? -size : size;
}

inline std::vector<Half> halves(Size count) {
  std::vector<Half> found(count);
  for (Half &x : found) x = narrow(noise());
  return found;
}

template <class T>
bool same(const std::vector<T> &a, const std::vector<T> &b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}
