#!/usr/bin/env bash
# build.sh [x86_64|aarch64]: builds dist/cuda-entrypoint, or for another processor dist/cuda-entrypoint-PROCESSOR: first the glibc helper, then the
# static binary that carries it. The same sources, lock file, Rust and C toolchain give the same bytes in whatever folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

arch=${1:-$(uname -m)}
# The oldest glibc that the helper runs with: that of manylinux2014, the oldest that CUDA 12 wheels are made for.
glibc_floor=2.17

case $arch in
  "$(uname -m)") name=cuda-entrypoint ;;
  x86_64 | aarch64) name=cuda-entrypoint-$arch ;;
  *) echo "build.sh: ARCH is x86_64 or aarch64, not $arch" >&2 && exit 64 ;;
esac

tests/build/prerequisites.sh build
. tests/build/toolchain.sh
tools=$(tests/build/tools.sh build)

# These settings of the caller would end up in the bytes.
# shellcheck disable=SC2031,SC2086 # the expansion lists names of variables
unset RUSTFLAGS RUSTDOCFLAGS CARGO_BUILD_RUSTFLAGS CFLAGS LDFLAGS CUDA_ENTRYPOINT_HELPER_BIN ${!CARGO_PROFILE_*}

# Panic messages name source files. Name them by what they are, not by where this machine keeps them; of several
# prefixes that fit, rustc takes the last. The registry's folder carries a hash of the registry in use.
cargo fetch --locked --quiet --target "$triple" --target "$(uname -m)-unknown-linux-gnu"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
common=("--remap-path-prefix=$cargo_home=/cargo" "--remap-path-prefix=$PWD=/cuda-entrypoint"
  "--remap-path-prefix=$target=/cuda-entrypoint/target")
for registry in "$cargo_home"/registry/src/*/; do
  common+=("--remap-path-prefix=${registry%/}=/crates")
done
# Without the rust-src component the standard library's files are called this already.
sysroot=$("${inside[@]}" rustc --print sysroot)
commit=$("${inside[@]}" rustc --version --verbose | sed -n 's/^commit-hash: //p')
common+=("--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$commit")
common+=("-Clink-arg=-Wl,--build-id=none")

# CARGO_ENCODED_RUSTFLAGS takes the place of .cargo/config.toml's flags, and its separator lets a path hold blanks.
encoded() { local IFS=$'\x1f'; printf '%s' "$*"; }

# Tables for unwinding, which an aborting panic never reads.
unwinding=(-Cforce-unwind-tables=no "-Clink-arg=-Wl,--no-eh-frame-hdr" "-Clink-arg=-Wl,-T,$PWD/tests/build/no-unwind.ld")

echo "building the helper for glibc $glibc_floor and later"
"${inside[@]}" env PATH="$tools/bin:$path" \
  CARGO_ZIGBUILD_ZIG_PATH="$tools/ziglang/zig" \
  CARGO_ZIGBUILD_CACHE_DIR="$target/zig/cargo-zigbuild" \
  ZIG_GLOBAL_CACHE_DIR="$target/zig/global" \
  ZIG_LOCAL_CACHE_DIR="$target/zig/local" \
  CARGO_ENCODED_RUSTFLAGS="$(encoded "${common[@]}" -Ctarget-feature=-crt-static "${unwinding[@]}")" \
  cargo zigbuild --quiet --locked --release --no-default-features --features helper --bin cuda-helper \
  --target "$triple.$glibc_floor" --target-dir "$target/helper"
helper=$target/helper/$triple/release/cuda-helper

# On x86-64 a static PIE: address randomisation is worth having in a process that reads other people's files as root. Its
# relocations are packed (DT_RELR), which saves 76 KB; a C library older than glibc 2.36 cannot unpack its own, and
# there the addresses are fixed instead. On aarch64 they are fixed in any case: rustc links no static PIE for it.
relocations=-Clink-arg=-Wl,--pack-dyn-relocs=relr
libc=$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)
if [[ $(printf '%s\n' "$libc" 2.36 | sort -V | head -n 1) != 2.36 ]]; then
  relocations=-Crelocation-model=static
fi
# Instructions that many functions share become functions (the outliner of LLVM), and those again: 50 KB. What is
# marked #[inline] is inlined where that is small: 1.5 KB.
smaller=(-Cllvm-args=-enable-machine-outliner=always -Cllvm-args=-machine-outliner-reruns=4
  -Cllvm-args=-inlinehint-threshold=5)
# Named by --version. A tree that comes without its history, or has changes of its own, says so or nothing.
named=
if [[ -e .git ]] && git rev-parse --verify --quiet HEAD >/dev/null 2>&1; then
  named=$(git describe --always --dirty --exclude '*' --abbrev=7)
  named+=" $(TZ=UTC0 git log -1 --format=%cd --date=format-local:%Y-%m-%d)"
fi
# Functions of the same bytes are kept once (--icf): rustc makes many, and nothing here compares their addresses.
echo "building the entrypoint"
"${inside[@]}" env "${cross[@]}" CUDA_ENTRYPOINT_HELPER_BIN="$helper" CUDA_ENTRYPOINT_COMMIT="$named" \
  CARGO_ENCODED_RUSTFLAGS="$(encoded "${common[@]}" -Ctarget-feature=+crt-static -Clink-arg=-Wl,--icf=all "${linking[@]}" "$relocations" \
    "${unwinding[@]}" "${smaller[@]}")" \
  cargo build --quiet --locked --release --bin cuda-entrypoint --target "$triple" --target-dir "$target/dist-build"

tests/build/verify.sh "$target/dist-build/$triple/release/cuda-entrypoint" "$helper"

# Renamed into place: the old one may be running.
mkdir -p "$dist"
install -m 755 "$target/dist-build/$triple/release/cuda-entrypoint" "$dist/.$name.new"
mv "$dist/.$name.new" "$dist/$name"
sum=$(sha256sum <"$dist/$name")
echo "${dist#"$PWD"/}/$name: $(stat -c %s "$dist/$name") bytes, sha256 ${sum:0:64}"
