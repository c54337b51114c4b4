#!/bin/sh
# The tests of the native kernels, with kernels that watch their memory and arithmetic: `make sanitize`, or
#     sh tests/sanitize.sh PYTHON [TEST ...]
# The tree is copied, and the copy's library compiled with the address and the undefined-behaviour sanitizer. A finding
# ends the run; leaks are Python's own and not looked for. Not watched: pointers in arithmetic (what they read is).
set -eu
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
for part in src tests pyproject.toml; do cp -r "$root/$part" "$copy"; done
cd "$copy"
kernels=src/pellucid/ops/cpu
[ $# -gt 0 ] || set -- tests/ops tests/nn/test_linear.py tests/engine/test_replayed.py

# As they are built, but for less time: multiply-adds are joined by the "expensive" optimizations.
flags="-std=c++17 -O1 -fexpensive-optimizations -ffp-contract=fast -fno-exceptions -fno-rtti -fopenmp -fPIC"
watch="-g1 -fsanitize=address,undefined -fno-sanitize=null,pointer-overflow,object-size -fno-sanitize-recover=all"
watch="$watch --param asan-instrumentation-with-call-threshold=0"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1

# as setup.py does: a library that does not say of which sources it is would not be used
digest=$("$python" -c "import pathlib, runpy
print(runpy.run_path('$kernels/version.py')['digest'](pathlib.Path('$kernels')))")
for file in $kernels/*.cpp; do echo "$file"; done |
  xargs -P "$(nproc)" -I{} sh -c "g++ $flags $watch -DPELLUCID_SOURCES='\"$digest\"' -c {} -o \$(basename {} .cpp).o"
g++ $flags $watch tests/ops/native/*.cpp ./*.o -o checks
./checks
g++ -shared $watch ./*.o -o $kernels/kernels.so
# The runtime comes before Python, and takes the place of its allocator: each tensor has edges that are watched.
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" PYTHONMALLOC=malloc PYTHONPATH=src \
  "$python" -m pytest -p no:cacheprovider -n 0 --ignore tests/ops/test_native_checks.py "$@"  # its program ran above
