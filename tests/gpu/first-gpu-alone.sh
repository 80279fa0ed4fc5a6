#!/usr/bin/env bash
# Runs a command as a container sees the machine that was given its first GPU alone: the others' nodes are not there, and
# those that NVML or nvidia-modprobe make anew do not open, as a container's cgroup would have it.
# usage: first-gpu-alone.sh COMMAND...     needs the right to mount; ends with 125 where that is missing
set -euo pipefail

if [[ ${1:-} != inside ]]; then
  unshare --mount true 2>/dev/null || exit 125
  exec unshare --mount "$0" inside "$@"
fi
shift
devices=$(mktemp -d)
mount -t tmpfs -o nodev,mode=755 none "$devices" || exit 125
for node in null zero full random urandom tty nvidiactl nvidia-uvm nvidia-uvm-tools nvidia0; do
  [[ -e /dev/$node ]] || continue
  touch "$devices/$node"
  mount --bind "/dev/$node" "$devices/$node"
done
mount --move "$devices" /dev 2>/dev/null || mount --rbind "$devices" /dev
exec "$@"
