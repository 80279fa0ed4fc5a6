#!/usr/bin/env python3
"""What a hand-off adds until a service is ready, with packages that take as long to import, and a GPU that takes as long for
each step, as on the H200 of tests/gpu/results.md. There is no GPU here: fake packages and the tests' fake driver wait.

usage: handoff.py BINARY DRIVER [ROUNDS]; DRIVER is the folder of the fake driver, target/fakes/lib once the tests have run.
Prints a JSON object a line: a way, and its median, minimum and maximum in seconds, the ways tried in turns.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

FAKES = pathlib.Path(__file__).parent.parent / "fakes/python"
# Seconds, one GPU, bytecode written: ready.jsonl has 5.8 for both imports together, steps.jsonl the rest.
IMPORTS = {"import torch": 2.5, "import spconv": 3.3}
STEPS = {
    "init": 0.187,
    "matmul float32": 0.307,
    "matmul float16": 0.127,
    "forward float32": 0.053,
    "forward float16": 0.025,
}
CU_INIT_MS = 217
SERVICE = "import time, torch, spconv.pytorch; print(time.time())"


def pauses(of):
    return json.dumps({place: {"pause": seconds} for place, seconds in of.items()})


def main():
    binary, driver = (os.path.abspath(path) for path in sys.argv[1:3])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 7
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "env"], check=True)
        site = next(root.glob("env/lib/python*/site-packages"))
        shutil.copytree(FAKES, site, dirs_exist_ok=True)
        stack = {"schema": 1, "name": "bench", "cuda": {"driver": ">=12.4"}, "smoke": ["torch", "spconv"]}
        (root / "stack.json").write_text(json.dumps(stack))
        (root / "gpu.json").write_text(json.dumps({"calls": {"cuInit": {"delay_ms": CU_INIT_MS}}}))
        environment = {
            "PATH": "/usr/bin:/bin",
            "VIRTUAL_ENV": str(root / "env"),
            "LD_LIBRARY_PATH": driver,
            "FAKE_GPU_SCRIPT": str(root / "gpu.json"),
        }
        service = [str(root / "env/bin/python"), "-c", SERVICE]
        run = [binary, "run", "--stack", str(root / "stack.json"), "--log", "error", "--smoke"]
        ways = {
            "no checks": (service, {**IMPORTS, **STEPS}),
            "hand-off": ([*run, "handoff", "--", *service], {**IMPORTS, **STEPS}),
            "hand-off, a GPU that takes no time": ([*run, "handoff", "--", *service], IMPORTS),
            "hand-off, all of it takes no time": ([*run, "handoff", "--", *service], {}),
            "no checks, all of it takes no time": (service, {}),
        }
        times = {way: [] for way in ways}
        for turn in range(rounds + 1):
            for way, (argv, script) in ways.items():
                began = time.time()
                output = subprocess.run(
                    argv, env={**environment, "FAKE_TORCH_SCRIPT": pauses(script)}, check=True, stdout=subprocess.PIPE
                )
                if turn > 0:  # the first turn fills caches
                    times[way].append(float(output.stdout) - began)
        for way, values in times.items():
            shown = {"median_s": statistics.median(values), "min_s": min(values), "max_s": max(values)}
            print(json.dumps({"way": way, "rounds": rounds, **{name: round(value, 3) for name, value in shown.items()}}))


if __name__ == "__main__":
    main()
