#!/usr/bin/env bash
# prepare.sh: all that the tests of the aarch64 binary need, each made once: the binary, the fake driver, real wheels, and in
# target/cross/image a Debian 12 for arm64 that holds them. Packages are unpacked and not configured: that needs no emulator.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

image=$target/cross/image
[[ $(uname -m) != aarch64 ]] || dist_name=cuda-entrypoint
tests/build/build.sh aarch64
fakes=$(tests/build/fakes.sh aarch64)

if [[ ! -e $image/.complete ]]; then
  if ! command -v debootstrap >/dev/null || ((EUID != 0)); then
    echo "prepare.sh: an image for arm64 needs root and debootstrap; run: apt-get install -y debootstrap" >&2
    exit 1
  fi
  echo "unpacking Debian 12 for arm64 in $image" >&2
  rm -rf --one-file-system "$image"
  mkdir -p "$(dirname "$image")"
  # Which is not the loader's search path, so nothing but PYTHONPATH leads to the packages.
  if ! debootstrap --foreign --arch=arm64 --variant=minbase --include=python3-minimal,libstdc++6,zlib1g \
    bookworm "$image" >"$image.log" 2>&1; then
    tail -n 20 "$image.log" >&2
    echo "prepare.sh: debootstrap failed; is Debian's mirror within reach?" >&2
    exit 1
  fi
  for package in "$image"/var/cache/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$image"
    rm "$package"
  done
  touch "$image/.complete"
fi
unpacked() { # FOLDER ARGUMENT...: what wheels.py gives for the arguments lies in the image's folder
  local folder=$image/$1 wheels
  shift
  wheels=$(tests/build/wheels.py --files "$@")
  rm -rf "$folder"
  mkdir -p "$folder"
  while IFS= read -r wheel; do python3 -m zipfile -e "$wheel" "$folder"; done <<<"$wheels"
}
unpacked cuda --machine aarch64 aarch64:nvidia-cuda-runtime-cu12,nvidia-cuda-nvrtc-cu12
unpacked torchvision --machine aarch64 aarch64:torchvision
unpacked other demo:nvidia-cuda-runtime-cu12,nvidia-cuda-nvrtc-cu12,cumm-cu124
mkdir -p "$image/driver"
cp "$fakes"/*.so.1 "$image/driver/"
install -m 755 "$dist/${dist_name:-cuda-entrypoint-aarch64}" "$image/cuda-entrypoint"
