#!/usr/bin/env bash
# emulate.sh COMMAND...: runs a command whose aarch64 programs run too, by qemu, and so do those that they start: the kernel is
# told of qemu (binfmt_misc) in a user namespace of its own, which Linux 6.7 and later have, and nothing else changes.
# Exits with 69 where that cannot be had, and says why. The qemu is this machine's, else that of cross.sh's Debian.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

missing() {
  echo "emulate.sh: no aarch64 program runs here: $*" >&2
  exit 69
}

# A processor that runs them, or a kernel that was told already.
enabled() { [[ -r /proc/sys/fs/binfmt_misc/qemu-aarch64 ]] && grep -qx enabled /proc/sys/fs/binfmt_misc/qemu-aarch64; }
if [[ $(uname -m) == aarch64 ]] || enabled; then
  exec "$@"
fi

qemu=
# A dynamic one cannot load its libraries where it is needed, in other roots.
for found in "$(command -v qemu-aarch64-static || true)" "$(command -v qemu-aarch64 || true)" \
  "$(realpath -m "${CUDA_ENTRYPOINT_CROSS_ROOT:-$target/cross/debian}")/usr/bin/qemu-aarch64"; do
  if [[ -x $found ]] && ! readelf --program-headers "$found" | grep -q INTERP; then
    qemu=$found
    break
  fi
done
[[ -n $qemu ]] || missing "no static qemu-aarch64; run: apt-get install -y qemu-user-static"

# From the kernel's documentation, admin-guide/binfmt-misc: name, magic and mask of an ELF file of machine 183, and flags: argv[0]
# is kept (P), the program is opened with its own rights (OC), and qemu is opened now (F).
same='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
# shellcheck disable=SC2016 # expanded inside
tell='
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf %s "$1" >/proc/sys/fs/binfmt_misc/register
'
entry=":cuda-entrypoint-aarch64:M::$magic:$same:$qemu:POCF"
why=$(unshare --user --map-root-user --mount sh -ec "$tell" sh "$entry" 2>&1) || missing "$why"
exec unshare --user --map-root-user --mount sh -ec "$tell"'shift; exec "$@"' sh "$entry" "$@"
