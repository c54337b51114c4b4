#if defined(__x86_64__)
#pragma GCC target("avx512bf16,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")
#pragma GCC diagnostic ignored "-Wuninitialized"  // in the header, of GCC 12
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define LEVEL attention_dot
#define PAIRED
#include "attention_avx512.h"
#endif
