#!/usr/bin/env bash
# Out-of-memory prevention on real parts: toy GPUs, a naive llama-server, llama-server's --fit, and arriero.
#
#   OOM_SCENARIOS=N scripts/oom.sh [--fresh] [--only I,J] [--jobs N]
#
# Prints a table and writes build/bench/oom.json, and beside it oom.jsonl with every scenario's story. A run that was
# interrupted goes on where it stopped. Exit status 1: a goal is missed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

"$here/deps.sh" test
configure build-bench --buildtype=release -Dtests=true >/dev/null
ninja -C build-bench arriero tests/bench/oom/libtoy_rpc.so >&2
llama=$(dirname "$("$here/llama-bundle.sh" --bundle)")
[[ -x $llama/llama-server && -x $llama/ggml-rpc-server ]] ||
  die "the bundle at $llama lacks llama-server or ggml-rpc-server" "scripts/llama-bundle.sh --bundle --refresh"
mkdir -p build/bench
exec python3 tests/bench/oom/oom.py --arriero build-bench/arriero --llama "$llama" \
  --shim build-bench/tests/bench/oom/libtoy_rpc.so --out build/bench/oom.json --work build-bench/tests/bench/oom/models \
  --scenarios "${OOM_SCENARIOS:-200}" "$@"
