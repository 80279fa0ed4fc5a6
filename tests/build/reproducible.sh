#!/usr/bin/env bash
# Builds the tree twice, in two folders whose paths differ in length and with two cargo homes, and compares the bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

tests/build/prerequisites.sh build
CUDA_ENTRYPOINT_TOOLS=$(realpath -m "${CUDA_ENTRYPOINT_TOOLS:-$target/tools}")
export CUDA_ENTRYPOINT_TOOLS

cargo_home=${CARGO_HOME:-$HOME/.cargo}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sums=()
for folder in "$work/a" "$work/a folder with a longer name/b"; do
  mkdir -p "$folder"
  working_tree | tar --extract --directory "$folder"
  # A cargo home of another name with the same downloads and settings.
  home=$folder/cargo-home
  mkdir "$home"
  for part in config.toml config registry git; do
    if [[ -e $cargo_home/$part ]]; then ln -s "$cargo_home/$part" "$home/$part"; fi
  done
  env -u CARGO_TARGET_DIR CARGO_HOME="$home" "$folder/tests/build/build.sh"
  sums+=("$(sha256sum "$folder/dist/cuda-entrypoint" | cut -d ' ' -f 1)")
  cp "$folder/dist/cuda-entrypoint" "$work/build-${#sums[@]}"
  rm -rf "$folder"
done

if [[ ${sums[0]} != "${sums[1]}" ]]; then
  mkdir -p "$target/reproducible"
  cp "$work"/build-[12] "$target/reproducible/"
  echo "not reproducible: ${sums[0]} and ${sums[1]}; both are kept in $target/reproducible" >&2
  exit 1
fi
echo "reproducible: two builds in two folders, sha256 ${sums[0]}"
