#!/usr/bin/env bash
# msrv.sh: compiles everything that ships with the oldest Rust that Cargo.toml states, where rustup has it. Where it has not,
# clippy's lint of newer functions (incompatible_msrv) and tests/lint/crates.py, which reads what the crates ask for, are all
# that holds the statement.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

minimum=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if ! rustup run "$minimum" rustc --version >/dev/null 2>&1; then
  echo "msrv: NOT COMPILED with Rust $minimum, which is not installed; run: rustup toolchain install --profile minimal $minimum" >&2
  exit 0
fi
# In a folder of its own: compilers do not share theirs.
rustup run "$minimum" cargo build --locked --release --target-dir "$target/msrv"
echo "msrv: Rust $minimum builds it"
