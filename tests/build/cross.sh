#!/usr/bin/env bash
# cross.sh COMMAND...: runs a command on a Debian that has what builds for aarch64 and what runs it: a Rust with both standard
# libraries, a cross linker, qemu. For machines where rustup cannot bring them. The tree, cargo's home and the folder that is
# built in are there under their own names; the mounts are in a namespace, and gone with the command.
# CUDA_ENTRYPOINT_CROSS_ROOT: the folder of that Debian (target/cross/debian; 2 GB); made where it is not there yet.
# CUDA_ENTRYPOINT_CROSS_SUITE: the release (testing: stable's Rust is older than this project's).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

root=$(realpath -m "${CUDA_ENTRYPOINT_CROSS_ROOT:-$target/cross/debian}")
suite=${CUDA_ENTRYPOINT_CROSS_SUITE:-testing}
packages=(binutils cargo gcc gcc-aarch64-linux-gnu libc6-dev libc6-dev-arm64-cross libstd-rust-dev:arm64 lld qemu-user rustc)

fail() {
  echo "cross.sh: $*" >&2
  exit 1
}

# What keeps this machine from having that Debian, if anything.
((EUID == 0)) || fail "a root file system has files of root, and chroot is root's: run it as root"
if [[ ! -e $root/.complete ]]; then
  command -v debootstrap >/dev/null || fail "no debootstrap; run: apt-get install -y debootstrap"
  echo "setting up Debian $suite for aarch64 in $root: 2 GB" >&2
  mkdir -p "$(dirname "$root")"
  draft=$(mktemp -d "$root.XXXXXX")
  # Not across file systems: a debootstrap that was killed leaves /proc mounted.
  trap 'rm -rf --one-file-system "$draft"' EXIT
  chmod 755 "$draft"
  # shellcheck disable=SC2016 # expanded inside
  if ! unshare --mount sh -ec '
    draft=$1 suite=$2
    shift 2
    debootstrap --variant=minbase "$suite" "$draft"
    # Nothing here has to outlive a power cut, and nobody reads its documentation but the terms.
    echo force-unsafe-io >"$draft/etc/dpkg/dpkg.cfg.d/quick"
    printf "path-exclude=/usr/share/%s/*\n" doc man locale info >>"$draft/etc/dpkg/dpkg.cfg.d/quick"
    echo "path-include=/usr/share/doc/*/copyright" >>"$draft/etc/dpkg/dpkg.cfg.d/quick"
    printf "%s \"false\";\n" Acquire::Check-Valid-Until APT::Install-Recommends >"$draft/etc/apt/apt.conf.d/90cross"
    chroot "$draft" dpkg --add-architecture arm64
    chroot "$draft" apt-get update --quiet
    DEBIAN_FRONTEND=noninteractive chroot "$draft" apt-get install --quiet --yes "$@"
    chroot "$draft" apt-get clean
    find "$draft/var/lib/apt/lists" -mindepth 1 -delete
  ' sh "$draft" "$suite" "${packages[@]}" >"$draft.log" 2>&1; then
    tail -n 20 "$draft.log" >&2
    fail "Debian $suite cannot be set up; the whole log is $draft.log"
  fi
  rm "$draft.log"
  touch "$draft/.complete"
  # Another make may have been faster: its folder is as good.
  mv --no-target-directory "$draft" "$root" 2>/dev/null || [[ -e $root/.complete ]]
fi

# shellcheck disable=SC2016 # expanded inside
exec unshare --mount sh -ec '
  root=$1 folder=$2
  shift 2
  for shared in /dev /proc; do mount --rbind "$shared" "$root$shared"; done
  while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    shift
  done
  shift
  exec env PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" sh -ec "cd \"\$0\" && exec \"\$@\"" "$folder" "$@"
' sh "$root" "$PWD" "$PWD" "$target" "${CARGO_HOME:-$HOME/.cargo}" "${CUDA_ENTRYPOINT_TOOLS:-$target/tools}" -- "$@"
