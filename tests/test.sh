#!/usr/bin/env bash
# Every test there is, after `make build`: first those that need nothing but cargo, then the ignored ones, which use
# dist/cuda-entrypoint, Docker and podman.
# CUDA_ENTRYPOINT_SKIP_DOCKER=1: leave the second half out, and say so.
# CUDA_ENTRYPOINT_SKIP_PODMAN=1: leave out the pods of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ ! -x dist/cuda-entrypoint ]]; then
  echo "test: no dist/cuda-entrypoint; run: make build" >&2
  exit 1
fi

# Asked before the long part, so that nobody waits for minutes to read that Docker is missing.
docker=1
if [[ ${CUDA_ENTRYPOINT_SKIP_DOCKER:-} == 1 ]]; then
  docker=0
elif ! docker info >/dev/null 2>&1; then
  if command -v docker >/dev/null; then
    echo "test: no Docker daemon answers \`docker info\`: start it (service docker start)," \
      "or set CUDA_ENTRYPOINT_SKIP_DOCKER=1 to leave out the tests that need it" >&2
  else
    echo "test: no docker on PATH: install it (apt-get install -y docker.io)," \
      "or set CUDA_ENTRYPOINT_SKIP_DOCKER=1 to leave out the tests that need it" >&2
  fi
  exit 1
fi
podman=$docker
if [[ ${CUDA_ENTRYPOINT_SKIP_PODMAN:-} == 1 ]]; then
  podman=0
elif ((docker)) && ! command -v podman >/dev/null; then
  echo "test: no podman on PATH, which plays the pods: install it (apt-get install -y podman catatonit)," \
    "or set CUDA_ENTRYPOINT_SKIP_PODMAN=1 to leave out the tests that need it" >&2
  exit 1
fi

# Each half whatever the other says: one test that fails must not hide what the others would have said.
status=0
cargo test --locked --no-fail-fast || status=1
if ((docker)); then
  echo "== tests of dist/cuda-entrypoint, Docker and podman"
  skipped=()
  ((podman)) || skipped=(--skip pods::)
  # Not the documentation's examples: some are ignored because they do not compile.
  cargo test --locked --no-fail-fast --tests -- --ignored "${skipped[@]}" || status=1
  ((podman)) || echo "== NOT TESTED: pods, because CUDA_ENTRYPOINT_SKIP_PODMAN=1 is set ==" >&2
else
  echo "== NOT TESTED: dist/cuda-entrypoint and Docker, because CUDA_ENTRYPOINT_SKIP_DOCKER=1 is set ==" >&2
fi
exit "$status"
