#!/usr/bin/env bash
# Unit tests with sanitizers, then flow tests with the real llama-server.
#
#   scripts/test.sh [PYTEST ARGUMENT]...
#
# The last line is "N passed, N failed", summed over every test case. ARRIERO_TEST_ONLY=unit or
# =flow runs one half.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

build='build-asan'
only=${ARRIERO_TEST_ONLY:-}
start=$(now_ms)

give_up() {
  say "$1"
  printf '0 passed, 1 failed\n'
  exit 1
}

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=1:strict_string_checks=1:detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}

"$here/deps.sh" test || give_up "what the tests need is not there"

say "== building with ASan and UBSan ($build)"
configure "$build" --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false -Dtests=true >&2 ||
  give_up "meson setup failed"
ninja -C "$build" >&2 || give_up "the build failed"
rm -f "$build/meson-logs/testlog.json" "$build/flow.xml"

if [[ $only != flow ]]; then
  say "== unit tests"
  meson test -C "$build" --no-rebuild --print-errorlogs >&2 || true
fi

if [[ $only != unit ]]; then
  say "== flow tests with the real llama-server"
  server=${ARRIERO_LLAMA_SERVER:-}
  if [[ -z $server ]]; then
    server=$("$here/llama-bundle.sh") || give_up "no llama-server for the flow tests"
  fi
  venv=$build/venv
  stamp=$venv/.requirements-$(sha256sum tests/requirements.txt | cut -c 1-16)
  if [[ ! -e $stamp ]]; then
    python=python3
    # a distribution's python3 has its venv module in a package of its own
    "$python" -c 'import venv, ensurepip' 2>/dev/null || python=/usr/bin/python3
    rm -rf "$venv"
    "$python" -m venv "$venv" || give_up "python's venv module does not work"
    task "installing pytest and the openai, anthropic and ollama clients into $venv" \
      "$venv/bin/python" -m pip --disable-pip-version-check install -r tests/requirements.txt ||
      give_up "pip could not install tests/requirements.txt: check its configuration and the network"
    touch "$stamp"
  fi
  ARRIERO_BIN=${ARRIERO_BIN:-$PWD/$build/arriero} ARRIERO_LLAMA_SERVER=$server PYTHONDONTWRITEBYTECODE=1 \
    "$venv/bin/python" -m pytest -q --tb=short -p no:cacheprovider --junitxml="$build/flow.xml" \
    -n "${ARRIERO_TEST_JOBS:-$(nproc)}" --dist worksteal --durations=8 tests/flow "$@" >&2 || true
fi

say "== summary ($(seconds_since "$start") s)"
python3 "$here/test-summary.py" "$build/meson-logs/testlog.json" "$build/flow.xml" "$only"
