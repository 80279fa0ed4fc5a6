#!/usr/bin/env bash
# tools.sh NAME: installs tests/requirements/NAME.txt into a folder of its own and prints that folder. The folder is
# made anew when the requirements change, and is only ever seen complete.
# CUDA_ENTRYPOINT_TOOLS: the folder to hold the tools (target/tools).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

name=$1
requirements=tests/requirements/$name.txt
root=$(realpath -m "${CUDA_ENTRYPOINT_TOOLS:-$target/tools}")
folder=$root/$name-$(sha256sum "$requirements" | cut -c 1-12)

if [[ ! -d $folder ]]; then
  mkdir -p "$root"
  partial=$(mktemp -d "$root/.$name-XXXXXX")
  trap 'rm -rf "$partial"' EXIT
  echo "installing the tools of $requirements" >&2
  tests/build/pip.sh install --quiet --no-deps --only-binary=:all: --require-hashes \
    --target "$partial/tools" --requirement "$requirements" >&2
  # Another make may have been faster: its folder is as good.
  mv --no-target-directory "$partial/tools" "$folder" 2>/dev/null || [[ -d $folder ]]
fi
printf '%s\n' "$folder"
