#if defined(__x86_64__)
#pragma GCC target("avx512vnni,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")
#define LEVEL blocks_avx512
#define VNNI 1
#include "blocks_level.h"
#endif
