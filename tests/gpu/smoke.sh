#!/usr/bin/env bash
# The smoke on a machine with an NVIDIA GPU: the machine's own torch with the CUDA 12.4 wheels of spconv and cumm.
# usage: smoke.sh BINARY BUNDLEDIR OUTDIR     as run.sh; BUNDLEDIR comes from bundle.sh for this machine's Python
# Ends with 1 when anything is not as it must be. Needs a python3 with torch. ONLY=times leaves out what takes none.
# WAYS: which of `none handoff separate` a service is started by, in turns (all of them).
# EXTENSIONS=FOLDER: there, as extensions.tar.xz, torch_scatter and mmcv built with nvcc for this torch, and what they import.
set -uo pipefail

binary=$(realpath "${1:?usage: smoke.sh BINARY BUNDLEDIR OUTDIR}")
bundle=${2:?usage: smoke.sh BINARY BUNDLEDIR OUTDIR}
out=${3:?usage: smoke.sh BINARY BUNDLEDIR OUTDIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
failed=0
unset "${!CUDA_ENTRYPOINT_@}"
PYTHONPATH=$("$here/unpack.sh" "$bundle" "$work")
export PYTHONPATH
if [[ -n ${EXTENSIONS:-} ]]; then
  mkdir "$work/extensions" && tar -C "$work/extensions" -xJf "$EXTENSIONS/extensions.tar.xz" || exit 1
  PYTHONPATH=$PYTHONPATH:$work/extensions
fi

# What is installed here is no CUDA 12.4 stack, so the manifest asks for the driver and the smoke alone.
manifest() { # ENTRIES: each with its quotes
  cat <<JSON
{
  "schema": 1,
  "name": "gpu-smoke",
  "cuda": {"driver": ">=12.4"},
  "archs": "7.5;8.0;8.6;8.9;9.0",
  "env": {"SPCONV_DISABLE_JIT": "1", "CUMM_DISABLE_JIT": "1"},
  "smoke": [$1]
}
JSON
}
entries='"torch", "spconv"'
for module in torchvision torch_scatter mmcv; do
  python3 -c "import importlib.util as u, sys; sys.exit(not u.find_spec('$module'))" && entries+=", \"${module/_/-}\""
done
manifest "$entries" >"$work/stack.json"
stack=$work/stack.json

expect() { # WHAT EXIT COMMAND...: runs it, keeps its output, compares the exit status
  local what=$1 wanted=$2 got start=$EPOCHREALTIME
  shift 2
  echo "== $what"
  "$@" >"$work/stdout" 2>"$work/stderr"
  got=$?
  sed 's/^/   stderr: /' "$work/stderr"
  sed 's/^/   stdout: /' "$work/stdout"
  echo "   took $(python3 -c "print(round($EPOCHREALTIME - $start, 2))") s"
  if [[ $got != "$wanted" ]]; then
    echo "   FAILED: exit $got, not $wanted"
    failed=1
  fi
}
says() { # TEXT: the last command said it
  grep -qF -- "$1" "$work/stdout" "$work/stderr" || {
    echo "   FAILED: nothing says: $1"
    failed=1
  }
}

if [[ ${ONLY:-} != times ]]; then
expect "separate" 0 "$binary" check --stack "$stack" --stage smoke --report "$out/smoke.json"
cp "$work/stdout" "$out/smoke.txt"
says "spconv forward OK"
says "NVRTC was never called"
expect "run" 0 "$binary" run --stack "$stack" -- python3 -c 'print("served")'
says "spconv forward OK"
[[ $(<"$work/stdout") == served ]] || { echo "   FAILED: stdout is not the service's alone"; failed=1; }
expect "all devices" 0 "$binary" check --stack "$stack" --stage smoke --smoke-devices all
expect "no device" 82 env CUDA_VISIBLE_DEVICES= "$binary" check --stack "$stack"
expect "no device, run" 82 env CUDA_VISIBLE_DEVICES= "$binary" run --stack "$stack" -- true
expect "optional without a device" 0 env CUDA_VISIBLE_DEVICES= "$binary" run --gpu optional --stack "$stack" -- true
# A GPU whose memory somebody else has.
python3 - <<'PY' &
import time, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(max(0, free - (120 << 20)), dtype=torch.uint8, device="cuda")
print("   holding", held.numel() >> 20, "MiB", flush=True)
time.sleep(60)
PY
holder=$!
for _ in $(seq 100); do
  free=$(nvidia-smi --query-gpu=memory.free --format=csv,noheader,nounits | head -n 1)
  ((free < 700)) && break
  sleep 0.3
done
expect "out of memory" 82 "$binary" check --stack "$stack" --stage smoke
says "smoke-device"
kill "$holder" 2>/dev/null
wait "$holder" 2>/dev/null
expect "a deadline" 85 "$binary" check --stack "$stack" --stage smoke --smoke-timeout 2s
says "smoke-timeout"
expect "handed off" 0 "$binary" run --smoke handoff --stack "$stack" --report "$out/handoff.json" \
  -- env BEGAN="$(date +%s.%N)" python3 "$here/service.py" --workers
says "spconv forward OK" # env execs Python in its own process
export BEGAN
BEGAN=$(date +%s.%N)
expect "handed off to Python" 0 "$binary" run --smoke handoff --stack "$stack" --report "$out/handoff.json" \
  -- python3 "$here/service.py" --workers
says "spconv forward OK"
says "workers OK"
python3 - "$out/handoff.json" <<'PY' || failed=1
import json, sys
report = json.load(open(sys.argv[1]))
assert report["smoke"] == {"mode": "handoff", "status": "passed", "reason": ""}, report["smoke"]
PY
python3 - "$out" <<'PY' | tee "$out/steps.jsonl" || failed=1
import json, sys
for way in ("smoke", "handoff"):
    for step in json.load(open(f"{sys.argv[1]}/{way}.json"))["facts"]["smoke"]["builtin"]["steps"]:
        kept = ("entry", "step", "device", "outcome", "ms", "difference")
        print(json.dumps({"smoke": {"smoke": "separate"}.get(way, way), **{key: step[key] for key in kept if key in step}}))
PY
expect "handed off, no device" 82 env CUDA_VISIBLE_DEVICES= "$binary" run --smoke handoff --stack "$stack" -- python3 "$here/service.py"
fi

echo "== receipts"
receipt=$work/receipt.json
gpus=$(nvidia-smi -L | wc -l)
expect "receipt: written, $gpus GPU(s) smoked" 0 "$binary" run --receipt "$receipt" --stack "$stack" -- true
expect "receipt: recognised" 0 "$binary" run --receipt "$receipt" --stack "$stack" -- true
says "as proven"
expect "receipt: another manifest" 0 "$binary" run --receipt "$receipt" --stack "$stack" --archs "9.0" --smoke off -- true
says "receipt: "
"$binary" run --receipt "$receipt" --stack "$stack" -- true 2>/dev/null
if ((gpus > 1)); then
  "$here/first-gpu-alone.sh" true
  if (($? == 125)); then
    echo "   NOT TESTED: one of $gpus GPUs alone: no right to mount here"
  else
    expect "receipt: proven on $gpus GPUs, one of them there" 0 \
      "$here/first-gpu-alone.sh" "$binary" run --receipt "$receipt" --stack "$stack" -- true
    says "as proven"
    says "spconv forward OK"
  fi
  expect "smoke on all devices" 0 "$binary" check --stage smoke --smoke-devices all --stack "$stack"
  cp "$work/stdout" "$out/smoke-all.txt"
fi
echo '{"schema": 1, "name": "device-only", "cuda": {"driver": ">=12.4"}, "archs": "9.0"}' >"$work/device.json"
python3 "$here/measure.py" "${ROUNDS:-15}" \
  "start with a receipt=$binary run --receipt $receipt --stack $stack --log error -- true" \
  "the same without the smoke and the receipt=$binary run --smoke off --stack $stack --log error -- true" \
  "health=$binary check --stage health --stack $stack" | tee "$out/receipt-times.jsonl"

# What the service imports itself: what it does not would be imported for the smoke alone.
manifest '"torch", "spconv"' >"$work/pair.json"
echo "== service ready after, in turns: s"
export BEGAN
for round in $(seq "${SERVICE_ROUNDS:-3}"); do
  for way in ${WAYS:-none handoff separate}; do
    BEGAN=$(date +%s.%N)
    case $way in
      none) python3 "$here/service.py" ;;
      *) "$binary" run --smoke "$way" --stack "$work/pair.json" --log error -- python3 "$here/service.py" ;;
    esac | sed -n "s/^ready/{\"way\": \"$way\", \"round\": $round, \"ready_s\":/p" | sed 's/$/}/'
  done
done | tee "$out/ready.jsonl"
sed -i -E -e "s#$work#/work#g" -e "s#$binary#cuda-entrypoint#g" -e 's/GPU-[0-9a-f-]{36}/GPU-00000000-0000-0000-0000-000000000000/g' \
  "$out"/*
exit "$failed"
