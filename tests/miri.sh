#!/usr/bin/env bash
# The unit tests of the modules that only compute, under miri, which knows no system calls and no foreign functions:
# `unsafe` of the crates that unpack, parse and compare is run here, the project's own under valgrind (tests/valgrind.rs).
# Needs a nightly toolchain with the components miri and rust-src, and is no part of CI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/build/folders.sh

toolchain=${MIRI_TOOLCHAIN:-nightly}
if ! cargo "+$toolchain" miri --version >/dev/null 2>&1; then
  echo "miri: NOT TESTED: the toolchain $toolchain has none; run:" \
    "rustup component add --toolchain $toolchain miri rust-src" >&2
  exit 1
fi

modules=(
  arch:: capture:: check:: checks:: cli:: cuda_errors:: facts:: packed:: signal:: smoke::decode:: stack::
  discover::elf:: discover::fatbin:: discover::ld_cache:: discover::nvidia_require:: discover::requirement::
  receipt::key:: report::
)
# A file of some bytes has to stand for the helper, which is another program.
CUDA_ENTRYPOINT_HELPER_BIN=$PWD/LICENSE-MIT cargo "+$toolchain" miri test --locked --lib --target-dir "$target/miri" -- \
  "${modules[@]}"
