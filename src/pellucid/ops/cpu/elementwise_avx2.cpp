#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#define LEVEL elementwise_avx2
#include "elementwise_level.h"
#endif
