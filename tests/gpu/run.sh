#!/usr/bin/env bash
# The binary on a machine with an NVIDIA GPU and no network.
# usage: run.sh BINARY BUNDLEDIR OUTDIR     BUNDLEDIR comes from bundle.sh; what was seen is left in OUTDIR
# Ends with 1 when anything is not as it must be. Needs python3 (3.12) and a C compiler; changes nothing on the GPU.
set -uo pipefail

binary=$(realpath "${1:?usage: run.sh BINARY BUNDLEDIR OUTDIR}")
bundle=${2:?usage: run.sh BINARY BUNDLEDIR OUTDIR}
out=${3:?usage: run.sh BINARY BUNDLEDIR OUTDIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
failed=0

# An environment with these wheels alone: what else the machine's Python has is built for another CUDA.
python3 -m venv --without-pip "$work/venv" || exit 1
site=$("$here/unpack.sh" "$bundle" "$work")
packages=$(echo "$work"/venv/lib/python3.*/site-packages)
rmdir "$packages" && mv "$site" "$packages"
export VIRTUAL_ENV=$work/venv PATH=$work/venv/bin:$PATH
unset PYTHONPATH
cp "$here/../demo/stack.json" "$work/stack.json"
stack=$work/stack.json
unset "${!CUDA_ENTRYPOINT_@}"

expect() { # WHAT EXIT COMMAND...: runs it, keeps its output, compares the exit status
  local what=$1 wanted=$2 got
  shift 2
  echo "== $what"
  "$@" >"$work/stdout" 2>"$work/stderr"
  got=$?
  sed 's/^/   stderr: /' "$work/stderr"
  sed 's/^/   stdout: /' "$work/stdout"
  if [[ $got == "$wanted" ]]; then
    echo "   exit $got"
  else
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

{
  nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader
  uname -sr | cut -d - -f 1
  python3 -V
  "$binary" --version
} >"$out/machine.txt" 2>&1
cat "$out/machine.txt"

expect "run: the service starts, stdout is its own" 0 \
  "$binary" run --stack "$stack" -- python3 -c 'import os; print("pid", os.getpid() > 0, os.environ["SPCONV_DISABLE_JIT"])'
says "CUDA runtime 12.4"
says "(9.0)"
[[ $(<"$work/stdout") == "pid True 1" ]] || { echo "   FAILED: stdout is not the service's alone"; failed=1; }

expect "check, for people" 0 "$binary" check --stack "$stack"
cp "$work/stdout" "$out/check.txt"
expect "check, for programs" 0 "$binary" check --stack "$stack" --format json
cp "$work/stdout" "$out/report.json"
python3 - "$out/report.json" <<'PY' || failed=1
import json, sys
report = json.load(open(sys.argv[1]))
devices = report["facts"]["device"]["devices"]
assert report["verdict"] in ("pass", "warn"), report["verdict"]
assert devices and all(d["capability"] == "9.0" and d["uuid"].startswith("GPU-") for d in devices), devices
nvml = {d["pci_bus_id"]: d["uuid"] for d in report["facts"]["device"]["nvml_devices"]}
assert all(nvml[d["pci_bus_id"]] == d["uuid"] for d in devices), (nvml, devices)
kinds = {(l["kind"], l["answer"]["version"]) for l in report["facts"]["image"]["libraries"]}
assert kinds == {("cudart", "12.4"), ("nvrtc", "12.4")}, kinds
print("   the report holds", len(devices), "device(s), the same by libcuda and NVML")
PY
expect "health" 0 "$binary" check --stage health --stack "$stack"

expect "a receipt: the first start" 0 "$binary" run --stack "$stack" --receipt "$work/receipt.json" -- true
expect "a receipt: the second start" 0 "$binary" run --stack "$stack" --receipt "$work/receipt.json" --report "$work/second.json" -- true
says "image and GPUs as proven"
python3 - "$work/second.json" "$out/report.json" <<'PY' || failed=1
import json, sys
second, full = (json.load(open(path)) for path in sys.argv[1:])
device = second["facts"]["device"]
assert [used["part"] for used in second["receipt"]["used"]] == ["image", "device"], second["receipt"]
assert device["helper"]["end"] == "not-run" and device["devices"] == full["facts"]["device"]["devices"], device
# Nodes of GPUs that are not ours may be there without opening.
shared = [node for node in device["opened"] if node["path"] in ("/dev/nvidiactl", "/dev/nvidia-uvm")]
assert len(shared) == 2 and not any("errno" in node for node in shared), device["opened"]
print("   NVML alone was asked;", len(device["opened"]), "nodes looked at")
PY
expect "a receipt under another variable" 0 \
  env CUDA_VISIBLE_DEVICES=0 "$binary" run --stack "$stack" --receipt "$work/receipt.json" -- true
says 'CUDA_VISIBLE_DEVICES was unset and is "0"'
rm "$work/receipt.json"

expect "wrong architectures" 83 "$binary" run --stack "$stack" --archs "7.5;8.0" -- true
says "arch-unsupported"
expect "PTX would do" 0 "$binary" run --stack "$stack" --archs "7.5;8.0+PTX" -- true
says "arch-unlisted"
expect "no device visible" 82 env CUDA_VISIBLE_DEVICES= "$binary" run --stack "$stack" -- true
says "CUDA_VISIBLE_DEVICES hides every GPU"
expect "no device visible, optional" 0 env CUDA_VISIBLE_DEVICES= "$binary" run --stack "$stack" --gpu optional -- true
expect "a device that is not there" 82 env CUDA_VISIBLE_DEVICES=99 "$binary" run --stack "$stack" -- true
sed 's/">=12.4"/">=42.0"/' "$stack" >"$work/newer.json"
expect "a newer driver than there is" 82 "$binary" run --stack "$work/newer.json" -- true
says "driver-too-old"

cc -O2 -o "$work/cuinit" "$here/cuinit.c" -ldl || failed=1
"$binary" install "$work/installed" >/dev/null || failed=1
echo '{"schema": 1, "name": "device-only", "cuda": {"driver": ">=12.4"}, "archs": "9.0"}' >"$work/device.json"
echo "== times, in turns"
python3 "$here/measure.py" "${ROUNDS:-15}" \
  "bare cuInit=$work/cuinit" \
  "device stage=$binary run --stack $work/device.json --log error -- true" \
  "health=$binary check --stage health --stack $work/device.json" \
  "image and device=$binary run --stack $stack --log error -- true" \
  "the same with a receipt=$binary run --stack $stack --receipt $work/receipt.json --log error -- true" \
  "image alone=$binary run --stack $stack --gpu off --log error -- true" \
  "helper, driver alone=$work/installed/cuda-helper driver" \
  "helper, NVML alone=$work/installed/cuda-helper nvml" \
  "mode off=$binary run --mode off -- true" | tee "$out/times.jsonl"

# What is kept names no folder and no GPU of this machine.
sed -i -E -e "s#$work#/work#g" -e "s#$binary#cuda-entrypoint#g" -e 's/GPU-[0-9a-f-]{36}/GPU-00000000-0000-0000-0000-000000000000/g' \
  "$out"/*
exit "$failed"
