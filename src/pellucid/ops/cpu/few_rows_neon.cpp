#if defined(__aarch64__)
#define LEVEL few_rows_neon
#define WIDTH 4
#define MOST_ROWS 6
#include "few_rows.h"
#endif
