#!/bin/sh
# The tests of the native kernels, with kernels that watch their memory and arithmetic: `make sanitize`, or
#     sh tests/sanitize.sh PYTHON [TEST ...]
# The tree is copied, and the copy's library compiled with the address and the undefined-behaviour sanitizer. A finding
# ends the run; leaks are Python's own and not looked for.
set -eu
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
for part in src tests pyproject.toml; do cp -r "$root/$part" "$copy"; done
cd "$copy"
[ $# -gt 0 ] || set -- tests/ops tests/nn/test_linear.py tests/quant

common="-std=c++17 -g -ffp-contract=fast -fno-exceptions -fno-rtti -fopenmp"
watched="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
kernels=src/pellucid/ops/cpu
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1

g++ $common -O2 $watched $kernels/*.cpp tests/ops/native/*.cpp -o checks
./checks
for file in $kernels/*.cpp; do echo "$file"; done |
  xargs -P "$(nproc)" -I{} sh -c 'g++ '"$common"' -O2 -fPIC '"$watched"' -c {} -o "$(basename {} .cpp).o"'
g++ -shared $watched ./*.o -o $kernels/kernels.so
# The runtime comes before Python, and takes the place of its allocator: each tensor has edges that are watched.
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" PYTHONMALLOC=malloc PYTHONPATH=src \
  "$python" -m pytest -p no:cacheprovider -p no:xdist "$@"
