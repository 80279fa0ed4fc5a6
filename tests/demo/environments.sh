#!/usr/bin/env bash
# environments.sh FOLDER: makes in FOLDER what the demo looks at, from real wheels:
#   venv          CUDA 12.4 with cumm and spconv, for this machine's Python where it has these wheels
#   faiss         faiss-gpu-cu12 1.11.0, without its dependencies
#   torchvision   torchvision 0.19.1, beside the metadata of a torch 2.5.0
#   old-driver.json, h100.json    GPUs for the fake driver of the tests
set -euo pipefail
folder=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

# tests/requirements/demo.txt has wheels for these versions of Python.
supported='3\.(9|10|11|12|13)'
fallback=3.11

rm -rf "$folder"
mkdir -p "$folder"

# looked_at NAME VERSION: an environment that is only looked at needs no interpreter. One that venv made stays as it is.
looked_at() {
  mkdir -p "$folder/$1/lib/python$2/site-packages"
  [[ -e $folder/$1/pyvenv.cfg ]] || printf 'home = /usr/bin\nversion = %s\n' "$2" >"$folder/$1/pyvenv.cfg"
}

# install NAME VERSION LIST FILE: without dependencies: pip refuses the pair of spconv and cumm, although they work together, and
# those of faiss and torchvision have a gigabyte. In one go, since `--target` does not merge a second wheel into the folder
# `nvidia`. The version of Python is the one asked for, whichever runs pip.
install() {
  local wheels
  wheels=$(tests/build/wheels.py --python "$2" "$3")
  tests/build/pip.sh install --quiet --no-deps --no-compile --only-binary=:all: --no-index --find-links "$wheels" \
    --ignore-requires-python --implementation cp --python-version "$2" \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
    --target "$folder/$1/lib/python$2/site-packages" --require-hashes --requirement "$4"
}

version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [[ $version =~ ^$supported$ ]]; then
  python3 -m venv --without-pip "$folder/venv"
else
  echo "== Python $version has no spconv wheel: taking those for Python $fallback"
  version=$fallback
fi
looked_at venv "$version"
install venv "$version" demo tests/requirements/demo.txt

for story in faiss:faiss-gpu-cu12 torchvision:torchvision; do
  looked_at "${story%:*}" 3.11
  list=$folder/${story%:*}.txt
  grep "^${story#*:}==" tests/requirements/stories.txt >"$list"
  install "${story%:*}" 3.11 "stories:${story#*:}" "$list"
  rm "$list"
done
# torch itself has 900 MB: what a check of requirements reads of it is this.
torch=$folder/torchvision/lib/python3.11/site-packages
mkdir -p "$torch/torch-2.5.0.dist-info" "$torch/torch"
printf 'Metadata-Version: 2.1\nName: torch\nVersion: 2.5.0\n' >"$torch/torch-2.5.0.dist-info/METADATA"
printf "__version__ = '2.5.0+cu124'\ncuda = '12.4'\n" >"$torch/torch/version.py"

echo '{"driver_api": 11080, "driver_release": "520.61.05", "devices": [{"name": "NVIDIA A100-SXM4-80GB", "cc": "8.0"}]}' \
  >"$folder/old-driver.json"
echo '{"driver_api": 12080, "driver_release": "570.86.10", "devices": [{"name": "NVIDIA H100 80GB HBM3", "cc": "9.0"}]}' \
  >"$folder/h100.json"
