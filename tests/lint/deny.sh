#!/usr/bin/env bash
# deny.sh [--program]: judges by deny.toml what the lock files bring in: licenses, sources, and two versions of one crate. Takes the cargo-deny that
# is on PATH; where there is none it builds one below target/tools, which takes some minutes once. --program only says where it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

version=0.20.2
deny=$(command -v cargo-deny || true)
if [[ -z $deny ]]; then
  root=$(realpath -m "${CUDA_ENTRYPOINT_TOOLS:-$target/tools}")/cargo-deny-$version
  deny=$root/bin/cargo-deny
  if [[ ! -x $deny ]]; then
    echo "building cargo-deny $version, once" >&2
    # For this machine itself: not with the flags of what ships.
    (cd / && env -u CARGO_BUILD_TARGET cargo install --quiet --locked --root "$root" --target-dir "$root/build" \
      "cargo-deny@$version")
    rm -rf "$root/build"
  fi
fi

if [[ ${1:-} == --program ]]; then
  echo "$deny"
  exit
fi

for manifest in Cargo.toml tests/fuzz/Cargo.toml; do
  # The exceptions of one lock file are not met in the other.
  "$deny" --locked --log-level error --manifest-path "$manifest" \
    check --allow license-exception-not-encountered bans licenses sources
done
