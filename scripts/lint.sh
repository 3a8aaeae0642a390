#!/usr/bin/env bash
# clang-tidy (rules in .clang-tidy), cppcheck, and a syntax check of the scripts.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."
"$here/deps.sh" lint

build='build-lint'
configure "$build" --buildtype=debug -Dtests=true >/dev/null
ninja -C "$build" >/dev/null || die "it does not build, so it is not linted" "make build"

rc=0
mapfile -t files < <(find src -name '*.c' | sort)
# one file a process: clang-tidy 14 carries va_list state from one file to the next
say "== clang-tidy over ${#files[@]} files"
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy --quiet -p "$build" --warnings-as-errors='*' 2>/dev/null || rc=1
say "== cppcheck"
cppcheck --quiet --std=c11 --inline-suppr --error-exitcode=1 --enable=warning,performance,portability \
  --suppress=missingIncludeSystem --suppress=unknownMacro -I src -j "$(nproc)" src || rc=1
say "== scripts"
for f in scripts/*.sh .ci/run; do bash -n "$f" || rc=1; done
! have shellcheck || shellcheck -x -S warning scripts/*.sh .ci/run || rc=1
((rc == 0)) || die "lint found something" "see above"
say "lint: clean"
