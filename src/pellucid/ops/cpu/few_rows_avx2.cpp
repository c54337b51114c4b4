#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#define LEVEL few_rows_avx2
#define WIDTH 8
#define MOST_ROWS 6
#include "few_rows.h"
#endif
