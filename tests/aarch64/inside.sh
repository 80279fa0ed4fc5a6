#!/usr/bin/env bash
# inside.sh NAME=VALUE... COMMAND...: runs a command in the image that prepare.sh made, with no other variables. Exits with 69
# where no aarch64 program runs on this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

# shellcheck disable=SC2016 # expanded inside
exec tests/build/emulate.sh unshare --user --map-root-user --mount sh -ec '
  image=$1
  shift
  for shared in /proc /dev; do mount --rbind "$shared" "$image$shared"; done
  exec env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$image" env "$@"
' sh "$target/cross/image" "$@"
