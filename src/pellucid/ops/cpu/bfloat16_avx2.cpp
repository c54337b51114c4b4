#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#define LEVEL bfloat16_avx2
#define WIDTH 8
#define SUMS 8
#define MOST 4
#define MANY 4
#include "bfloat16.h"
#endif
