#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")
#define LEVEL elementwise_avx512
#include "elementwise_level.h"
#endif
