#!/usr/bin/env bash
# The entrypoint at work on real wheels, without a GPU and without Docker: environments in target/demo stand for images, and
# the fake driver of the tests for a driver. `make demo` builds the binary first. The stories are those of README.md, with full
# paths: they can be run again as they are printed, wherever CARGO_TARGET_DIR puts the environments.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh
# What is told stands between the lines that tell it.
exec 2>&1

tests/build/prerequisites.sh demo
entrypoint=$dist/cuda-entrypoint
if [[ ! -x $entrypoint ]]; then
  echo "demo: no $entrypoint; run: make build" >&2
  exit 1
fi

echo "== real wheels into $target/demo (180 MB to fetch, the first time)"
tests/demo/environments.sh "$target/demo"
driver=$(tests/build/fakes.sh)

# story EXIT WORDS...: shows a command, runs it, and holds its exit code against EXIT.
story() {
  local expected=$1 status=0
  shift
  printf '\n$'
  printf ' %q' "$@"
  printf '\n'
  "$@" || status=$?
  if ((status != expected)); then
    echo "demo: it ended with $status in place of $expected" >&2
    exit 1
  fi
  echo "== it ended with $status"
}

echo
echo "== 1. A wheel without kernels for an H100, found without a GPU. Its dependencies are not installed here, which --allow"
echo "   accepts."
story 81 "$entrypoint" check --stage image --stack none --archs '8.0;9.0' --python "$target/demo/faiss" \
  --allow requires-dist,library-missing --quiet

echo
echo "== 2. A torchvision for another torch, in an image whose build succeeded. Of torch only the metadata is installed here."
story 81 "$entrypoint" check --stage image --stack none --python "$target/demo/torchvision" \
  --allow library-missing --quiet

service=(python3 -c 'print("started")')
options=(--stack "$PWD/tests/demo/stack.json" --python "$target/demo/venv" --allow requires-dist)

echo
echo "== 3. A driver that is too old for the image: the fake driver of the tests says that it is 520.61.05."
story 82 env "FAKE_GPU_SCRIPT=$target/demo/old-driver.json" "LD_LIBRARY_PATH=$driver" \
  "$entrypoint" run "${options[@]}" -- "${service[@]}"

echo
echo "== What an image would have as its ENTRYPOINT and command: check that these wheels are one CUDA 12.4 stack, ask their"
echo "   CUDA libraries for their versions, look for a driver and a GPU (none is fine here), become the service:"
story 0 "$entrypoint" run "${options[@]}" --gpu optional -- "${service[@]}"
printf '   To see every check:'
printf ' %q' "$entrypoint" check "${options[@]}" --gpu optional
echo
