#!/usr/bin/env python3
"""Builds the Dockerfiles of docker/examples as they are, and starts the images behind fake GPUs.

usage: images.py [NAME...]   all of them without a name, but for detectron2, which compiles for hours
       images.py --bases     makes the base images that are not there, and leaves them for later runs
       images.py --remove    removes them

Needs Docker, root and debootstrap, Debian's mirror and PyPI, dist/cuda-entrypoint; up to 40 GB while it runs; no GPU. Each
image is removed before the next is built.

An image that a Dockerfile names and Docker has is used as it is. For the others there is a stand-in: `python:3.11-slim` and the
images of nvidia/cuda from Debian 12 and the CUDA 12.4 of Debian 13, `cuda-entrypoint` from dist/cuda-entrypoint.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from run import DRIVER, ENTRYPOINT, EXAMPLES, FAKES, GPUS, ROOT, SERVED, TARGET

KEPT = TARGET / "images"
LABEL = "cuda-entrypoint-examples"
MIRROR = "http://deb.debian.org/debian"

# What the manifests list; the others are in run.py.
SERVES = SERVED | {"cpp": "8.6 8.9 9.0"}
# What the image stage warns of: torch-c-dlpack-ext has no build for the torch of this vLLM.
WARNED = {"vllm": {"undefined-symbol"}}
# The exit code where a driver is missing, if it is not 82.
WITHOUT_DRIVER = {"cpu-or-gpu": 0}

# Debian's packages of CUDA 12.4, unpacked and not installed: they would bring a newer libc.
CUDA = ["nvidia-cuda-toolkit", "nvidia-cuda-dev", "libnvvm4", "libcudart12"]
# Libraries for static linking, but for those that nvcc itself links: two of the three gigabytes.
SURPLUS = ["./usr/share", "./usr/lib/nvidia-cuda-toolkit/compute-sanitizer", "*libcu[bfrs]*_static*.a", "*libnv*_static*.a",
           "*libnpp*_static*.a", "*libcusolver_lapack*"]
CUDA_FOLDER = "usr/local/cuda-12.4/targets/x86_64-linux/lib"

PYTHON = """
FROM {root}
COPY pip.conf bundle.crt /etc/
# Python and pip are in /usr/local, and pip installs there without being asked twice.
RUN python3 -m venv /usr/local && ln -sf python3 /usr/local/bin/python
"""


def docker(*arguments, **options):
    # The classic builder: Debian 12 has no other.
    env = os.environ | {"DOCKER_BUILDKIT": "0"}
    return subprocess.run(["docker", *map(str, arguments)], env=env, stdin=subprocess.DEVNULL, **options)


def has(image):
    return docker("image", "inspect", image, capture_output=True).returncode == 0


def said(*arguments):
    return docker(*arguments, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def is_stand_in(image):
    label = said("image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', image)
    return label == "1"


def imported(archive, name, *changes):
    options = [f"--change={change}" for change in (f"LABEL {LABEL}=1", *changes)]
    docker("import", *options, archive, name, check=True, stdout=subprocess.DEVNULL)


def debian(*packages):
    """A root file system of Debian 12, kept for the next run."""
    archive = KEPT / f"bookworm+{'+'.join(packages)}.tar"
    if not archive.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        subprocess.run([ROOT / "tests/support/debootstrap.sh", "bookworm", ",".join(packages), archive], check=True)
    return archive


def built(name, dockerfile, files):
    with tempfile.TemporaryDirectory() as context:
        pathlib.Path(context, "Dockerfile").write_text(dockerfile)
        for file, content in files.items():
            if isinstance(content, bytes):
                pathlib.Path(context, file).write_bytes(content)
            else:
                shutil.copy(content, pathlib.Path(context, file))
        build = docker("build", "--force-rm", "--tag", name, context, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if build.returncode:
            sys.exit(f"images.py: the stand-in of {name} was not built: {build.stdout}")


def pip_settings():
    """Where this machine's pip looks for packages, and the certificates that it trusts."""
    listed = subprocess.run([ROOT / "tests/build/pip.sh", "config", "list"], stdout=subprocess.PIPE, text=True, check=True)
    settings = dict(re.findall(r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", listed.stdout, re.MULTILINE))
    bundle = pathlib.Path(settings.get("cert", "/etc/ssl/certs/ca-certificates.crt"))
    taken = {key: settings[key] for key in ("index-url", "extra-index-url", "trusted-host", "timeout") if key in settings}
    if bundle.exists():
        taken["cert"] = "/etc/bundle.crt"
    lines = ["[global]"] + [f"{key} = {value}" for key, value in taken.items()]
    return {"pip.conf": "\n".join(lines).encode() + b"\n", "bundle.crt": bundle.read_bytes() if bundle.exists() else b""}


def python():
    imported(debian("ca-certificates", "libpython3-dev", "python3", "python3-venv"), f"{LABEL}-python")
    built("python:3.11-slim", PYTHON.format(root=f"{LABEL}-python"), pip_settings())


def cuda_packages():
    """Debian 13's packages of CUDA 12.4, by an apt that knows nothing of this machine's."""
    folder = KEPT / "cuda-12.4"
    if not all(list(folder.glob(f"{package}_*.deb")) for package in CUDA):
        state = folder / "apt"
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (state / "sources.list").write_text(f"deb [signed-by={keys}] {MIRROR} trixie main contrib non-free\n")
        paths = {"Etc::sourcelist": state / "sources.list", "Etc::sourceparts": "-", "State::lists": state / "lists",
                 "State::status": state / "status", "Cache": state / "cache"}
        options = [f"--option=Dir::{key}={value}" for key, value in paths.items()] + ["--option=APT::Sandbox::User=root"]
        subprocess.run(["apt-get", "--quiet", "--quiet", *options, "update"], check=True)
        subprocess.run(["apt-get", "--quiet", "--quiet", *options, "download", *CUDA], cwd=folder, check=True)
    return [next(folder.glob(f"{package}_*.deb")) for package in CUDA]


def unpacked(package, folder, *options):
    contents = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    subprocess.run(["tar", "--extract", "--directory", folder, *options], stdin=contents.stdout, check=True)
    if contents.wait():
        raise subprocess.CalledProcessError(contents.returncode, contents.args)


def cuda_devel():
    imported(debian("build-essential"), f"{LABEL}-compiler")
    with tempfile.TemporaryDirectory(dir=KEPT) as work:
        tree = pathlib.Path(work, "tree")
        tree.mkdir()
        for package in cuda_packages():
            unpacked(package, tree, *(f"--exclude={pattern}" for pattern in SURPLUS))
        # Those of Debian 13's compiler.
        for tool in ("gcc", "g++"):
            link = tree / "usr/lib/nvidia-cuda-toolkit/bin" / tool
            link.unlink()
            link.symlink_to(f"/usr/bin/{tool}")
        archive = pathlib.Path(work, "cuda.tar")
        subprocess.run(["tar", "--create", "--owner=0", "--group=0", "--directory", tree, "--file", archive, "."], check=True)
        shutil.rmtree(tree)
        built("nvidia/cuda:12.4.1-devel-ubuntu22.04", f"FROM {LABEL}-compiler\nADD cuda.tar /\n", {"cuda.tar": archive})


def cuda_base():
    """libcudart and nothing else, in the folders of NVIDIA's image."""
    imported(debian("ca-certificates"), f"{LABEL}-debian")
    with tempfile.TemporaryDirectory() as work:
        tree = pathlib.Path(work)
        unpacked(cuda_packages()[CUDA.index("libcudart12")], tree)
        for folder in (CUDA_FOLDER, "etc/ld.so.conf.d"):
            (tree / folder).mkdir(parents=True)
        for file in sorted((tree / "usr/lib/x86_64-linux-gnu").iterdir()):
            file.rename(tree / CUDA_FOLDER / file.name)
        (tree / "etc/ld.so.conf.d/000_cuda.conf").write_text(f"/{CUDA_FOLDER}\n")
        archive = tree / "cuda.tar"
        subprocess.run(["tar", "--create", "--owner=0", "--group=0", "--directory", tree, "--file", archive, "usr/local", "etc"],
                       check=True)
        dockerfile = f"FROM {LABEL}-debian\nADD cuda.tar /\nRUN ldconfig\n"
        built("nvidia/cuda:12.4.1-base-ubuntu22.04", dockerfile, {"cuda.tar": archive})


def entrypoint():
    with tempfile.TemporaryDirectory() as work:
        archive = pathlib.Path(work, "image.tar")
        subprocess.run(["tar", "--create", "--owner=0", "--group=0", "--directory", ENTRYPOINT.parent, "--file", archive,
                        ENTRYPOINT.name], check=True)
        imported(archive, "cuda-entrypoint", 'ENTRYPOINT ["/cuda-entrypoint"]')


STAND_INS = {
    "python:3.11-slim": python,
    "nvidia/cuda:12.4.1-devel-ubuntu22.04": cuda_devel,
    "nvidia/cuda:12.4.1-base-ubuntu22.04": cuda_base,
    "cuda-entrypoint": entrypoint,
}


def bases(name):
    """The images that a Dockerfile takes from elsewhere."""
    text = (EXAMPLES / name / "Dockerfile").read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
    named = re.findall(r"^FROM (\S+)", text, re.MULTILINE) + re.findall(r"--from=(\S+)", text)
    return [image for image in dict.fromkeys(named) if image not in stages]


class Started:
    """One `docker run` of an example: exit code, output, milliseconds."""

    def __init__(self, image, *command, gpu=None, variables=None, options=()):
        with tempfile.TemporaryDirectory() as scratch:
            variables = dict(variables or {})
            arguments = ["run", "--rm", *options]
            if gpu:
                script = pathlib.Path(scratch, "gpu.json")
                script.write_text(json.dumps(DRIVER | {"devices": [{"name": GPUS[gpu], "cc": gpu}]}))
                variables["FAKE_GPU_SCRIPT"] = "/gpu.json"
                # Where the runtime of NVIDIA mounts the driver.
                mounts = {script: "/gpu.json"} | {
                    FAKES / name: f"/usr/lib/x86_64-linux-gnu/{name}" for name in ("libcuda.so.1", "libnvidia-ml.so.1")
                }
                arguments += [f"--volume={file}:{at}:ro" for file, at in mounts.items()]
            arguments += [f"--env={key}={value}" for key, value in variables.items()]
            run = docker(*arguments, image, *command, capture_output=True, text=True, errors="replace")
        self.code, self.stdout, self.stderr = run.returncode, run.stdout, run.stderr

    def __str__(self):
        return f"exit code {self.code}: {(self.stderr.strip() or self.stdout.strip())[-3000:]}"


def tried(name, image):
    """What is wrong with the image of an example; what is worth knowing is printed."""
    wrong = []
    for _ in range(2):
        check = Started(image, "cuda-entrypoint", "check", "--stage", "image", "--format", "json")
    report = json.loads(check.stdout) if check.stdout else {"findings": [], "timing_ms": {}}
    counted = {}
    for finding in report["findings"]:
        counted[finding["status"]] = counted.get(finding["status"], 0) + 1
        if finding["status"] in ("warn", "fail"):
            print(f"    {finding['status']} {finding['code']} {finding['subject']}: {finding['message']}", flush=True)
    print(f"    check --stage image: {check.code}, {counted}, {report['timing_ms']} ms", flush=True)
    if check.code != 0:
        wrong.append(f"check --stage image: {check}")
    warned = {f["code"] for f in report["findings"] if f["status"] == "warn"}
    if warned != WARNED.get(name, set()):
        wrong.append(f"check --stage image warns of {', '.join(sorted(warned)) or 'nothing'}")
    without = Started(image, "cuda-entrypoint", "check", "--stage", "image", "--stack", "none")
    if without.code != 0:
        wrong.append(f"check --stage image --stack none: {without}")

    served = SERVES[name].split()
    for capability in GPUS:
        run = Started(image, "cuda-entrypoint", "check", "--smoke", "off", gpu=capability)
        expected = 0 if capability in served else 83
        if run.code != expected:
            wrong.append(f"compute capability {capability}, in place of {expected}: {run}")

    service = ["echo", "the service runs"]
    run = Started(image, *service, gpu=served[-1], variables={"CUDA_ENTRYPOINT_SMOKE": "off"})
    if run.code != 0 or run.stdout != "the service runs\n":
        wrong.append(f"a service behind a fake GPU: {run}")
    run = Started(image, *service, variables={"CUDA_ENTRYPOINT_SMOKE": "off"})
    if run.code != WITHOUT_DRIVER.get(name, 82):
        wrong.append(f"without a driver: {run}")
    # Without a GPU the smoke imports the packages of its built-in entries.
    began = time.monotonic()
    run = Started(image, *service, variables={"CUDA_ENTRYPOINT_GPU": "off"})
    if run.code != 0 or not run.stdout.endswith("the service runs\n"):
        wrong.append(f"with the imports of the smoke: {run}")
    else:
        print(f"    the imports of the smoke and a service: {time.monotonic() - began:.1f} s", flush=True)
    # An import that the manifest has as a command, which no GPU is needed for either.
    for entry in json.loads((EXAMPLES / name / "stack.json").read_text())["smoke"]:
        argv = entry["argv"] if isinstance(entry, dict) else []
        if argv[:2] == ["python", "-c"] and re.fullmatch(r"import [\w.]+", argv[2]):
            run = Started(image, *argv[1:], options=["--entrypoint", argv[0]])
            if run.code != 0:
                wrong.append(f"{argv[2]}: {run}")
    # The service of most of them is not there: then Python says so, in the place of the entrypoint.
    run = Started(image, gpu=served[-1], variables={"CUDA_ENTRYPOINT_SMOKE": "off"})
    print(f"    its own command: exit code {run.code}: {((run.stderr or run.stdout).splitlines() or [''])[-1]}", flush=True)
    return wrong


def example(name):
    for image in bases(name):
        if not has(image):
            STAND_INS[image]()
        origin = "a stand-in" if is_stand_in(image) else "was there"
        size = int(said("image", "inspect", "--format", "{{.Size}}", image))
        print(f"    {image}: {origin}, {size / 1e6:.0f} MB", flush=True)
    image = f"{LABEL}-{name}"
    began = time.monotonic()
    build = docker("build", "--force-rm", "--no-cache", "--label", f"{LABEL}=1", "--tag", image, EXAMPLES / name,
                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    took = time.monotonic() - began
    if build.returncode:
        return [f"docker build ended with {build.returncode}: {build.stdout[-6000:]}"]
    size = int(said("image", "inspect", "--format", "{{.Size}}", image))
    print(f"    built in {took:.0f} s, {size / 1e9:.2f} GB", flush=True)
    verdict = re.search(r"^(?:pass|warn): .*stack .*$", build.stdout, re.MULTILINE)
    print(f"    while it was built: {verdict[0] if verdict else 'no verdict'}", flush=True)
    try:
        return tried(name, image)
    finally:
        docker("rmi", "--force", image, stdout=subprocess.DEVNULL)


def remove(images):
    """These stand-ins, and what they and the examples were built from: several rounds, since no image goes before those that are
    based on it."""
    for image in images:
        if has(image) and is_stand_in(image):
            docker("rmi", "--force", image, capture_output=True)
    for selected in ("dangling=true", f"reference={LABEL}-*") * 3:
        found = said("images", "--quiet", "--filter", selected, "--filter", f"label={LABEL}").split()
        if found:
            docker("rmi", "--force", *dict.fromkeys(found), capture_output=True)


def main():
    names = sys.argv[1:]
    if names == ["--bases"]:
        for image, make in STAND_INS.items():
            if not has(image):
                make()
        return
    if names == ["--remove"]:
        remove(STAND_INS)
        return
    for name in names:
        if name not in SERVES:
            sys.exit(f"images.py: there is no example {name}, or it is not built here; there are {', '.join(SERVES)}")
    missing = [image for image in STAND_INS if not has(image)]
    failed = 0
    try:
        for name in names or SERVES:
            print(f"{name}:", flush=True)
            wrong = example(name)
            print(f"{name}: {'passed' if not wrong else 'FAILED'}", flush=True)
            for line in wrong:
                print(f"    {line}", flush=True)
            failed += bool(wrong)
    finally:
        if missing:
            remove(missing)
    if failed:
        sys.exit(f"{failed} failed")


if __name__ == "__main__":
    main()
