#!/usr/bin/env bash
# Builds csrc/ without Node, with AddressSanitizer and UndefinedBehaviorSanitizer, and runs test/native and the fuzzer.
# More arguments go to ctest: scripts/test-native.sh -R plan_check
set -euo pipefail
cd "$(dirname "$0")/.."

# What the fuzzer starts from: plans of real spawns on this machine, in the encoding of now.
node scripts/ready.mjs
node scripts/fuzz-corpus.mjs

# clang has libFuzzer; without it the fuzzer's own mutator runs.
fuzzing='extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }'
if [ -z "${CXX:-}" ] && echo "$fuzzing" | clang++ -fsanitize=fuzzer,address -x c++ - -o /dev/null 2>/dev/null; then
  export CC=clang CXX=clang++
fi
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)

log=build-native/log
mkdir -p build-native
# Another compiler than the last time needs a fresh start.
if ! grep -qx "${CXX:-c++}" build-native/compiler 2>/dev/null; then rm -rf build-native/CMakeCache.txt build-native/CMakeFiles; fi
echo "${CXX:-c++}" >build-native/compiler
if ! { cmake -S csrc -B build-native "${generator[@]}" -DCLOISTER_TESTS=ON -DCLOISTER_SANITIZE=ON &&
  cmake --build build-native --parallel 2; } >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi

export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1
cd build-native
ctest --output-on-failure --output-junit junit.xml "$@" || failed=1
count() { sed -n "s/^.*[[:space:]]$1=\"\([0-9]*\)\".*/\1/p" junit.xml | head -1; }
tests=$(count tests) failures=$(count failures) skipped=$(count skipped)
echo "$((tests - failures - skipped)) passed, $failures failed, $skipped skipped"
exit "${failed:-0}"
