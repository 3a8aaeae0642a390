#!/usr/bin/env bash
# Installs what a step of the build needs, or names what is missing.
#
#   scripts/deps.sh build|test|demo|bench|torture|lint|fuzz|valgrind|clean-room…
#
# On Debian and Ubuntu, as root or with sudo, missing packages are installed with apt-get. Elsewhere
# the missing tools and libraries are listed and the script fails. Safe to run again: when nothing
# is missing it only asks dpkg and returns. ARRIERO_NO_INSTALL=1 never installs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

# One row a need: set | Debian packages | how to see it without dpkg (tool, or pkg:NAME for pkg-config, or hdr:HEADER)
needs() {
  cat <<'ROWS'
build|gcc libc6-dev|gcc
build|meson|meson
build|ninja-build|ninja
build|pkg-config|pkg-config
build|libuv1-dev|pkg:libuv
build|libllhttp-dev|hdr:llhttp.h
build|libyyjson-dev|hdr:yyjson.h
build|libyaml-dev|pkg:yaml-0.1
build|libsqlite3-dev|pkg:sqlite3
build|libssl-dev|pkg:openssl
demo|patchelf|patchelf
demo|python3 python3-venv|python3
test|libcmocka-dev|pkg:cmocka
test|patchelf|patchelf
test|python3 python3-venv|python3
test|curl|curl
test|openssl|openssl
bench|nginx|nginx
bench|haproxy|haproxy
torture|slowhttptest|slowhttptest
lint|clang-format|clang-format
lint|clang-tidy|clang-tidy
lint|cppcheck|cppcheck
fuzz|clang libclang-rt-dev|clang
valgrind|valgrind libc6-dbg|valgrind
clean-room|mmdebstrap|mmdebstrap
ROWS
}

sets=()
for arg in "$@"; do
  case $arg in
    build) sets+=(build) ;;
    demo) sets+=(build demo) ;;
    test) sets+=(build test) ;;
    bench) sets+=(build test bench) ;;
    torture) sets+=(build test torture) ;;
    lint) sets+=(build test lint) ;;
    format) sets+=(format) ;;
    fuzz) sets+=(build test fuzz) ;;
    valgrind) sets+=(build test valgrind) ;;
    clean-room) sets+=(clean-room) ;;
    *) die "unknown set of packages: $arg" "one of build test demo bench torture lint format fuzz valgrind clean-room" ;;
  esac
done
((${#sets[@]})) || die "usage: scripts/deps.sh build|test|demo|bench|torture|lint|format|fuzz|valgrind|clean-room"

# check-format needs one tool of the lint set
rows() {
  local set
  for set in "${sets[@]}"; do
    if [[ $set == format ]]; then
      needs | awk -F'|' '$2 == "clang-format"'
    else
      needs | awk -F'|' -v s="$set" '$1 == s'
    fi
  done
}

present_without_dpkg() { # need → 0 when there
  case $1 in
    pkg:*) have pkg-config && pkg-config --exists "${1#pkg:}" ;;
    hdr:*) have cc && printf '#include <%s>\n' "${1#hdr:}" | cc -fsyntax-only -xc - 2>/dev/null ;;
    *) have "$1" ;;
  esac
}

missing_packages() {
  local want
  mapfile -t want < <(rows | cut -d'|' -f2 | tr ' ' '\n' | sort -u)
  comm -23 <(printf '%s\n' "${want[@]}") \
    <(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${want[@]}" 2>/dev/null | awk '$1 == "ii" { print $2 }' | sort -u)
}

if ! have dpkg-query || ! have apt-get; then
  missing=()
  while IFS='|' read -r _ packages probe; do
    present_without_dpkg "$probe" || missing+=("${probe#*:}  (Debian's name: $packages)")
  done < <(rows)
  ((${#missing[@]})) || exit 0
  say "missing for: $*"
  for m in "${missing[@]}"; do say "  $m"; done
  die "this system has no apt-get, so nothing was installed" \
    "install the packages above with your system's package manager and run this again"
fi

mapfile -t missing < <(missing_packages)
((${#missing[@]})) || exit 0

as_root=()
if ((EUID != 0)); then
  if have sudo && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
    as_root=(sudo)
  else
    ARRIERO_NO_INSTALL=1
  fi
fi
if [[ -n ${ARRIERO_NO_INSTALL:-} ]]; then
  say "missing packages for: $*"
  say "  ${missing[*]}"
  die "they are not installed, and this user may not install them" \
    "as root: apt-get install --no-install-recommends ${missing[*]}" \
    "or run scripts/deps.sh $* as root"
fi

apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 \
    -o Acquire::Retries=3 "$@"
}

candidate() { # PACKAGE → 0 when apt could install it
  apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" { ok = 1 } END { exit !ok }'
}

# Debian 12 lacks two libraries that Debian 13 has; they install cleanly on it.
from_trixie=() plain=()
on_bookworm=false
[[ $(os_field ID) != debian || $(os_field VERSION_CODENAME) != bookworm ]] || on_bookworm=true
for p in "${missing[@]}"; do
  if $on_bookworm && [[ $p == libllhttp-dev || $p == libyyjson-dev ]] && ! candidate "$p"; then
    case $p in
      libllhttp-dev) from_trixie+=(libllhttp9.2 libllhttp-dev) ;;
      libyyjson-dev) from_trixie+=(libyyjson0 libyyjson-dev) ;;
    esac
  else
    plain+=("$p")
  fi
done

install_plain() {
  local p
  say "installing ${#plain[@]} packages: ${plain[*]}"
  for p in "${plain[@]}"; do
    candidate "$p" && continue
    task "apt-get update" apt update || die "apt-get update failed" \
      "check the network and the sources in /etc/apt, then run this again"
    break
  done
  for p in "${plain[@]}"; do
    candidate "$p" || die "this system's package sources have no $p" \
      "install it by hand, or use Debian 12 or 13 (there it is in the main section)"
  done
  task "apt-get install" apt install --no-install-recommends "${plain[@]}" && return 0
  # Lists older than the mirror name files that are gone.
  task "apt-get update" apt update || true
  task "apt-get install, again with fresh lists" apt install --no-install-recommends "${plain[@]}"
}

# Servers of the benchmarks must not start, now or at the next boot, because a benchmark needs them.
quiet_services() {
  local service policy=/usr/sbin/policy-rc.d made=false rc=0 new=()
  for service in nginx haproxy; do
    [[ " ${plain[*]} " != *" $service "* ]] || new+=("$service")
  done
  ((${#new[@]})) || { install_plain; return; }
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    made=true
  fi
  install_plain || rc=$?
  ! $made || "${as_root[@]}" rm -f "$policy"
  ! have systemctl || "${as_root[@]}" systemctl -q disable "${new[@]}" 2>/dev/null || true
  return "$rc"
}

if ((${#plain[@]})); then
  quiet_services || die "some packages could not be installed: ${plain[*]}" \
    "see the messages above; as root: apt-get install ${plain[*]}"
fi

if ((${#from_trixie[@]})); then
  say "installing from Debian 13, because Debian 12 lacks them: ${from_trixie[*]}"
  tmp=$(mktemp -d "${TMPDIR:-/tmp}/arriero-deps.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  apt_private "$tmp" trixie || die "the package list of Debian 13 could not be read" \
    "install by hand, as root: ${from_trixie[*]} from Debian's trixie suite"
  fetch() { cd "$tmp/debs" && apt_in "$tmp" apt-get -q download "${from_trixie[@]}"; }
  (task "downloading ${#from_trixie[@]} packages" fetch) || die "the download failed" \
    "install by hand, as root: ${from_trixie[*]} from Debian's trixie suite"
  install_debs() {
    local tries
    for tries in 1 2 3 4 5 6; do
      "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 \
        install --no-install-recommends "$tmp"/debs/*.deb && return 0
      # dpkg's lock may be held by another installation between two of ours
      sleep "$tries"
    done
    return 1
  }
  task "installing them" install_debs || die "they could not be installed" \
    "see the messages above"
fi

mapfile -t missing < <(missing_packages)
((${#missing[@]} == 0)) || die "still missing: ${missing[*]}" "see the messages above"
