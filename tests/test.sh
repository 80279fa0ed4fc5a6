#!/usr/bin/env bash
# test.sh [--all]: every test that this machine can run, after `make build`. What could not be run is counted in the last
# lines, each kind with its reason and with the command that brings it.
# --all: a test that cannot be run has failed.
# CUDA_ENTRYPOINT_SKIP_AARCH64=1: leave out the tests of the aarch64 binary, which --all builds.
# CUDA_ENTRYPOINT_SKIP_DOCKER=1: leave out the tests with containers. CUDA_ENTRYPOINT_SKIP_PODMAN=1: those of pods alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/build/folders.sh

export CUDA_ENTRYPOINT_TEST_ALL=0
if [[ ${1:-} == --all ]]; then CUDA_ENTRYPOINT_TEST_ALL=1; fi

tests/build/prerequisites.sh test
export CUDA_ENTRYPOINT_DIST=$dist/cuda-entrypoint
if [[ ! -x $CUDA_ENTRYPOINT_DIST ]]; then
  echo "test: no $CUDA_ENTRYPOINT_DIST; run: make build" >&2
  exit 1
fi
# Before the tests: a download would take the time of one.
tests/build/wheels.py demo tests stories >/dev/null

skipped=()
if [[ $CUDA_ENTRYPOINT_TEST_ALL == 1 ]]; then
  if [[ ${CUDA_ENTRYPOINT_SKIP_AARCH64:-} == 1 ]]; then
    echo "== NOT TESTED: the aarch64 binary, because CUDA_ENTRYPOINT_SKIP_AARCH64=1 is set ==" >&2
    skipped=(--skip aarch64::)
  else
    # Where it fails, each of them says that it did not run. A Debian to set up and two builds: eight minutes on two cores.
    timeout 30m tests/aarch64/prepare.sh || rm -f "$target/cross/image/cuda-entrypoint"
  fi
fi

CUDA_ENTRYPOINT_TEST_SUMMARY=$(mktemp)
export CUDA_ENTRYPOINT_TEST_SUMMARY
trap 'rm -f "$CUDA_ENTRYPOINT_TEST_SUMMARY"' EXIT

status=0
cargo test --locked --no-fail-fast -- "${skipped[@]}" || status=1
cat "$CUDA_ENTRYPOINT_TEST_SUMMARY"
exit "$status"
