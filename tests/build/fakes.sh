#!/usr/bin/env bash
# fakes.sh: builds the fake driver and prints the folder that holds it, for LD_LIBRARY_PATH. Tests and the demo use it: it acts
# out the JSON file that FAKE_GPU_SCRIPT names. The flags are those of tests/support/fakes.rs, so that each finds the other's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

script=$target/fakes/static-libgcc/libgcc_s.so
mkdir -p "$(dirname "$script")" "$target/fakes/lib"
[[ -e $script ]] || echo 'INPUT(-lgcc_eh -lgcc)' >"$script"
unset RUSTFLAGS RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER LD_LIBRARY_PATH
CARGO_ENCODED_RUSTFLAGS=$(printf -- '-Ctarget-feature=-crt-static\037-Lnative=%s' "$(dirname "$script")") \
  cargo build --quiet --locked --manifest-path tests/fakes/Cargo.toml --target x86_64-unknown-linux-gnu \
  --target-dir "$target/fakes" >&2
built=$target/fakes/x86_64-unknown-linux-gnu/debug
for pair in libcuda.so:libcuda.so.1 libnvidia_ml.so:libnvidia-ml.so.1; do
  cp "$built/${pair%:*}" "$target/fakes/lib/${pair#*:}.draft.$$"
  mv "$target/fakes/lib/${pair#*:}.draft.$$" "$target/fakes/lib/${pair#*:}"
done
echo "$target/fakes/lib"
