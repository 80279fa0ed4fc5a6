#!/usr/bin/env bash
# fresh.sh [--user] COMMAND...: runs a command in a clone of this tree on a Debian 12 that has what the README asks for and
# nothing else: no Docker, no pip, no valgrind. The clone's folder lies below /tmp and has a blank and a letter in its name
# that is not ASCII. --user: as another user than root. Needs Docker, debootstrap and root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

user=root
if [[ ${1:-} == --user ]]; then user=tester && shift; fi

packages=binutils,ca-certificates,gcc,libc6-dev,make,python3,python3-venv
archive=$target/images/bookworm+${packages//,/+}.tar
mkdir -p "$target/images"
[[ -e $archive ]] || tests/support/debootstrap.sh bookworm "$packages" "$archive"

name=cuda-entrypoint-fresh-$$
work=$(mktemp -d)
# shellcheck disable=SC2317 # called by the trap
cleanup() {
  docker rm --force --volumes "$name"
  docker rmi --force "$name"
  rm -rf "$work"
} >/dev/null 2>&1
trap cleanup EXIT
docker import "$archive" "$name" >/dev/null

working_tree >"$work/tree.tar"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
options=(--volume "$(rustc --print sysroot):/opt/rust:ro" --volume "$work:/work:ro")
# A mirror's settings, and the certificate of a proxy that ends TLS, are this machine's.
[[ ! -e $cargo_home/config.toml ]] || options+=(--volume "$cargo_home/config.toml:/opt/cargo.toml:ro")
certificates=/etc/ssl/certs/ca-certificates.crt
if [[ -e $certificates ]]; then
  options+=(--volume "$certificates:/opt/ca.crt:ro" --env PIP_CERT=/opt/ca.crt --env CARGO_HTTP_CAINFO=/opt/ca.crt)
fi
options+=(--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined)
# shellcheck disable=SC2016 # expanded inside
script='
set -e
[ "$1" = root ] || useradd --create-home "$1"
folder="/tmp/a tree für tests"
mkdir "$folder"
tar --extract --file /work/tree.tar --directory "$folder"
chown -R "$1" "$folder"
user=$1
shift
export PATH=/opt/rust/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
home=$(getent passwd "$user" | cut -d : -f 6)
mkdir -p "$home/.cargo"
[ ! -e /opt/cargo.toml ] || cp /opt/cargo.toml "$home/.cargo/config.toml"
chown -R "$user" "$home/.cargo"
cd "$folder"
exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups env HOME="$home" "$@"
'
docker run --name "$name" --init "${options[@]}" "$name" sh -c "$script" sh "$user" "$@"
