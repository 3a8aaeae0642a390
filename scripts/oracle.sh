#!/usr/bin/env bash
# Puts every question of tests/oracle to the real llama-fit-params and compares the planner's answers with its.
#
#   scripts/oracle.sh [--record] [--arch A[,B]] [--shape S[,T]] [--only TEXT] [--jobs N]
#
#   --record   keep the answers as tests/oracle/goldens.tsv, which the unit tests use
#
# Prints a table an architecture and writes build/bench/oracle.json. Exit status 1: a goal is missed, or an
# answer is not what was recorded.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

record=false some=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --record) record=true ;;
    --arch | --shape | --only | --jobs) some+=("$1" "${2:?$1 needs a value}") && shift ;;
    *) die "usage: scripts/oracle.sh [--record] [--arch A] [--shape S] [--only TEXT] [--jobs N]" ;;
  esac
  shift
done

build='build-bench'
goldens=tests/oracle/goldens.tsv
"$here/deps.sh" test
[[ -f $build/build.ninja ]] || meson setup "$build" --buildtype=release -Dtests=true >&2
ninja -C "$build" tests/oracle/oracle tests/oracle/test_records tests/oracle/liboracle_hook.so >&2
llama=$(dirname "$("$here/llama-bundle.sh" --bundle)")
[[ -x $llama/llama-fit-params && -x $llama/ggml-rpc-server ]] ||
  die "the bundle at $llama lacks llama-fit-params or ggml-rpc-server" "scripts/llama-bundle.sh --bundle --refresh"

models=$build/tests/oracle/models live=$build/tests/oracle/live.tsv
mkdir -p "$models" build/bench
status=0
python3 tests/oracle/record.py --oracle "$build/tests/oracle/oracle" --hook "$PWD/$build/tests/oracle/liboracle_hook.so" \
  --llama "$llama" --models "$models" --out "$live" --keep "$goldens" "${some[@]}" || status=1
if $record; then
  cp "$live" "$goldens"
  say "recorded: $goldens"
elif ! diff -q <(head -n 2 "$goldens") <(head -n 2 "$live") >/dev/null; then
  # repacked weights depend on the processor, everything on the version
  say "recorded with another llama.cpp or processor, so the answers are not compared with the recorded ones"
elif ! diff -q <(grep -v '^#' "$goldens") <(grep -v '^#' "$live") >/dev/null; then
  say "answers that differ from the recorded ones:"
  diff <(grep -v '^#' "$goldens") <(grep -v '^#' "$live") | head -n 20 >&2 || true
  status=1
fi
"$build/tests/oracle/oracle" compare "$live" "$models" --json build/bench/oracle.json || status=1
# estimates that remember against graphs of all layers
if ((${#some[@]} == 0)); then
  "$build/tests/oracle/test_records" "$models" 1 2 >/dev/null || status=1
fi
exit "$status"
