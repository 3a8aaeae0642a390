#!/usr/bin/env bash
# Prints the path of a llama-server that runs here; makes one when there is none.
#
#   scripts/llama-bundle.sh [--bundle] [--refresh]
#
# A llama-server on PATH wins (a CUDA build, a distribution's, Homebrew's), if it runs. Otherwise a
# relocatable bundle of Debian's llama.cpp, with the C library it was built for, is unpacked under
# ${XDG_DATA_HOME:-~/.local/share}/arriero/llama.cpp/VERSION/. No root, nothing installed.
#   --bundle   do not look on PATH (tests want the bundle's companion tools)
#   --refresh  ask the mirror for a newer version even when a bundle is there
# Stdout carries the path only.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

look_on_path=true refresh=false
for arg in "$@"; do
  case $arg in
    --bundle) look_on_path=false ;;
    --refresh) refresh=true ;;
    *) die "usage: scripts/llama-bundle.sh [--bundle] [--refresh]" ;;
  esac
done

do_this_instead='install llama.cpp yourself (its releases, your distribution, or a build from source) and put llama-server on PATH'

runs() { "$1" --version >/dev/null 2>&1 </dev/null; }

if $look_on_path && found=$(command -v llama-server); then
  if runs "$found"; then
    say "  llama-server on PATH: $found"
    printf '%s\n' "$found"
    exit 0
  fi
  say "  llama-server on PATH does not run ($found --version fails), so it is not used"
fi

root=$(data_home)/llama.cpp
newest_bundle() {
  local dir
  while IFS= read -r dir; do
    if [[ -x $dir/llama-server ]] && runs "$dir/llama-server"; then
      printf '%s\n' "$dir/llama-server"
      return 0
    fi
  done < <(find "$root" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' 2>/dev/null | sort -rV)
  return 1
}

if ! $refresh && found=$(newest_bundle); then
  say "  llama-server of the bundle: $found"
  printf '%s\n' "$found"
  exit 0
fi

[[ $(uname -s) == Linux ]] || die "no llama-server found, and a bundle can be made on Linux only" "$do_this_instead"
for tool in apt-get dpkg-deb patchelf; do
  have "$tool" || die "no llama-server found, and making a bundle needs $tool" \
    "as root: scripts/deps.sh demo" "or $do_this_instead"
done

mkdir -p "$root"
# One maker at a time: a second one waits, then finds the finished bundle.
exec 9>"$root/.lock"
have flock && flock 9
if ! $refresh && found=$(newest_bundle); then
  printf '%s\n' "$found"
  exit 0
fi

tmp=$(mktemp -d "$root/.making.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "  no llama-server on PATH: making a relocatable bundle from Debian's packages"
apt_private "$tmp/apt" forky || die "the package list could not be read" "$do_this_instead"

version=$(apt_in "$tmp/apt" apt-cache show llama.cpp-tools 2>/dev/null | awk '$1 == "Version:" && !done { print $2; done = 1 }')
[[ -n $version ]] || die "the mirror has no llama.cpp-tools for $(dpkg --print-architecture)" "$do_this_instead"
dest=$root/${version#*:} # without the epoch
if [[ -x $dest/llama-server ]] && runs "$dest/llama-server"; then
  say "  the newest bundle is there already: $dest"
  printf '%s\n' "$dest/llama-server"
  exit 0
fi

packages=(llama.cpp-tools llama.cpp-tools-extra libllama0 libggml0 libggml0-backend-rpc
  libc6 libgcc-s1 libgomp1 libstdc++6 libssl3t64 libzstd1 zlib1g)
optional=(libggml0-backend-vulkan libvulkan1)
fetch() { cd "$tmp/apt/debs" && apt_in "$tmp/apt" apt-get -q download "$@"; }
(task "downloading llama.cpp $version and its libraries" fetch "${packages[@]}") ||
  die "the download failed" "run this again" "or $do_this_instead"
(task "downloading its Vulkan backend" fetch "${optional[@]}") ||
  say "  no Vulkan backend; the bundle works without"

assemble() {
  local deb out=$tmp/out all=$tmp/all loader f
  mkdir -p "$all" "$out"
  for deb in "$tmp"/apt/debs/*.deb; do dpkg-deb -x "$deb" "$all"; done
  # Libraries under their sonames only (libx.so.1, not libx.so.1.2.3), copied through the links.
  while IFS= read -r f; do
    [[ ! -e $f ]] || cp -L "$f" "$out/${f##*/}"
  done < <(find "$all" \( -path '*/ggml/backends0/libggml-*.so' -o -path '*/llama/*.so' \
    -o -path '*/lib/*-linux-gnu/*.so.*' -o -path '*/lib64/ld-linux*.so.*' -o -path '*/lib/ld-linux*.so.*' \) \
    -regex '.*\.so\(\.[0-9]+\)?' ! -path '*/gconv/*' ! -path '*/audit/*' ! -path '*/engines*' \
    ! -path '*/ossl-modules/*' ! -name 'libnss_hesiod*' ! -name 'libnss_compat*' ! -name libthread_db.so.1 \
    ! -name 'libc_malloc_debug*' ! -name 'libBrokenLocale*' ! -name 'libnsl*')
  while IFS= read -r f; do
    cp -L "$f" "$out/${f##*/}"
  done < <(find "$all/usr/bin" "$all"/usr/lib*/*/llama "$all"/usr/libexec -type f -perm -u+x ! -name '*.so*' ! -name 'test-*' 2>/dev/null)
  loader=$(find "$out" -name 'ld-linux*.so.*' -printf '%f\n' | head -n 1)
  [[ -n $loader ]] || { echo "no dynamic loader in libc6"; return 1; }
  for f in "$out"/*; do
    if [[ $(head -c 4 "$f" | od -An -tx1 | tr -d ' \n') != 7f454c46 ]]; then
      rm -f "$f" # wrappers and scripts of the packages
    elif [[ $f == */ld-linux* || $f == */libc.so.* ]]; then
      chmod 755 "$f"
    elif patchelf --print-interpreter "$f" >/dev/null 2>&1; then
      patchelf --set-interpreter "$dest/$loader" --force-rpath --set-rpath '$ORIGIN' "$f"
      chmod 755 "$f"
    else
      patchelf --force-rpath --set-rpath '$ORIGIN' "$f"
    fi
  done
  cp "$all"/usr/share/doc/llama.cpp-tools/copyright "$out/copyright" 2>/dev/null || true
  printf '%s\n' "$version" >"$out/VERSION"
  [[ -x $out/llama-server ]] || { echo "no llama-server in the packages"; return 1; }
}
task "assembling the bundle" assemble || die "the bundle could not be assembled" "$do_this_instead"

if [[ -e $dest ]]; then mv "$dest" "$tmp/replaced"; fi
mv "$tmp/out" "$dest"
"$dest/llama-server" --version >"$tmp/log" 2>&1 </dev/null || {
  mv "$dest" "$tmp/broken"
  sed 's/^/    | /' "$tmp/log" >&2
  die "the bundle's llama-server does not run on this machine" "$do_this_instead"
}
say "  made $dest ($(du -sm "$dest" | cut -f1) MB)"
printf '%s\n' "$dest/llama-server"
