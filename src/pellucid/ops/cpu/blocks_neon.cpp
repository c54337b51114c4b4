#if defined(__aarch64__)
#define LEVEL blocks_neon
#include "blocks_level.h"
#endif
