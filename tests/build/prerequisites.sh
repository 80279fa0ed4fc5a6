#!/usr/bin/env bash
# prerequisites.sh [build|test|lint|demo]: says what this machine lacks and the one command that mends it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

purpose=${1:-build}
have() { command -v "$1" >/dev/null 2>&1; }

if [[ $(uname -sm) != "Linux x86_64" && $(uname -sm) != "Linux aarch64" ]]; then
  echo "cuda-entrypoint builds on Linux, on x86_64 and aarch64; this is $(uname -sm)" >&2
  exit 1
fi
triple=$(uname -m)-unknown-linux-gnu

packages=() # by Debian's names
have make || packages+=(make)
have python3 || packages+=(python3 python3-venv)
have readelf || packages+=(binutils)
if ! have cc; then
  packages+=(gcc libc6-dev)
elif [[ $purpose != lint ]]; then
  # The entrypoint is linked statically: that takes libc.a, which some distributions package on its own.
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  echo 'int main(void) { return 0; }' >"$scratch/main.c"
  cc -static -o "$scratch/main" "$scratch/main.c" 2>/dev/null || packages+=(libc6-dev)
fi
if have python3 && ! python3 -m pip --version >/dev/null 2>&1 && ! python3 -c 'import ensurepip' 2>/dev/null; then
  packages+=(python3-venv)
fi
if [[ $purpose == lint ]]; then
  have git || packages+=(git)
  have shellcheck || packages+=(shellcheck)
  # `kubectl kustomize` is kustomize, which Debian does not package by itself.
  have kustomize || have kubectl || packages+=(kubernetes-client)
fi

missing=0
if ((${#packages[@]})); then
  missing=1
  if have dnf; then
    fedora=("${packages[@]/#libc6-dev/glibc-static}")
    fedora=("${fedora[@]/#python3-venv/python3-pip}")
    fedora=("${fedora[@]/#shellcheck/ShellCheck}")
    echo "missing: ${packages[*]}; run: dnf install -y ${fedora[*]}" >&2
  else
    echo "missing: ${packages[*]}; run: apt-get install -y ${packages[*]}" >&2
  fi
fi

# Distributions' own Rust is often older than the edition that this project is written in.
minimum=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if ! have cargo; then
  missing=1
  echo "missing: cargo $minimum or newer; install Rust as https://rustup.rs says, or put cargo on PATH" >&2
else
  version=$(cargo --version | cut -d ' ' -f 2)
  if [[ $(printf '%s\n' "$minimum" "$version" | sort -V | head -n 1) != "$minimum" ]]; then
    missing=1
    echo "cargo is $version, needed is $minimum or newer; run: rustup update" >&2
  elif ! [[ -d $(rustc --print target-libdir --target "$triple") ]]; then
    missing=1
    echo "no standard library for $triple; run: rustup target add $triple" >&2
  fi
fi
exit "$missing"
