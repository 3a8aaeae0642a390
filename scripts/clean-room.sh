#!/usr/bin/env bash
# Proves the README: a fresh Debian, a clean clone of HEAD, the two commands exactly as written.
#
#   [SUITES="bookworm trixie"] [COMMANDS="demo test"] [KEEP_LOGS=dir] scripts/clean-room.sh
#
# Needs root. Each suite gets a minimal chroot (mmdebstrap, minbase, plus ca-certificates, make, git)
# from this machine's own mirror. Downloaded packages are kept for the next run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

((EUID == 0)) || die "a chroot needs root" "sudo make clean-room"
"$here/deps.sh" clean-room
read -ra suites <<<"${SUITES:-bookworm trixie}"
read -ra commands <<<"${COMMANDS:-demo test}"
logs=${KEEP_LOGS:-$PWD/build/clean-room}
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/arriero/clean-room
mirror=$(apt_own_mirror)
[[ -n $mirror ]] || die "this machine's apt sources name no mirror" "see /etc/apt"
if [[ $(os_field ID) != debian ]]; then
  die "the mirror of this machine is not Debian's" "run this on Debian"
fi
mkdir -p "$logs" "$cache"
if [[ -n $(git status --porcelain) ]]; then
  note "the working tree has changes; the clean room tests HEAD ($(git rev-parse --short HEAD)) without them"
fi

work=$(mktemp -d /var/tmp/arriero-clean-room.XXXXXX)
root=''
leave() {
  local m
  [[ -n $root ]] || return 0
  # Deepest first; whatever was mounted below the chroot.
  while read -r m; do
    umount "$m" 2>/dev/null || umount -l "$m"
  done < <(awk -v r="$root/" 'index($5 "/", r) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
  if awk -v r="$root/" 'index($5 "/", r) == 1 { bad = 1 } END { exit !bad }' /proc/self/mountinfo; then
    say "still mounted below $root: not deleted"
    return 1
  fi
  rm -rf --one-file-system "$root"
  root=''
}
finish() {
  local rc=$?
  trap '' INT TERM
  leave || rc=1
  [[ -n $root ]] || rm -rf --one-file-system "$work"
  exit "$rc"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What this machine needs to reach its registries, the chroot needs too: proxies, certificates, pip's
# configuration. Nothing else is carried over.
carry_network() {
  local f var
  install -d "$root/etc/apt/apt.conf.d"
  for f in /etc/apt/apt.conf.d/*; do
    if [[ -f $f ]] && grep -Eqi '(acquire::(https?|ftp)|proxy|cainfo)' "$f"; then
      install -m 644 "$f" "$root/etc/apt/apt.conf.d/"
    fi
  done
  [[ ! -e /etc/resolv.conf ]] || cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  [[ ! -e /etc/hosts ]] || cp -L /etc/hosts "$root/etc/hosts"
  if [[ -r /etc/ssl/certs/ca-certificates.crt ]]; then
    install -m 644 -D /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  fi
  for f in /etc/pip.conf "${HOME:-/root}/.config/pip/pip.conf" "${HOME:-/root}/.pip/pip.conf"; do
    [[ ! -r $f ]] || install -m 644 -D "$f" "$root/etc/pip.conf"
  done
  carried=()
  while IFS= read -r var; do
    carried+=("$var=${!var}")
  done < <(compgen -e | grep -Ei '^(https?_proxy|no_proxy|all_proxy|ftp_proxy|pip_[a-z_]+|ssl_cert_file|ssl_cert_dir|curl_ca_bundle|requests_ca_bundle|git_ssl_cainfo)$' |
    grep -Eiv '^pip_find_links$' || true)
}

table=() failed=0
for suite in "${suites[@]}"; do
  say "== $suite: a fresh chroot"
  root=$work/$suite
  mkdir -p "$cache/$suite"
  # Packages of earlier runs are put into apt's cache, and new ones taken out of it.
  task "mmdebstrap $suite" mmdebstrap --variant=minbase --mode=root --include=ca-certificates,make,git \
    --skip=download/empty,cleanup/apt/cache \
    --setup-hook='mkdir -p "$1"/var/cache/apt/archives' \
    --setup-hook="cp -n $cache/$suite/*.deb \"\$1\"/var/cache/apt/archives/ 2>/dev/null || true" \
    --aptopt='APT::Keep-Downloaded-Packages "true"' \
    "$suite" "$root" "$mirror" || die "mmdebstrap $suite failed" "see above"
  # apt keeps what it downloads, so that the next run has it
  echo 'APT::Keep-Downloaded-Packages "true";' >"$root/etc/apt/apt.conf.d/99keep"
  rm -f "$root/etc/apt/apt.conf.d/docker-clean"
  carry_network
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount --make-rslave "$root/dev"
  git clone -q --no-hardlinks "file://$PWD" "$root/root/arriero"
  say "   $(git -C "$root/root/arriero" log --oneline -n 1)"
  for command in "${commands[@]}"; do
    log=$logs/$suite-$command.log
    say "== $suite: make $command   (log: ${log#"$PWD/"})"
    start=$(now_ms) rc=0
    env -i HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      "${carried[@]}" chroot "$root" /bin/sh -c "cd /root/arriero && make $command" >"$log" 2>&1 </dev/null || rc=$?
    seconds=$(seconds_since "$start")
    result=ok
    if ((rc != 0)); then
      result="failed ($rc)"
      failed=1
      tail -n 40 "$log" | sed 's/^/   | /' >&2
    else
      tail -n 3 "$log" | sed 's/^/   | /' >&2
    fi
    table+=("$(printf '%-10s %-12s %-12s %8s s   %s' "$suite" "make $command" "$result" "$seconds" "$(tail -n 1 "$log" | cut -c 1-60)")")
    # what the command left running would hold the chroot
    left=()
    for p in /proc/[0-9]*; do
      [[ $(readlink "$p/root" 2>/dev/null) != "$root" ]] || left+=("${p#/proc/}")
    done
    if ((${#left[@]})); then
      failed=1
      for p in "${left[@]}"; do
        table+=("$(printf '%-10s %-12s left a process behind: %s' "$suite" "make $command" "$(tr '\0' ' ' <"/proc/$p/cmdline" | cut -c 1-80)")")
        kill -KILL "$p" 2>/dev/null || true
      done
    fi
  done
  cp -n "$root"/var/cache/apt/archives/*.deb "$cache/$suite/" 2>/dev/null || true
  leave
done

printf '\n%-10s %-12s %-12s %10s   %s\n' suite command result time 'last line'
printf '%s\n' "${table[@]}"
exit "$failed"
