#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")
#define LEVEL bfloat16_avx512
#define WIDTH 16
#define SUMS 24
#define MOST 8
#define MANY 6
#include "bfloat16.h"
#endif
