#!/usr/bin/env bash
# The image stage on a full environment of torch 2.5.0, then with one fault after the other. `make test-stack` calls it.
# CUDA_ENTRYPOINT_TORCH_ENV: see environment.sh. Arguments go to the tests: a name, `--nocapture`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

# For faults that another wheel makes.
tests/build/wheels.py tests stack-faults >/dev/null
environment=$(tests/stack_full/environment.sh)
mkdir -p "$target"
if [[ $(stat -c %d "$environment") != "$(stat -c %d "$target")" ]]; then
  echo "test-stack: $environment lies on another file system than $target, so that no copy can be made of links:" \
    "unset CUDA_ENTRYPOINT_TORCH_ENV" >&2
  exit 1
fi

# The tests change copies whose files are hard links: whoever writes into one has spoiled the original as well.
listing() { find "$environment" -printf '%P %y %m %s %T@ %l\n' | sort | sha256sum; }
before=$(listing)
status=0
CUDA_ENTRYPOINT_TORCH_ENV=$environment cargo test --locked --test stack_full -- "$@" || status=$?
if [[ $(listing) != "$before" ]]; then
  echo "test-stack: the tests have changed $environment, which they must not" >&2
  status=1
fi
exit "$status"
