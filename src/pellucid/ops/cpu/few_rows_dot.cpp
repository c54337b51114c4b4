#if defined(__x86_64__)
#pragma GCC target("avx512bf16,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")
#define LEVEL few_rows_dot
#define WIDTH 16
#define MOST_ROWS 6
#define PAIRS 1
#include "few_rows.h"
#endif
