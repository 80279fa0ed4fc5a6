#!/usr/bin/env bash
# compare.sh: the cases of an init through `cuda-entrypoint run --init`, tini and catatonit, as a table. Needs root
# (unshare), tini and catatonit. The binary is dist/cuda-entrypoint (make build), else a release build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

for program in unshare tini catatonit; do
  if ! command -v "$program" >/dev/null; then
    echo "compare: $program is not installed" >&2
    exit 1
  fi
done

binary=$dist/cuda-entrypoint
if [[ ! -x $binary ]]; then
  cargo build --quiet --locked --release
  binary=$target/x86_64-unknown-linux-gnu/release/cuda-entrypoint
fi
tini --version
catatonit --version
COMPARE_ENTRYPOINT=$binary cargo test --quiet --locked --test integration init::compare::compare -- --ignored --nocapture
