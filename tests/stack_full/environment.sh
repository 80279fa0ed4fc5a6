#!/usr/bin/env bash
# environment.sh: prints the folder of a Python 3.11 environment with tests/requirements/torch-stack.txt, which it makes
# in target/ when it is not there (a download of 2.9 GB, once).
# CUDA_ENTRYPOINT_TORCH_ENV: a folder that holds such an environment already. It is used as it is, and never changed.
# CUDA_ENTRYPOINT_TORCH_PYTHON: the Python 3.11 to make it with (python3.11).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

if [[ -n ${CUDA_ENTRYPOINT_TORCH_ENV:-} ]]; then
  if ! "$CUDA_ENTRYPOINT_TORCH_ENV/bin/python3" -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null; then
    echo "environment.sh: CUDA_ENTRYPOINT_TORCH_ENV=$CUDA_ENTRYPOINT_TORCH_ENV is no environment with torch" >&2
    exit 1
  fi
  realpath "$CUDA_ENTRYPOINT_TORCH_ENV"
  exit
fi

requirements=tests/requirements/torch-stack.txt
root=$target/torch-stack
folder=$root/$(sha256sum "$requirements" | cut -c 1-12)
mkdir -p "$root"
# Whoever comes second waits for the one that makes it.
exec 9>"$root/.lock"
flock 9
if [[ ! -d $folder ]]; then
  python=${CUDA_ENTRYPOINT_TORCH_PYTHON:-python3.11}
  version=$("$python" -c 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=none
  if [[ $version != 3.11 ]]; then
    echo "environment.sh: $python is no Python 3.11 with venv, for which these wheels are: name one in" \
      "CUDA_ENTRYPOINT_TORCH_PYTHON, or an environment that is there already in CUDA_ENTRYPOINT_TORCH_ENV" >&2
    exit 1
  fi
  free=$(df --output=avail --block-size=1G "$root" | tail -n 1)
  if ((free < 15)); then
    echo "environment.sh: $root has $free GB left, and downloads and environment need 15" >&2
    exit 1
  fi
  echo "installing $requirements into $folder: 5 GB, once" >&2
  draft=$root/draft
  rm -rf "$draft"
  "$python" -m venv "$draft"
  wheels=$(tests/build/wheels.py torch-stack)
  "$draft/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --find-links "$wheels" --no-deps \
    --only-binary=:all: --require-hashes --requirement "$requirements" >&2
  # It gets its name when it is complete.
  mv --no-target-directory "$draft" "$folder"
fi
printf '%s\n' "$folder"
