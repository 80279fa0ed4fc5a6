# shellcheck shell=bash
# Sourced in the repository's root, with `arch` set: what builds for that processor here.
#   triple   rustc's name for its Linux
#   inside   what runs cargo: nothing, or, where this machine has no such standard library and linker, a Debian that has
#   path     PATH there
#   cross    variables for cargo: the linker
#   linking  flags for rustc, for a static program

triple=${arch:?}-unknown-linux-gnu
inside=() path=$PATH cross=() linking=()
if [[ $arch != "$(uname -m)" ]]; then
  if ! [[ -d $(rustc --print target-libdir --target "$triple") ]] || ! command -v "$arch-linux-gnu-gcc" >/dev/null; then
    inside=(tests/build/cross.sh)
    path=/usr/bin:/bin
  fi
  cross=("CARGO_TARGET_${arch^^}_UNKNOWN_LINUX_GNU_LINKER=$arch-linux-gnu-gcc")
fi
# rustc uses its own lld for x86-64 without being told.
if [[ $arch != x86_64 ]]; then
  linking+=(-Clink-arg=-fuse-ld=lld)
  # That of rustup, where there is none of the system's.
  ((${#inside[@]})) ||
    linking+=("-Clink-arg=-B$(rustc --print sysroot)/lib/rustlib/$(uname -m)-unknown-linux-gnu/bin/gcc-ld")
fi
: "$path" "${inside[@]}" "${cross[@]}"
