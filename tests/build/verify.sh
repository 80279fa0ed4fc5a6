#!/usr/bin/env bash
# verify.sh [FILE [HELPER]]: fails unless FILE (dist/cuda-entrypoint) is what `make build` promises: static, stripped,
# small, with HELPER inside, whose glibc floor is 2.17. HELPER is the one that the last build left, unless named.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

file=${1:-$dist/cuda-entrypoint}
case $(readelf --file-header "$file" 2>/dev/null) in
  *AArch64*) arch=aarch64 ;;
  *) arch=x86_64 ;;
esac
helper=${2:-$target/helper/$arch-unknown-linux-gnu/release/cuda-helper}
max_bytes=$((5 * 1024 * 1024 / 2))
floor=2.17

wrong=0
complain() {
  echo "verify: $*" >&2
  wrong=1
}

for each in "$file" "$helper"; do
  if ! readelf --file-header "$each" >/dev/null 2>&1; then
    echo "verify: $each is not there or not an ELF file; run: make build" >&2
    exit 1
  fi
  # Symbols and debug information: half the size, and the names of this machine's folders.
  if readelf --section-headers --wide "$each" | grep -Eq ' \.(symtab|debug_[a-z]+) '; then
    complain "$each is not stripped"
  fi
  # A build folder in the bytes would tell on the builder and differ elsewhere. Short names such as /src are parts of
  # the standard library's own file names, and prove nothing.
  for folder in "$PWD" "$target" "${CARGO_HOME:-$HOME/.cargo}"; do
    if [[ $folder == /*/* ]] && LC_ALL=C grep -aFq "$folder/" "$each"; then
      complain "$each names the folder $folder"
    fi
  done
done

interpreter=$(readelf --program-headers --wide "$file" | grep -c INTERP || true)
[[ $interpreter == 0 ]] || complain "$file asks for an interpreter (PT_INTERP): it is not static"
needed=$(readelf --dynamic --wide "$file" | grep NEEDED || true)
[[ -z $needed ]] || complain "$file needs shared libraries: $needed"

bytes=$(stat -c %s "$file")
if ((bytes > max_bytes)); then
  # glibc is a fifth of it, and each release of glibc has another size: releases for x86-64 are built with Debian 12's.
  if [[ $arch == aarch64 || $(getconf GNU_LIBC_VERSION) == "glibc 2.36" ]]; then
    complain "$file has $bytes bytes, more than the $max_bytes that it may have"
  else
    echo "verify: warning: $file has $bytes bytes, more than $max_bytes: with the $(getconf GNU_LIBC_VERSION) of this" \
      "machine; with glibc 2.36 it must not" >&2
  fi
fi

# The helper is the one part that must be dynamic: it loads the CUDA libraries.
readelf --program-headers --wide "$helper" | grep -q INTERP || complain "$helper has no interpreter: it is static"
newest=$(readelf --version-info --wide "$helper" | grep -Eo 'GLIBC_[0-9.]+' | cut -d _ -f 2 | sort -uV | tail -n 1 || true)
if [[ -z $newest ]]; then
  complain "$helper states no glibc version at all"
elif [[ $(printf '%s\n' "$newest" "$floor" | sort -V | tail -n 1) != "$floor" ]]; then
  complain "$helper needs glibc $newest, newer than $floor"
fi

# Inside it is packed, so it is asked to unpack it.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
run=()
[[ $arch == "$(uname -m)" ]] || run=(tests/build/emulate.sh)
status=0
"${run[@]}" "$file" install "$scratch" >/dev/null || status=$?
if [[ $status == 69 && ${#run[@]} != 0 ]]; then
  echo "verify: warning: $file was not run, so nobody has seen the helper in it" >&2
else
  ((status == 0)) || complain "$file cannot install itself"
  cmp --silent "$helper" "$scratch/cuda-helper" || complain "$file does not contain $helper byte for byte"
  cmp --silent "$file" "$scratch/cuda-entrypoint" || complain "$file does not install itself byte for byte"
fi

((wrong)) || echo "verify: $file is static, stripped, $bytes bytes; its helper needs glibc $newest"
exit "$wrong"
