// The native kernels without Python: run under an emulator of another processor, and by sanitizers. See docs/building.md.

#include "common.h"

void check_products();
void check_elementwise();
void check_attention();
void check_packed();
void check_blocks();

int main() {
  check_products();
  check_elementwise();
  check_attention();
  check_packed();
  check_blocks();
  std::printf("%d checks, %d failed\n", checked, failed);
  return failed != 0;
}
