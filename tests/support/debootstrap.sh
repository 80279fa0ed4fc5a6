#!/usr/bin/env bash
# debootstrap.sh SUITE PACKAGES FILE.tar: a minimal Debian with a comma list of packages, as `docker import` reads it.
set -euo pipefail

suite=$1 packages=$2 archive=$3

if ! command -v debootstrap >/dev/null; then
  echo "debootstrap.sh: no debootstrap, which stands in for a registry; run: apt-get install -y debootstrap" >&2
  exit 1
fi
if ((EUID != 0)); then
  echo "debootstrap.sh: a root file system has files of root: run the tests as root" >&2
  exit 1
fi

work=$(mktemp -d "$archive.XXXXXX")
# Not across file systems: a debootstrap that was killed leaves /proc mounted.
trap 'rm -rf --one-file-system "$work"' EXIT
chmod 755 "$work"

if ! debootstrap --variant=minbase --include="$packages" "$suite" "$work/root" >"$work/log" 2>&1; then
  tail -n 20 "$work/log" >&2
  echo "debootstrap.sh: debootstrap $suite failed; is Debian's mirror within reach?" >&2
  exit 1
fi
# Half of the size, and nothing that a program needs.
for surplus in var/cache/apt var/cache/debconf var/lib/apt/lists var/log usr/share/doc usr/share/info \
  usr/share/locale usr/share/man; do
  find "$work/root/$surplus" -mindepth 1 -delete
done
# The container's /dev is Docker's.
tar --create --numeric-owner --one-file-system --exclude='./dev/*' --directory "$work/root" --file "$work/tar" .
mv "$work/tar" "$archive"
