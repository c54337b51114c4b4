#if defined(__aarch64__)
#pragma GCC target("arch=armv8.2-a+bf16")
#define LEVEL bfloat16_neon_dot
#define WIDTH 4
#define SUMS 24
#define MOST 8
#define MANY 6
#define DOT 1
#include "bfloat16.h"
#endif
