// A bfloat16 and a float. In a namespace of each file: each is compiled for instructions of its own.

#pragma once

#include <cstdint>
#include <cstring>

typedef std::uint16_t Half;  // the bits of a bfloat16

namespace {

inline float wide(float value) { return value; }
inline float wide(Half half) {
  const std::uint32_t bits = (std::uint32_t)half << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline Half narrow(float value) {  // to the nearest, ties to even
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

}  // namespace
