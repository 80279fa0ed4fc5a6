#!/usr/bin/env bash
# fresh.sh [OPTION]... COMMAND...: runs a command in a copy of this tree on a Debian 12 that has what the README asks for and
# nothing else: no Docker, no pip, no valgrind. Needs Docker, debootstrap and root.
#   --folder DIR   where the copy lies (else below "/tmp/a tree für tests": blanks, a letter that is not ASCII, and a path so
#                  long that no line of a terminal holds it)
#   --user         as another user than root
#   --read-only    nothing can be written there; CARGO_TARGET_DIR is another folder
#   --one-core     on one processor
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

user=root folder="/tmp/a tree für tests/of an agent whose folders have long names/0123456789abcdef" read_only='' options=()
while [[ ${1:-} == --* ]]; do
  case $1 in
    --folder) folder=$2 && shift ;;
    --user) user=tester ;;
    --read-only) read_only=1 ;;
    --one-core) options+=(--cpuset-cpus 0) ;;
    *) echo "fresh.sh: no option $1" >&2 && exit 64 ;;
  esac
  shift
done

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
options+=(--volume "$(rustc --print sysroot):/opt/rust:ro" --volume "$work:/work:ro")
# A mirror's settings, and the certificate of a proxy that ends TLS, are this machine's.
[[ ! -e $cargo_home/config.toml ]] || options+=(--volume "$cargo_home/config.toml:/opt/cargo.toml:ro")
certificates=/etc/ssl/certs/ca-certificates.crt
if [[ -e $certificates ]]; then
  options+=(--volume "$certificates:/opt/ca.crt:ro" --env PIP_CERT=/opt/ca.crt --env CARGO_HTTP_CAINFO=/opt/ca.crt)
fi
# What tests that make namespaces and mounts of their own need.
options+=(--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined)
options+=(--env CUDA_ENTRYPOINT_TEST_RETRIES)
options+=(--env "TREE=$folder" --env "TREE_USER=$user" --env "TREE_READ_ONLY=$read_only")
# shellcheck disable=SC2016 # expanded inside
script='
set -e
[ "$TREE_USER" = root ] || useradd --create-home "$TREE_USER"
mkdir -p "$TREE"
tar --extract --no-same-owner --file /work/tree.tar --directory "$TREE"
chown -R "$TREE_USER" "$TREE"
export PATH=/opt/rust/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
HOME=$(getent passwd "$TREE_USER" | cut -d : -f 6)
export HOME
mkdir -p "$HOME/.cargo"
[ ! -e /opt/cargo.toml ] || cp /opt/cargo.toml "$HOME/.cargo/config.toml"
if [ -n "$TREE_READ_ONLY" ]; then
  mount --bind "$TREE" "$TREE"
  mount -o remount,bind,ro "$TREE"
  export CARGO_TARGET_DIR="$HOME/target of its own"
fi
chown -R "$TREE_USER" "$HOME/.cargo"
cd "$TREE"
user=$TREE_USER
unset TREE TREE_USER TREE_READ_ONLY
exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups "$@"
'
docker run --name "$name" --init "${options[@]}" "$name" sh -c "$script" sh "$@"
