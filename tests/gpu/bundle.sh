#!/usr/bin/env bash
# Packs what tests/gpu/run.sh needs on a machine that has a GPU and no network: the CUDA 12.4 wheels as one archive.
# usage: bundle.sh OUTDIR [PYTHON_VERSION]     leaves OUTDIR/wheels.tar.xz, under 64 MiB
#
# libnvrtc lies in two of the wheels, once as auditwheel copied it into cumm's; the copy is left out here and run.sh
# makes it again, which saves a third of the size.
set -euo pipefail

out=${1:?usage: bundle.sh OUTDIR [PYTHON_VERSION]}
python_version=${2:-3.12}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/site"

for requirement in \
    nvidia-cuda-runtime-cu12==12.4.127 nvidia-cuda-nvrtc-cu12==12.4.127 \
    spconv-cu124==2.3.8 cumm-cu124==0.8.2 pccm==0.4.16 ccimport==0.4.4 \
    pybind11 fire lark portalocker termcolor; do
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --implementation cp --python-version "$python_version" \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest "$work/wheels" "$requirement"
done
for wheel in "$work"/wheels/*.whl; do
    python3 -m zipfile -e "$wheel" "$work/site"
done
rm -f "$work"/site/cumm_cu124.libs/libnvrtc*
tar -C "$work" -c site | xz -T0 -6 >"$out/wheels.tar.xz"
ls -l "$out/wheels.tar.xz"
