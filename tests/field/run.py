#!/usr/bin/env python3
"""Environments that people use, captured and started behind GPUs of the fake driver; faults that people report, each with the
remedy of its hint followed to the letter; and the examples of docker/examples, each under its own manifest.

usage: run.py [NAME...]     environments, faults and examples (example-NAME) by name; all of them without one. --list prints
                            the names

Needs PyPI, a Python 3.11, and up to 60 GB: CUDA_ENTRYPOINT_FIELD is the folder (field below cargo's target folder). An
environment that is there already is used as it is. CUDA_ENTRYPOINT_FIELD_PYTHON: the interpreter to make them with (3.11).
Versions are pinned: what a release serves does not change.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
FIELD = pathlib.Path(os.environ.get("CUDA_ENTRYPOINT_FIELD") or TARGET / "field").absolute()
ENTRYPOINT = pathlib.Path(os.environ.get("CUDA_ENTRYPOINT_DIST") or ROOT / "dist/cuda-entrypoint").absolute()
FAKES = TARGET / "fakes/lib"

# Name and compute capability of a GPU of each family. Driver release and API version are those of the last line.
GPUS = {
    "7.5": "Tesla T4",
    "8.6": "NVIDIA GeForce RTX 3090",
    "8.9": "NVIDIA L40S",
    "9.0": "NVIDIA H100 80GB HBM3",
    "10.0": "NVIDIA B200",
    "12.0": "NVIDIA GeForce RTX 5090",
}
DRIVER = {"driver_api": 13020, "driver_release": "595.10"}

# Requirements, and the compute capabilities that the framework itself serves: by `kernels` on its libraries.
ENVIRONMENTS = {
    "torch-2.5": (["torch==2.5.0", "torchvision==0.20.0", "torchaudio==2.5.0", "numpy<2.3"], "7.5 8.6 8.9 9.0"),
    "torch-cuda13": (["torch==2.15.0", "numpy"], "7.5 8.6 8.9 9.0 10.0 12.0"),
    "torch-xgboost": (["torch==2.6.0", "xgboost==3.2.0", "numpy"], "7.5 8.6 8.9 9.0"),
    "xformers": (["torch==2.6.0", "xformers==0.0.29.post3", "numpy"], "7.5 8.6 8.9 9.0"),
    "torchao": (["torch==2.8.0", "torchao==0.18.0", "torchvision==0.23.0", "numpy"], "7.5 8.6 8.9 9.0 10.0 12.0"),
    "vllm": (["vllm==0.33.0"], "8.6 8.9 9.0 10.0 12.0"),
    # 2.21.0 does not look into the wheel of cuSOLVER.
    "tensorflow": (["tensorflow[and-cuda]==2.20.0"], "7.5 8.6 8.9 9.0 10.0 12.0"),
    "jax": (["jax[cuda12]==0.10.2"], "7.5 8.6 8.9 9.0 10.0 12.0"),
    "onnxruntime": (["onnxruntime-gpu[cuda,cudnn]==1.31.1"], "7.5 8.6 8.9 9.0 12.0"),
    "cupy": (["cupy-cuda12x[ctk]==14.2.0"], "7.5 8.6 8.9 9.0 10.0 12.0"),
    "faiss": (["faiss-gpu-cu12==1.14.1.post1", "numpy"], "7.5 8.6 8.9"),
}

# The examples that are made of wheels alone, and the compute capabilities that their manifests list.
EXAMPLES = ROOT / "docker/examples"
SERVED = {
    "pytorch": "7.5 8.6 8.9 9.0 10.0 12.0",
    "vllm": "8.6 8.9 9.0 10.0 12.0",
    "jax": "7.5 8.6 8.9 9.0 10.0 12.0",
    "tensorflow": "7.5 8.6 8.9 9.0 10.0 12.0",
    "comfyui": "7.5 8.6 8.9 9.0",
    "faster-whisper": "7.5 8.6 8.9 9.0 10.0 12.0",
    "cpu-or-gpu": "7.5 8.6 8.9 9.0 12.0",
}


def uv(*arguments):
    tool = FIELD / "tool"
    if not (tool / "bin/uv").exists():
        subprocess.run([sys.executable, "-m", "venv", tool], check=True)
        subprocess.run([tool / "bin/pip", "install", "--quiet", "uv"], check=True)
    subprocess.run([tool / "bin/uv", *arguments], check=True)


def environment(name):
    """The folder of an environment, which is made where it is not there."""
    return made(name, ENVIRONMENTS[name][0])


def made(name, requirements):
    """The folder of an environment of these packages."""
    folder = FIELD / "environments" / name
    if not folder.exists():
        draft = folder.with_name(name + ".draft")
        shutil.rmtree(draft, ignore_errors=True)
        # With pip, for remedies.
        uv("venv", "--quiet", "--seed", "--relocatable", "--python", os.environ.get("CUDA_ENTRYPOINT_FIELD_PYTHON", "3.11"), draft)
        uv("pip", "install", "--quiet", "--python", draft, *requirements)
        draft.rename(folder)
    return folder


def variables_of(name, folder):
    """LD_LIBRARY_PATH as the Dockerfile of an example sets it, with this environment in place of the image's Python."""
    lines = (EXAMPLES / name / "Dockerfile").read_text().splitlines()
    found = [line.split("=", 1)[1] for line in lines if line.startswith("ENV LD_LIBRARY_PATH=")]
    return {"LD_LIBRARY_PATH": path.replace("/usr/local/", f"{folder}/") for path in found}


def example(name):
    """What is wrong with an example: its image stage under its manifest, under none, and behind each GPU."""
    folder = made(f"example-{name}", ["--requirement", EXAMPLES / name / "requirements.txt"])
    variables = variables_of(name, folder)
    manifest = EXAMPLES / name / "stack.json"
    wrong = []
    for stack in [manifest, "none"]:
        run = Run(["check", "--stage", "image", "--python", folder, "--stack", stack], variables=variables)
        if run.code != 0:
            said = "; ".join(f"{f['code']}: {f['message']}" for f in run.failures())
            wrong.append(f"the image stage under {stack} ended with {run.code}: {said}")
    for capability in GPUS:
        run = Run(["check", "--smoke", "off", "--python", folder, "--stack", manifest], gpu=capability, variables=variables)
        expected = 0 if capability in SERVED[name].split() else 83
        if run.code != expected:
            said = "; ".join(f["message"] for f in run.failures())
            wrong.append(f"compute capability {capability}: exit code {run.code} in place of {expected}: {said}")
    return wrong


class Run:
    """One start of the entrypoint: its exit code, its output and its report."""

    def __init__(self, arguments, gpu=None, variables=None):
        with tempfile.TemporaryDirectory() as scratch:
            report = pathlib.Path(scratch, "report.json")
            env = {"PATH": "/usr/bin:/bin", "HOME": scratch} | (variables or {})
            if gpu:
                script = DRIVER | {"devices": [{"name": GPUS[gpu], "cc": gpu}]}
                path = pathlib.Path(scratch, "gpu.json")
                path.write_text(json.dumps(script))
                folders = [str(FAKES)] + [f for f in [env.get("LD_LIBRARY_PATH")] if f]
                env |= {"FAKE_GPU_SCRIPT": str(path), "LD_LIBRARY_PATH": ":".join(folders)}
            run = subprocess.run(
                [ENTRYPOINT, *arguments, *(["--report", report] if arguments[0] == "check" else [])],
                env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
            )
            self.code, self.stdout, self.stderr = run.returncode, run.stdout, run.stderr
            self.findings = json.loads(report.read_text())["findings"] if report.exists() else []

    def failures(self):
        return [f for f in self.findings if f["status"] == "fail"]


def capture(folder, to):
    run = Run(["stack", "capture", "--python", folder])
    to.write_text(run.stdout)
    return run


def healthy(name):
    """What is wrong with the capture of an environment and with its starts; nothing where it is empty."""
    folder, wrong = environment(name), []
    manifest = FIELD / f"{name}.json"
    captured = capture(folder, manifest)
    if captured.code != 0:
        return [f"stack capture ended with {captured.code}: {captured.stderr.strip()}"]
    without = Run(["check", "--stage", "image", "--python", folder, "--stack", "none"])
    if without.code != 0:
        said = "; ".join(f"{f['code']}: {f['message']}" for f in without.failures())
        wrong.append(f"--stack none ended with {without.code}: {said}")
    served = ENVIRONMENTS[name][1].split()
    for capability in GPUS:
        run = Run(["check", "--smoke", "off", "--python", folder, "--stack", manifest], gpu=capability)
        expected = 0 if capability in served else 83
        if run.code != expected:
            said = "; ".join(f["message"] for f in run.failures())
            wrong.append(f"compute capability {capability}: exit code {run.code} in place of {expected}: {said}")
        elif expected == 83 and not any(f["code"] == "arch-unsupported" and f["subject"] for f in run.failures()):
            wrong.append(f"compute capability {capability}: 83, and no package is named")
    return wrong


def pip(folder, *arguments):
    subprocess.run([folder / "bin/python", "-m", "pip", "--quiet", *arguments], check=True)


# name: environment, what breaks it, the codes of which one must fail, and words of its finding. The hint's commands must
# end in a pass.
FAULTS = {
    "torchvision-of-another-torch": (
        "torch-2.5", lambda e: pip(e, "install", "--no-deps", "torchvision==0.21.0"),
        {"requires-dist", "package-torch-tag"}, ["torchvision", "torch"],
    ),
    "xformers-of-another-torch": (
        "torch-2.5", lambda e: pip(e, "install", "--no-deps", "xformers==0.0.29.post3"),
        {"requires-dist", "package-torch-tag"}, ["xformers", "torch"],
    ),
    "another-nccl": (
        "torch-2.5", lambda e: pip(e, "install", "--no-deps", "nvidia-nccl-cu12==2.26.2"),
        {"requires-dist", "package-version"}, ["nvidia-nccl-cu12"],
    ),
    "numpy-2-under-torch-2.2": (
        "torch-2.5", lambda e: pip(e, "install", "--no-deps", "torch==2.2.2", "numpy==2.2.6"),
        {"numpy-abi", "requires-dist", "package-version"}, [],
    ),
    "onnxruntime-without-cuda": (
        "onnxruntime", lambda e: pip(e, "uninstall", "--yes", "nvidia-cudnn-cu13", "nvidia-cublas"),
        {"library-missing", "requires-dist", "package-missing"}, [],
    ),
}


def fault(name):
    base, change, codes, words = FAULTS[name]
    manifest = FIELD / f"{base}.json"
    capture(environment(base), manifest)
    folder = FIELD / "environments" / f"fault-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["cp", "--archive", "--link", environment(base), folder], check=True)
    try:
        change(folder)
        check = ["check", "--stage", "image", "--python", folder, "--stack", manifest]
        run = Run(check)
        found = [f for f in run.failures() if f["code"] in codes]
        if run.code != 81 or not found:
            said = "; ".join(f"{f['code']}: {f['message']}" for f in run.failures())
            return [f"exit code {run.code} in place of 81 with one of {', '.join(sorted(codes))}: {said}"]
        wrong = [f"no {word!r} in: {found[0]['message']}" for word in words if word not in found[0]["message"]]
        for command in remedies(run.failures()):
            pip(folder, *command)
        after = Run(check)
        if after.code != 0:
            said = "; ".join(f"{f['code']}: {f['message']}" for f in after.failures())
            hints = "; ".join(f["hint"] for f in run.failures())
            wrong.append(f"after the remedy it ends with {after.code}: {said}; the hints were: {hints}")
        return wrong
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remedies(findings):
    """The pip commands of hints, each once."""
    commands = []
    for finding in findings:
        for text in re.findall(r"\bpip ((?:install|uninstall) [^;`]*)", finding["hint"]):
            text = re.split(r"\. |, |\.$| \(|: ", text)[0]
            if " with " in text:
                continue  # words in place of arguments, which nothing can follow to the letter
            command = shlex.split(text)
            if command[0] == "uninstall" and "-y" not in command and "--yes" not in command:
                command.insert(1, "--yes")
            if command not in commands:
                commands.append(command)
    return commands


def main():
    names = sys.argv[1:]
    tests = {name: healthy for name in ENVIRONMENTS} | {name: fault for name in FAULTS}
    tests |= {f"example-{name}": lambda name: example(name.removeprefix("example-")) for name in SERVED}
    if names == ["--list"]:
        print("\n".join(tests))
        return
    failed = 0
    for name in names or tests:
        if name not in tests:
            sys.exit(f"run.py: there is no environment, fault or example {name}; run.py --list names them")
        try:
            wrong = tests[name](name)
        except subprocess.CalledProcessError as error:
            wrong = [f"{shlex.join(map(str, error.cmd))} ended with {error.returncode}"]
        print(f"{name}: {'passed' if not wrong else 'FAILED'}", flush=True)
        for line in wrong:
            print(f"    {line}", flush=True)
        failed += bool(wrong)
    if failed:
        sys.exit(f"{failed} failed")


if __name__ == "__main__":
    main()
