#!/usr/bin/env bash
# From nothing to an answer of a real model: what `make demo` runs.
#
#   [MODEL=/path/to/model.gguf] [DEMO_ONCE=1] [DEMO_PORT=11435] [DEMO_ARRIERO=/built/already] scripts/demo.sh
#
# On a terminal the daemon stays until Ctrl-C; otherwise, or with DEMO_ONCE=1, everything is stopped
# after the answer. The daemon's state lives in a temporary folder: one that already runs here, its
# configuration and its history are not touched.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."
exec 2>&1

question=${DEMO_QUESTION:-In one sentence, what does a mule driver do?}
arriero=${DEMO_ARRIERO:-$PWD/build/arriero}
work='' daemon='' step=0 step_start=0 once=${DEMO_ONCE:-}
[[ -t 1 ]] || once=1

stop_daemon() {
  local pid=${daemon:-$(jobs -p)}
  [[ -n $pid ]] || return 0
  daemon=''
  kill -TERM "$pid" 2>/dev/null || true
  # A daemon that does not end by itself is ended, and takes its children with it.
  timeout 30 tail -s 0.1 --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

cleanup() {
  local rc=$?
  trap '' INT TERM HUP USR1
  stop_daemon
  if [[ -n $work ]]; then
    if ((rc != 0 && rc != 130)) && [[ -s $work/daemon.log ]]; then
      say "the end of the daemon's log:"
      tail -n 20 "$work/daemon.log" | sed 's/^/    | /'
    fi
    rm -rf "$work"
  fi
  exit "$rc"
}
trap cleanup EXIT
interrupted() {
  trap '' INT USR1
  echo
  echo "Stopping what this demo started."
  exit 130
}
trap interrupted INT USR1
trap 'exit 143' TERM
trap 'exit 129' HUP

begin() {
  step=$((step + 1))
  step_start=$(now_ms)
  printf '\n%s[%d/7] %s%s\n' "$LIB_BOLD" "$step" "$1" "$LIB_OFF"
}
end() { printf '  %s(%s s)%s\n' "$LIB_DIM" "$(seconds_since "$step_start")" "$LIB_OFF"; }

# Here and in main: bash forgets a Ctrl-C that comes while it starts or reaps a command, and reads a script that is
# interrupted meanwhile wrongly. So all is read before it runs, and a watcher says it again in other words.
watch() {
  trap 'kill -USR1 $$' INT
  read -r _ || true
}

main() {
  local id model port rc server tmp total_start tries url waited
  exec {alive}> >(watch)
  total_start=$(now_ms)
  begin "Packages that the build needs"
  "$here/deps.sh" demo
  end

  begin "Building arriero"
  # Its output is shown only when it fails.
  [[ -n ${DEMO_ARRIERO:-} ]] || task "compiling with $(nproc) jobs" make --no-print-directory build ||
    die "the build failed" "make build shows all of it; make clean starts from scratch"
  end

  begin "A llama-server to run models with"
  server=$("$here/llama-bundle.sh")
  end

  begin "A small real model"
  model=$("$here/fetch-model.sh")
  end

  begin "Starting the daemon on loopback"
  tmp=${TMPDIR:-/tmp}
  ((${#tmp} <= 60)) || tmp=/tmp # a Unix socket's path has at most 107 bytes
  work=$tmp/arriero-demo.$$-$RANDOM # named before it is made, so that nothing is left of it
  mkdir -m 700 "$work" 2>/dev/null || {
    tmp=$work work=''
    die "$tmp cannot be made" "TMPDIR=/another/folder make demo"
  }
  mkdir -p "$work"/{run,state,cache,config,models}
  taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
  port=${DEMO_PORT:-11435}
  tries=0
  while taken "$port"; do
    echo "  port $port is in use, trying the next"
    port=$((port + 1)) tries=$((tries + 1))
    ((tries < 50)) || die "no free port between 11435 and $port" "DEMO_PORT=port make demo"
  done
  url=http://127.0.0.1:$port
  # Its own folders, so that it shares nothing with a daemon that already runs.
  export ARRIERO_SOCKET=$work/run/arriero.sock
  export XDG_RUNTIME_DIR=$work/run XDG_STATE_HOME=$work/state XDG_CACHE_HOME=$work/cache XDG_CONFIG_HOME=$work/config
  command=("$arriero" serve --listen "127.0.0.1:$port" --models "$(dirname "$model")" --runtime "$server"
    --socket "$ARRIERO_SOCKET" --state-dir "$work/state")
  echo "  ${command[*]/#$PWD\//}" | fold -s -w 100 | sed '2,$s/^/      /'
  "${command[@]}" >"$work/daemon.log" 2>&1 </dev/null {alive}>&- &
  daemon=$!
  waited=0
  until "$arriero" status >/dev/null 2>&1; do
    kill -0 "$daemon" 2>/dev/null || die "the daemon ended at once" "its log is below"
    ((waited < 300)) || die "the daemon did not answer within 30 s" "its log is below"
    waited=$((waited + 1))
    sleep 0.1
  done
  end

  begin "Asking: $question"
  # The daemon's own name for the file, by its path.
  id=$("$arriero" models --json 2>/dev/null | python3 -c '
import json, os, sys
want = os.path.realpath(sys.argv[1])
def walk(x):
    if isinstance(x, dict):
        if isinstance(x.get("path"), str) and os.path.realpath(x["path"]) == want and x.get("id"):
            print(x["id"]); sys.exit()
        x = x.values()
    if not isinstance(x, (str, int, float, bool, type(None))):
        for y in x: walk(y)
walk(json.load(sys.stdin))' "$model" 2>/dev/null || true)
  [[ -n $id ]] || { id=${model##*/}; id=${id%.gguf}; }
  echo "  model: $id (loaded by this question)"
  echo
  "$arriero" ask --url "$url" --model "$id" "$question" || die "no answer" "the daemon's log is below"
  echo
  end

  begin "What was placed where, and why"
  "$arriero" ps || true
  echo
  "$arriero" why "$id" || true
  end

  spent=$(seconds_since "$total_start")
  if [[ -n $once ]]; then
    stop_daemon
    cat <<TEXT

Done in $spent s; the daemon is stopped. On a terminal, make demo leaves it up until Ctrl-C, and any
OpenAI client can ask it at $url/v1.
TEXT
    exit 0
  fi
  cat <<TEXT

Done in $spent s. Any OpenAI client can now ask ${LIB_BOLD}$url/v1${LIB_OFF}, for example:

  curl $url/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "$id", "messages": [{"role": "user", "content": "Hello!"}]}'

To look at it from another terminal:

  build/arriero ps --socket $ARRIERO_SOCKET

${LIB_BOLD}Press Ctrl-C to stop it.${LIB_OFF}
TEXT
  rc=0
  wait "$daemon" || rc=$?
  daemon=''
  die "the daemon ended by itself (status $rc)" "its log is below"
}

main "$@"
