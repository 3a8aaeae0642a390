#!/usr/bin/env bash
# Everything that may go wrong, at random and at once, while clients ask; what must hold is looked at all along.
#
#   MINUTES=10 SEED=N CLIENTS=50 scripts/chaos.sh
#
# The daemon is built with sanitizers. Writes build/bench/chaos.json. Exit status 1: an invariant is broken; SEED plays the
# same actions again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

"$here/deps.sh" test
build='build-asan'
configure "$build" --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dtests=true >&2
ninja -C "$build" arriero >&2
server=${ARRIERO_LLAMA_SERVER:-$("$here/llama-bundle.sh" --bundle)}
mkdir -p build/bench
exec env PYTHONDONTWRITEBYTECODE=1 python3 tests/chaos/chaos.py --arriero "$build/arriero" --llama "$server" \
  --minutes "${MINUTES:-10}" --clients "${CLIENTS:-50}" --out build/bench/chaos.json ${SEED:+--seed "$SEED"}
