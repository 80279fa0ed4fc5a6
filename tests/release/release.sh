#!/usr/bin/env bash
# release.sh: makes dist/release from a clean tree and its tag vVERSION: an archive for each processor, an OCI image layout, a bill
# of materials, SHA-256 sums, and their signature. Nothing is uploaded. The same tag and toolchains give the same bytes.
# RELEASE_KEY: the private SSH key that signs the sums (ed25519, or a key in an agent by its public half); unsigned without it.
# RELEASE_SOURCE: the address of the source, which the image names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

fail() {
  echo "release.sh: $*" >&2
  exit 1
}

key=${RELEASE_KEY:-}
[[ -z $key || -r $key ]] || fail "RELEASE_KEY names no file that can be read: $key"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
[[ -z $(git status --porcelain) ]] || fail "the tree has changes; commit them or put them away"
tags=$(git tag --points-at HEAD)
grep -qx "v$version" <<<"$tags" || fail "this commit does not have the tag v$version; run: git tag v$version"
grep -q "^## $version" CHANGELOG.md || fail "CHANGELOG.md has no section $version"

out=$dist/release
rm -rf "$out"
arguments=()
for arch in x86_64 aarch64; do
  tests/build/build.sh "$arch"
  . tests/build/toolchain.sh
  name=cuda-entrypoint
  compiler=cc
  if [[ $arch != "$(uname -m)" ]]; then
    name+=-$arch
    compiler=$arch-linux-gnu-gcc
  fi
  arguments+=(--binary "$arch=$dist/$name")

  # Beside crates there are two libraries in it. Their terms lie where distributions and rustup put them, of the machine that built.
  root=
  if ((${#inside[@]})); then root=$(realpath -m "${CUDA_ENTRYPOINT_CROSS_ROOT:-$target/cross/debian}"); fi
  rust=$("${inside[@]}" rustc --version | cut -d ' ' -f 2)
  glibc=$("${inside[@]}" sh -c "echo '#include <features.h>' | $compiler -dM -E -" |
    sed -n 's/^#define __GLIBC__ /a /p; s/^#define __GLIBC_MINOR__ /b /p' | sort | cut -d ' ' -f 2 | paste -sd .)
  first() { # FILE...: the first that is there
    local file
    for file in "$@"; do [[ ! -r $file ]] || { echo "$file" && return; }; done
    fail "none of these files with terms is there: $*"
  }
  doc=$root/usr/share/doc
  rust_terms=$(first "$doc/libstd-rust-dev/copyright" "$("${inside[@]}" rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html")
  glibc_terms=$(first "$doc/libc6-dev-arm64-cross/copyright" "$doc/libc6-dev/copyright" "$doc/libc6/copyright" \
    "$root/usr/share/licenses/glibc/LICENSES")
  lgpl=$(first "$root/usr/share/common-licenses/LGPL-2.1" "$root/usr/share/licenses/glibc/COPYING.LIB")
  arguments+=(--library "$arch:rust-std:$rust:MIT OR Apache-2.0=$rust_terms")
  arguments+=(--library "$arch:glibc:$glibc:LGPL-2.1-or-later=$glibc_terms,$lgpl")
done

time=$(git log -1 --format=%ct)
tests/release/package.py --version "$version" --commit "$(git rev-parse HEAD)" --time "$time" --out "$out" \
  --source "${RELEASE_SOURCE:-}" "${arguments[@]}"
if [[ -n $key ]]; then
  ssh-keygen -q -Y sign -n cuda-entrypoint -f "$key" "$out/SHA256SUMS"
else
  echo "release.sh: not signed: RELEASE_KEY names no key" >&2
fi
(cd "$out" && sha256sum --check --quiet SHA256SUMS && stat -c '%s %n' -- *)
