#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")
#define LEVEL few_rows_avx512
#define WIDTH 16
#define MOST_ROWS 6
#include "few_rows.h"
#endif
