#!/usr/bin/env bash
# run.sh [OUT]: what the image stage costs on a full torch environment, beside what it is measured against, into OUT
# (target/bench/results). `make bench` calls it. Nothing here passes or fails: times are this machine's, and its mood's.
# CUDA_ENTRYPOINT_TORCH_ENV: see tests/stack_full/environment.sh. BENCH_ROUNDS: how often each command runs (15).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/build/folders.sh

out=$(realpath -m "${1:-$target/bench/results}")
rounds=${BENCH_ROUNDS:-15}
work=$target/bench
environment=$(tests/stack_full/environment.sh)
site=$environment/lib/python3.11/site-packages
entrypoint=$dist/cuda-entrypoint
[[ -x $entrypoint ]] || { echo "bench: no $entrypoint; run: make build" >&2; exit 1; }
mkdir -p "$out" "$work"
# Nobody's environment is written into.
export PYTHONDONTWRITEBYTECODE=1

# What runs in the foreground of the machine is not slowed by its neighbours.
foreground=()
if chrt --fifo 50 true 2>/dev/null; then foreground=(chrt --fifo 50); fi

measure() { # FILE COMMANDS...: warm, in turns
  local file=$out/$1
  shift
  "${foreground[@]}" python3 tests/gpu/measure.py "$rounds" "$@" | tee "$file"
}

{
  echo "$(grep -m 1 'model name' /proc/cpuinfo | cut -d : -f 2 | xargs), $(nproc) cores, $(awk '/MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB"
  echo "Linux $(uname -r), $(df --output=fstype "$environment" | tail -n 1) on $(df --output=source "$environment" | tail -n 1)"
  echo "load average when it began: $(cut -d ' ' -f 1-3 /proc/loadavg)"
  echo "$("$environment/bin/python" --version), $(find "$environment" -type f | wc -l) files, $(du -s --block-size=1M "$environment" | cut -f 1) MiB"
  echo "run with ${foreground[*]:-no priority}"
  echo "$("$entrypoint" --version), $(stat -c %s "$entrypoint") bytes"
} | tee "$out/machine.txt"

# The embedded manifest without what PyPI has no CUDA build of, and without the smoke.
python3 - >"$work/stack.json" <<'PYTHON'
import json
stack = json.load(open("src/stack/pointcept-cu124.json"))
for absent in ["torch-scatter", "torch-geometric", "mmcv"]:
    del stack["packages"][absent]
del stack["smoke"]
print(json.dumps(stack))
PYTHON
echo '{"schema": 1, "name": "nothing"}' >"$work/nothing.json"
printf '#!/bin/sh\nexec true\n' >"$work/bare.sh"
chmod +x "$work/bare.sh"
cc -O2 -static -o "$work/peak" tests/bench/peak.c

cuobjdump=$(command -v cuobjdump || echo "$site/triton/backends/nvidia/bin/cuobjdump")
run="$entrypoint run --stack $work/stack.json --gpu off --smoke off --log error --python $environment"
python="$environment/bin/python tests/bench/entrypoint.py $work/stack.json"
bare="$entrypoint run --stack $work/nothing.json --gpu off --smoke off --log error"

echo "== warm"
measure warm.jsonl "entrypoint=$run -- true" "entrypoint in Python=$python true" \
  "entrypoint in Python, with cuobjdump=env CUOBJDUMP=$cuobjdump $python true" \
  "nothing to check=$bare -- true" "shell script=$work/bare.sh" "true itself=true"

echo "== cold"
if [[ -w /proc/sys/vm/drop_caches ]]; then
  "${foreground[@]}" python3 tests/bench/cold.py 5 "entrypoint=$run -- true" "entrypoint in Python=$python true" | tee "$out/cold.jsonl"
else
  echo "bench: not measured: the page cache cannot be dropped here" | tee "$out/cold.jsonl"
fi

echo "== memory and bytes"
{
  echo "# cold: what the entrypoint and its children read, and the most memory that the entrypoint itself had"
  if [[ -w /proc/sys/vm/drop_caches ]]; then sync; echo 3 >/proc/sys/vm/drop_caches; fi
  $run -- "$work/peak"
  echo "# warm"
  $run -- "$work/peak"
  echo "# warm, the entrypoint in Python"
  $python "$work/peak"
} | tee "$out/memory.txt"

echo "== kernels"
spconv=$(echo "$site"/spconv/core_cc.*.so)
measure kernels.jsonl "spconv, kernels=$entrypoint kernels $spconv" "spconv, cuobjdump=$cuobjdump --list-elf $spconv" \
  "torch, kernels=$entrypoint kernels $site/torch/lib/libtorch_cuda.so" \
  "torch, cuobjdump=$cuobjdump --list-elf $site/torch/lib/libtorch_cuda.so"

echo "== growth"
commands=()
for count in 50 100 200 500 1000; do
  rm -rf "$work/made-up-$count"
  python3 tests/bench/distributions.py "$work/made-up-$count" "$count"
  commands+=("$count distributions=$entrypoint check --stage image --stack $work/made-up-$count/stack.json --python $work/made-up-$count --termination-log $work/termination")
done
measure growth.jsonl "${commands[@]}"
# Folders of this machine are nobody's business.
sed -i "s#$entrypoint#dist/cuda-entrypoint#g; s#$environment#ENV#g; s#$work#target/bench#g" "$out"/*.txt "$out"/*.jsonl
