#!/usr/bin/env bash
# What the native proof costs on a machine with a GPU, beside the device stage alone and a separate smoke.
# usage: native.sh BINARY PYTHON OUTDIR     PYTHON: an interpreter or environment with torch, spconv-cu124 or both
# ROUNDS: in turns (9). A round takes ten seconds where torch is there, for the separate smoke.
set -euo pipefail

binary=$(realpath "${1:?usage: native.sh BINARY PYTHON OUTDIR}")
python=${2:?usage: native.sh BINARY PYTHON OUTDIR}
out=${3:?usage: native.sh BINARY PYTHON OUTDIR}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset "${!CUDA_ENTRYPOINT_@}"
cat >"$work/stack.json" <<'J'
{"schema": 1, "name": "native", "smoke": ["torch"],
 "packages": {"torch": {"version": "*", "optional": true}, "spconv-cu124": {"version": "*", "optional": true}}}
J

run() { # NAME OPTIONS...
  local name=$1
  shift
  python3 - "$name" "$binary" check --stack "$work/stack.json" --python "$python" "$@" <<'P'
import json, subprocess, sys, time
start = time.perf_counter()
ended = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
ms = round((time.perf_counter() - start) * 1000, 1)
print(json.dumps({"what": sys.argv[1], "ms": ms, "exit": ended.returncode}))
P
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/native-machine.txt"
"$binary" check --stack "$work/stack.json" --python "$python" --stage smoke --smoke native=all | tee "$out/native.txt"
for ((round = 0; round < ${ROUNDS:-9}; round++)); do
  run device --stage device
  run native --stage smoke --smoke native
  run native=all --stage smoke --smoke native=all
  [[ ${SEPARATE:-1} == 0 ]] || run separate --stage smoke --smoke separate
done | tee "$out/native.jsonl"
python3 - "$out/native.jsonl" <<'P'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
for what in dict.fromkeys(row["what"] for row in rows):
    ms = [row["ms"] for row in rows if row["what"] == what]
    print("{:12} median {:7.1f}  {:.1f} to {:.1f} ms".format(what, statistics.median(ms), min(ms), max(ms)))
P
