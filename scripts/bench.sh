#!/usr/bin/env bash
# Runs one benchmark: tests/bench/NAME/run, tests/bench/NAME.sh or tests/bench/NAME.py, with an
# optimised build of everything. It prints a table and writes build/bench/NAME.json.
#
# The benchmark gets: ARRIERO_BIN, BENCH_BUILD (an optimised build with test programs), BENCH_OUT.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

name=${1:?usage: scripts/bench.sh NAME}
run=''
for f in "tests/bench/$name/run" "tests/bench/$name.sh" "tests/bench/$name.py"; do
  if [[ -f $f ]]; then
    run=$f
    break
  fi
done
if [[ -z $run ]]; then
  mapfile -t known < <(find tests/bench -maxdepth 2 \( -name run -o -name '*.py' -o -name '*.sh' \) 2>/dev/null |
    sed -e 's,^tests/bench/,,' -e 's,/run$,,' -e 's,\.[a-z]*$,,' | grep -v / | sort -u)
  die "no benchmark named $name" "there are: ${known[*]:-none}"
fi
case $name in
  proxy*) "$here/deps.sh" bench ;;
  *) "$here/deps.sh" test ;;
esac

configure build-bench --buildtype=release -Dtests=true >/dev/null
mapfile -t programs < <(linked_in build-bench "tests/bench/$name/")
((${#programs[@]} == 0)) || ninja -C build-bench "${programs[@]}" >/dev/null || die "the benchmark programs do not build" "ninja -C build-bench"
mkdir -p build/bench
export ARRIERO_BIN=$PWD/build/arriero BENCH_BUILD=$PWD/build-bench BENCH_OUT=$PWD/build/bench/$name.json
rm -f "$BENCH_OUT"
case $run in
  *.py) python3 "$run" ;;
  *) if [[ -x $run ]]; then "$run"; else bash "$run"; fi ;;
esac
[[ -s $BENCH_OUT ]] || die "the benchmark wrote no $BENCH_OUT"
say "wrote ${BENCH_OUT#"$PWD/"}"
