# shellcheck shell=bash
# Sourced in the repository's root. Where scripts write: `target`, cargo's folder, and `dist`, for what ships. A tree that
# cannot be written to takes CARGO_TARGET_DIR, and `dist` is then below it.

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
dist=$PWD/dist
[[ -w . ]] || dist=$target/dist
: "$dist"
export CARGO_TARGET_DIR=$target
