#!/usr/bin/env bash
# Long tests of the relay, from outside: every byte of the tables of faults and framings, and slow clients against the whole
# daemon while another client is served.
#
#   TORTURE_SECONDS=15 scripts/torture.sh
#
# H1SPEC and SMUGGLER: folders with copies of those tools (github.com/dropseed/h1spec, github.com/defparam/smuggler); where
# they are set, they are run too. Writes build/bench/torture.json. Exit status 1: something failed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

"$here/deps.sh" torture
build='build-asan'
configure "$build" --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dtests=true >&2
tables=(outcomes desync form)
ninja -C "$build" arriero "${tables[@]/#/tests/unit/proxy/test_}" >&2
for t in "${tables[@]}"; do
  say "== $t, at every byte"
  ARRIERO_TORTURE=1 "$build/tests/unit/proxy/test_$t" >&2 || die "the table $t has a row that fails" "see the message above"
done
server=${ARRIERO_LLAMA_SERVER:-$("$here/llama-bundle.sh")}
mkdir -p build/bench
exec env PYTHONDONTWRITEBYTECODE=1 python3 tests/torture/outside.py --arriero "$build/arriero" --llama "$server" \
  --seconds "${TORTURE_SECONDS:-15}" --out build/bench/torture.json ${H1SPEC:+--h1spec "$H1SPEC"} ${SMUGGLER:+--smuggler "$SMUGGLER"}
