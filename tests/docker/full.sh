#!/usr/bin/env bash
# docker/Dockerfile.gpu with torch, torchvision, torchaudio and torch_geometric, spconv and cumm, on Debian 12 and from
# PyPI: everything that needs neither nvcc nor another index. Takes 3 GB of downloads, 20 GB of disk while it runs, and
# some minutes. Needs Docker, root (for debootstrap) and dist/cuda-entrypoint; no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

for needed in "$dist/cuda-entrypoint:make build" "docker/Dockerfile.gpu:git checkout docker"; do
  [[ -e ${needed%%:*} ]] || { echo "full: no ${needed%%:*}; run: ${needed#*:}" >&2; exit 1; }
done
docker info >/dev/null 2>&1 || { echo "full: no Docker daemon answers; run: service docker start" >&2; exit 1; }

work=$(mktemp -d)
name=cuda-entrypoint-full-$$
label=$name=1
# shellcheck disable=SC2317 # called by the trap
cleanup() {
  docker ps --all --quiet --filter "label=$label" | xargs --no-run-if-empty docker rm --force --volumes
  docker images --all --quiet --filter "label=$label" | xargs --no-run-if-empty docker rmi --force
  rm -rf "$work"
} >/dev/null 2>&1
trap cleanup EXIT

# The archive that the tests of `make test` use as well.
packages=busybox-static,musl,python3,python3-venv
archive=$target/images/bookworm+${packages//,/+}.tar
mkdir -p "$target/images"
[[ -e $archive ]] || tests/support/debootstrap.sh bookworm "$packages" "$archive"
docker import --change "LABEL $label" "$archive" "$name-debian" >/dev/null
tar --create --owner=0 --group=0 --directory "$dist" cuda-entrypoint |
  docker import --change "LABEL $label" - "$name-entrypoint" >/dev/null
# Where a proxy ends TLS, its certificate is in this machine's bundle and in no image.
certificates=/etc/ssl/certs/ca-certificates.crt
mkdir "$work/pip"
if [[ -e $certificates ]]; then
  cp "$certificates" "$work/pip/bundle.crt"
  printf 'FROM %s-debian\nCOPY bundle.crt /usr/local/share/\nENV PIP_CERT=/usr/local/share/bundle.crt\n' "$name"
else
  printf 'FROM %s-debian\n' "$name"
fi >"$work/pip/Dockerfile"
export DOCKER_BUILDKIT=0
docker build --quiet --tag "$name-pip" "$work/pip" >/dev/null

# torch_scatter and mmcv have no wheel on PyPI: they and their smoke are left out of image and manifest.
mkdir -p "$work/context/docker"
cp -r docker/requirements "$work/context/docker/"
python3 - src/stack/pointcept-cu124.json "$work/context/stack.json" <<'PYTHON'
import json, sys
stack = json.load(open(sys.argv[1]))
for left_out in ("torch-scatter", "mmcv"):
    del stack["packages"][left_out]
    stack["smoke"].remove(left_out)
json.dump(stack, open(sys.argv[2], "w"))
PYTHON

echo "== docker/Dockerfile.gpu with torch"
arguments=("BUILD_BASE=$name-pip" "RUNTIME_BASE=$name-debian" "ENTRYPOINT_IMAGE=$name-entrypoint" STACK=stack.json
  TORCH_INDEX=https://pypi.org/simple SCATTER=none MMCV=none PYG_LINKS=/requirements MMCV_LINKS=/requirements
  BUILD_PACKAGES= RUNTIME_PACKAGES=)
options=()
for argument in "${arguments[@]}"; do
  options+=(--build-arg "$argument")
done
docker build --force-rm --label "$label" --tag "$name" --file docker/Dockerfile.gpu "${options[@]}" "$work/context"

failed=0
expect() { # CODE TEXT DOCKER-RUN-OPTIONS...: runs it, and looks at exit code and output
  local code=$1 text=$2 output status=0
  shift 2
  output=$(docker run --rm --label "$label" "$@" 2>&1) || status=$?
  if ((status != code)) || [[ $output != *"$text"* ]]; then
    printf 'full: docker run %s ended with %s, not %s, or did not say: %s\n%s\n' "$*" "$status" "$code" "$text" \
      "$output" >&2
    failed=1
  fi
}

echo "== without a GPU"
expect 82 driver-missing "$name"
# The program of docker/MIGRATION.md. There it says True.
expect 0 $'CUDA available: False\nCUDA version: 12.4\nspconv OK' --env CUDA_ENTRYPOINT_GPU=optional "$name" python -c "
import torch
print(f'CUDA available: {torch.cuda.is_available()}')
print(f'CUDA version: {torch.version.cuda}')
import spconv.pytorch as spconv
print('spconv OK')
"
expect 0 "torch-geometric 2.6.1" --env CUDA_ENTRYPOINT_GPU=off "$name" python -c "
from importlib.metadata import version
import torchvision, torchaudio, torch_geometric
print('torch-geometric', version('torch-geometric'))
"
echo "== NOT TESTED, since they need nvcc or another index: torch_scatter, mmcv, NVIDIA's base images; and, without a GPU," \
  "the smoke's kernels"
exit "$failed"
