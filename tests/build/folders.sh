# shellcheck shell=bash
# Sourced in the repository's root. Where scripts write: `target`, cargo's folder, and `dist`, for what ships. A tree that
# cannot be written to takes CARGO_TARGET_DIR, and `dist` is then below it.

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
dist=$PWD/dist
[[ -w . ]] || dist=$target/dist
: "$dist"
export CARGO_TARGET_DIR=$target

# The working tree as it is, less what git ignores, as a tar archive on standard output.
working_tree() {
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' path; do [[ -e $path ]] && printf '%s\0' "$path"; done |
    tar --create --null --files-from=-
}
