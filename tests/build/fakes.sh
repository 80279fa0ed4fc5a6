#!/usr/bin/env bash
# fakes.sh [aarch64]: builds the fake driver and prints the folder that holds it, for LD_LIBRARY_PATH. Tests and the demo use it:
# it acts out the JSON file that FAKE_GPU_SCRIPT names. The flags are those of tests/support/fakes.rs, so that each finds the
# other's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh
arch=${1:-$(uname -m)}
. tests/build/toolchain.sh

script=$target/fakes/static-libgcc/libgcc_s.so
mkdir -p "$(dirname "$script")"
[[ -e $script ]] || echo 'INPUT(-lgcc_eh -lgcc)' >"$script"
unset RUSTFLAGS RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER LD_LIBRARY_PATH
flags=$(printf -- '-Ctarget-feature=-crt-static\037-Lnative=%s' "$(dirname "$script")")
"${inside[@]}" env "${cross[@]}" CARGO_ENCODED_RUSTFLAGS="$flags" \
  cargo build --quiet --locked --manifest-path tests/fakes/Cargo.toml --target "$triple" --target-dir "$target/fakes" >&2
built=$target/fakes/$triple/debug
lib=$target/fakes/lib
if [[ $arch != "$(uname -m)" ]]; then lib+=-$arch; fi
mkdir -p "$lib"
for pair in libcuda.so:libcuda.so.1 libnvidia_ml.so:libnvidia-ml.so.1; do
  cp "$built/${pair%:*}" "$lib/${pair#*:}.draft.$$"
  mv "$lib/${pair#*:}.draft.$$" "$lib/${pair#*:}"
done
echo "$lib"
