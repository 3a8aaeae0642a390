# Shared helpers of the scripts in this folder. Sourced, never executed; needs bash 4.
#
# Messages go to stderr, so that a script's stdout carries only its result.

# shellcheck shell=bash

# shellcheck disable=SC2034 # used by the scripts that source this file
if [[ -t 2 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  LIB_BOLD=$'\e[1m' LIB_DIM=$'\e[2m' LIB_RED=$'\e[31m' LIB_OFF=$'\e[0m'
else
  LIB_BOLD='' LIB_DIM='' LIB_RED='' LIB_OFF=''
fi

say() { printf '%s\n' "$*" >&2; }
note() { printf '%s%s%s\n' "$LIB_DIM" "$*" "$LIB_OFF" >&2; }

# die MESSAGE [HINT]...: ends the script; every hint says what to do about it.
die() {
  printf '%serror:%s %s\n' "$LIB_RED" "$LIB_OFF" "$1" >&2
  shift
  local hint
  for hint in "$@"; do printf '  hint: %s\n' "$hint" >&2; done
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

data_home() { printf '%s\n' "${XDG_DATA_HOME:-${HOME:-/root}/.local/share}/arriero"; }

now_ms() {
  local t=${EPOCHREALTIME/[.,]/}
  printf '%s\n' "${t:0:-3}"
}

seconds_since() { # START_MS → "12.3"
  local ms=$(($(now_ms) - $1))
  printf '%d.%d\n' $((ms / 1000)) $((ms % 1000 / 100))
}

# task MESSAGE COMMAND...: runs a long command with its output in a log. On a terminal one line
# shows the time and the last line of the log; elsewhere one line when it starts. On failure the end
# of the log is shown and the command's status returned.
task() {
  local msg=$1 log fd rc=0 start ticker='' how
  shift
  # Deleted at once, so that nothing stays whatever ends the script; read through its descriptor.
  log=$(mktemp "${TMPDIR:-/tmp}/arriero-task.XXXXXX")
  exec {fd}<>"$log"
  rm -f "$log"
  log=/dev/fd/$fd
  start=$(now_ms)
  if [[ -t 2 ]]; then
    local owner=$BASHPID
    (
      trap 'exit 0' INT TERM
      while kill -0 "$owner" 2>/dev/null; do
        printf '\r\e[K  %s … %ss %s%s%s' "$msg" "$(seconds_since "$start")" "$LIB_DIM" \
          "$(tail -n 1 "$log" 2>/dev/null | tr '\r' '\n' | tail -n 1 | cut -c 1-60)" "$LIB_OFF" >&2
        sleep 0.5
      done
    ) >/dev/null &
    ticker=$!
  else
    say "  $msg …"
  fi
  "$@" >&"$fd" 2>&1 </dev/null || rc=$?
  if [[ -n $ticker ]]; then
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    printf '\r\e[K' >&2
  fi
  how='done'
  ((rc == 0)) || how="failed ($rc)"
  say "  $msg: $how in $(seconds_since "$start") s"
  if ((rc != 0)); then
    tail -n 25 "$log" | sed 's/^/    | /' >&2
  fi
  exec {fd}>&-
  return "$rc"
}

# linked_in DIR PREFIX: the programs that a build folder would link below a path, as ninja names them.
linked_in() {
  ninja -C "$1" build.ninja >/dev/null # it may be older than the list of programs
  ninja -C "$1" -t targets all | sed -n "s,^\($2[^:]*\): c_LINKER.*,\1,p"
}

# configure DIR MESON_OPTION...: meson setup, once. One that was interrupted left a folder that Meson
# itself neither uses nor replaces; it begins anew.
configure() {
  local dir=$1
  shift
  [[ ! -f $dir/build.ninja ]] || return 0
  rm -rf "$dir"/meson-*
  meson setup "$dir" "$@"
}

os_field() { # NAME → value in os-release, or nothing
  # shellcheck disable=SC1091
  (. /etc/os-release 2>/dev/null && printf '%s\n' "${!1:-}") || true
}

# The first mirror that this machine's own apt sources name for its own release.
apt_own_mirror() {
  local codename
  codename=$(os_field VERSION_CODENAME)
  {
    { cat /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } |
      awk -v want="$codename" '
        function flush() { if (types ~ /(^| )deb( |$)/ && index(" " suites " ", " " want " ")) print uris; types=uris=suites="" }
        /^[[:space:]]*$/ { flush(); next }
        /^#/ { next }
        { key = tolower($1); $1 = ""; sub(/^ /, "") }
        key == "types:" { types = $0 } key == "uris:" { uris = $0 } key == "suites:" { suites = $0 }
        key == "enabled:" && tolower($0) == "no" { types = "" }
        END { flush() }'
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
      sed -n 's/^[[:space:]]*deb[[:space:]]\+\(\[[^]]*\][[:space:]]*\)\?//p' |
      awk -v want="$codename" '$2 == want { print $1 }'
  } | awk 'NF && !done { print $1; done = 1 }'
}

# apt_private DIR SUITE: prepares DIR as a private apt state with one Debian suite from the
# machine's own mirror, checked against Debian's keyring; the machine's own sources stay untouched.
# Afterwards `apt_in DIR apt-get …` works on it. No root needed.
apt_private() {
  local dir=$1 suite=$2 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [[ -r $keyring ]] || { say "  no $keyring to check downloads with"; return 1; }
  mirror=$(apt_own_mirror)
  [[ -n $mirror ]] || { say "  the machine's apt sources name no mirror for its own release"; return 1; }
  mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/debs"
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$suite" >"$dir/sources.list"
  task "reading the package list of Debian $suite" apt_private_update "$dir"
}

apt_private_update() {
  # A mirror that lags behind serves a Release file past its date; its signature still holds.
  apt_in "$1" apt-get -q update || {
    touch "$1/stale-ok"
    apt_in "$1" apt-get -q update
  }
}

apt_in() {
  local dir=$1 tool=$2 valid=()
  shift 2
  [[ ! -e $dir/stale-ok ]] || valid=(-o Acquire::Check-Valid-Until=false)
  "$tool" -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache" -o Dir::State::status=/dev/null \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o APT::Sandbox::User= -o APT::Get::List-Cleanup=0 -o APT::Update::Error-Mode=any \
    -o Acquire::Languages=none -o Acquire::Retries=3 "${valid[@]}" "$@"
}
