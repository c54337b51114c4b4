#if defined(__aarch64__)
#define LEVEL elementwise_neon
#include "elementwise_level.h"
#endif
