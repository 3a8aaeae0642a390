#!/usr/bin/env bash
# Runs every libFuzzer target for FUZZ_SECONDS (60) on its corpus; findings land in build-fuzz/findings.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."
"$here/deps.sh" fuzz

build='build-fuzz'
CC=clang configure "$build" --buildtype=debugoptimized -Dtests=true \
  -Dfuzzers=true -Db_sanitize=address,undefined -Db_lundef=false
mapfile -t targets < <(linked_in "$build" tests/fuzz/ | grep -E '/fuzz_[^/]*$' | grep -v replay | sort)
((${#targets[@]})) || die "there is no fuzz target" "see tests/fuzz/meson.build"
ninja -C "$build" "${targets[@]}"
rc=0
for t in "${targets[@]/#/$build/}"; do
  name=${t##*/}
  short=${name#fuzz[_-]}
  mkdir -p "$build/findings" "$build/corpus/$short"
  seeds=()
  for d in "tests/fuzz/corpus/$short" "tests/corpus/$short" "tests/fuzz/$short"; do [[ ! -d $d ]] || seeds+=("$d"); done
  say "== $name for ${FUZZ_SECONDS:-60} s"
  "$t" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$build/findings/$short-" "$build/corpus/$short" "${seeds[@]}" || rc=1
done
((rc == 0)) || die "a fuzz target found something" "see $build/findings"
