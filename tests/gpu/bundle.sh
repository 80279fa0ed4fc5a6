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

here=$(dirname "${BASH_SOURCE[0]}")
"$here/../build/wheels.py" --python "$python_version" --files demo \
    torch-stack:pccm,ccimport,pybind11,fire,lark,portalocker,termcolor >"$work/wheels"
while IFS= read -r wheel; do
    python3 -m zipfile -e "$wheel" "$work/site"
done <"$work/wheels"
rm -f "$work"/site/cumm_cu124.libs/libnvrtc*
tar -C "$work" -c site | xz -T0 -6 >"$out/wheels.tar.xz"
ls -l "$out/wheels.tar.xz"
