#!/usr/bin/env bash
# Proves the built-in entries that PYTHON has packages for on a machine with a GPU, and spoils them to see what is said.
# usage: frameworks.sh BINARY PYTHON OUTDIR     PYTHON: an interpreter or a virtual environment
# ENTRIES: which ones (all that are built in); ROUNDS: of the times (3)
set -euo pipefail

binary=$(realpath "${1:?usage: frameworks.sh BINARY PYTHON OUTDIR}")
python=${2:?usage: frameworks.sh BINARY PYTHON OUTDIR}
out=${3:?usage: frameworks.sh BINARY PYTHON OUTDIR}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset "${!CUDA_ENTRYPOINT_@}"
entries=${ENTRIES:-torch triton xformers bitsandbytes flash-attn torchvision jax cupy tensorflow onnxruntime}

has() { # ENTRY: its package is there
  local module=${1//-/_}
  "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)' "$module"
}

prove() { # ENTRY [NAME=VALUE...]: one entry by itself
  local entry=$1
  shift
  printf '{"schema": 1, "name": "%s", "smoke": ["%s"]}' "$entry" "$entry" >"$work/stack.json"
  env "$@" "$binary" check --stage smoke --stack "$work/stack.json" --python "$python" \
    --report "$out/$entry${*:+-spoilt}.json" 2>&1
}

{
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  there=()
  for entry in $entries; do
    has "$entry" && there+=("$entry")
  done
  echo "entries with their packages: ${there[*]}"
  for ((round = 0; round < ${ROUNDS:-3}; round++)); do
    for entry in "${there[@]}"; do
      prove "$entry" | grep -v '^$\|^smoke$\|^-*$' || true
    done
  done
  echo "== in one run"
  printf '{"schema": 1, "name": "all", "smoke": [%s]}' "$(printf '"%s"\n' "${there[@]}" | paste -sd,)" >"$work/stack.json"
  "$binary" check --stage smoke --stack "$work/stack.json" --python "$python" --report "$out/all.json" || true
  echo "== spoilt"
  for entry in "${there[@]}"; do
    case $entry in
    jax) prove jax JAX_PLATFORMS=cpu || true ;;
    triton) prove triton PATH=/nowhere TRITON_CACHE_DIR="$work/cache" || true ;;
    cupy | tensorflow | onnxruntime | torch) prove "$entry" CUDA_VISIBLE_DEVICES=9 || true ;;
    esac
  done
} | tee "$out/frameworks.txt"
