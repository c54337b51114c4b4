#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c")
#define LEVEL blocks_avx2
#include "blocks_level.h"
#endif
