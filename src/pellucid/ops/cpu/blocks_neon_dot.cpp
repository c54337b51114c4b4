#if defined(__aarch64__)
#pragma GCC target("arch=armv8.2-a+dotprod")
#define LEVEL blocks_neon_dot
#define DOT 1
#include "blocks_level.h"
#endif
