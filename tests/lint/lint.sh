#!/usr/bin/env bash
# Runs every check, whatever the ones before said, then lists those that failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
. tests/build/folders.sh

tests/build/prerequisites.sh lint || exit 1
tools=$(tests/build/tools.sh lint) || exit 1

failed=()
check() {
  local name=$1
  shift
  echo "== lint: $name"
  "$@" || failed+=("$name")
}

# With the checks that some distributions have their compilers make always. The tests do without -Werror: another
# compiler has other warnings.
c_programs() {
  git ls-files -z -- 'tests/support/c/*.c' |
    xargs -0 -I {} cc -std=gnu11 -Wall -Wextra -Werror -O2 -D_FORTIFY_SOURCE=3 -c -o /dev/null {}
}
shell_scripts() { git ls-files -z -- '*.sh' .ci/run | xargs -0 --no-run-if-empty shellcheck; }
dockerfiles() { git ls-files -z -- '*Dockerfile*' ':!*.dockerignore' | xargs -0 --no-run-if-empty "$tools/bin/hadolint"; }

check "rustfmt" cargo fmt --check
check "clippy" cargo clippy --quiet --all-targets --locked -- -D warnings
# `--all-targets` leaves out a test that `cargo test` does.
check "clippy of the full stack's test" cargo clippy --quiet --locked --test stack_full -- -D warnings
check "clippy of the helper" cargo clippy --quiet --locked --no-default-features --features helper \
  --bin cuda-helper --lib -- -D warnings

# Crates that only tests build. They may make shared libraries, which a static C runtime does not go with.
while IFS= read -r -d '' manifest; do
  check "rustfmt of $manifest" cargo fmt --all --manifest-path "$manifest" --check
  check "clippy of $manifest" env CARGO_ENCODED_RUSTFLAGS=-Ctarget-feature=-crt-static \
    cargo clippy --quiet --all-targets --manifest-path "$manifest" --target-dir "$target/lint" -- -D warnings
done < <(git ls-files -z -- 'tests/**/Cargo.toml' 'tests/*/Cargo.toml')

check "shellcheck" shell_scripts
check "C" c_programs
check "hadolint" dockerfiles
check "Kubernetes manifests" tests/kubernetes/manifests.py check
check "Python syntax" tests/lint/python.py
check "licenses, sources and duplicates of the crates" tests/lint/deny.sh
check "RustSec's advisories" tests/lint/advisories.sh
check "the table of the crates" tests/lint/crates.py
check "the oldest Rust" tests/build/msrv.sh
check "the fence test itself" tests/lint/fence.py --self-test
check "unsafe in two modules" tests/lint/fence.py
check "ARCHITECTURE.md's map against the code" tests/lint/map.py
check "tests/faults.md against the tests" tests/lint/faults.py
check "texts" tests/lint/text.py
check "README.md and the guide against tests/gpu/results" tests/lint/readme.sh

if ((${#failed[@]})); then
  printf 'lint: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "lint: all of it holds"
