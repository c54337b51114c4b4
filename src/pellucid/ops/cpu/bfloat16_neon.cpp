#if defined(__aarch64__)
#define LEVEL bfloat16_neon
#define WIDTH 4
#define SUMS 24
#define MOST 8
#define MANY 6
#include "bfloat16.h"
#endif
