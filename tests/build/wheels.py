#!/usr/bin/env python3
"""Fetches the wheels of requirement lists, each once, and prints the folder that holds them.

usage: wheels.py [--python X.Y] [--machine NAME] [--files] LIST[:NAME,NAME...]...
    LIST      a file of tests/requirements by its name, such as `demo`, and which of its distributions (all)
    --machine the processor that they are for (x86_64)
    --files   prints the wheels' paths, one a line, instead of the folder

The one way by which the demo, the tests, the benchmarks and the full stack get wheels: whatever one of them fetched is
there for the others. A wheel is fetched under its hash, and has its name in the folder only when it is complete.

CUDA_ENTRYPOINT_WHEELS: the folder (wheels below cargo's target folder). One that was filled elsewhere serves a machine
without a network.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What wheels of these releases are tagged with, from glibc 2.28 downwards.
PLATFORMS = ["manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1"]


def folder():
    named = os.environ.get("CUDA_ENTRYPOINT_WHEELS")
    return pathlib.Path(named or ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "wheels").absolute()


def normal(name):
    """PEP 503, as wheels' file names have it."""
    return re.sub(r"[-_.]+", "_", name).lower()


def requirements(argument):
    """(distribution, version, the line for pip) of each line that LIST or LIST:NAME,NAME asks for."""
    name, _, chosen = argument.partition(":")
    wanted = {normal(each) for each in chosen.split(",") if each}
    try:
        lines = (ROOT / "tests/requirements" / (name + ".txt")).read_text().splitlines()
    except OSError as error:
        sys.exit("wheels.py: no list {}: {}".format(name, error))
    for line in lines:
        match = re.match(r"([A-Za-z0-9._-]+)==(\S+) --hash=", line)
        if match and (not wanted or normal(match.group(1)) in wanted):
            yield match.group(1), match.group(2), line


def present(wheels, name, version, python):
    """The wheel of this release for this Python in the folder, or None."""
    tag = re.compile(r"(py[23](\.py3)?-|cp{0}-|cp3\d+-abi3-)".format(python.replace(".", "")))
    for wheel in wheels.glob("*.whl"):
        parts = wheel.name.split("-", 2)
        if len(parts) == 3 and (normal(parts[0]), parts[1]) == (normal(name), version) and tag.match(parts[2]):
            return wheel
    return None


def fetch(wheels, lines, python, machine):
    """Fetches with one run of pip into a folder beside, and moves what came."""
    with tempfile.TemporaryDirectory(dir=wheels, prefix=".partial-") as partial:
        listed = pathlib.Path(partial, "requirements.txt")
        listed.write_text("\n".join(lines) + "\n")
        command = [ROOT / "tests/build/pip.sh", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--implementation", "cp", "--python-version", python]
        for platform in PLATFORMS:
            command += ["--platform", platform + "_" + machine]
        command += ["--dest", partial, "--requirement", listed]
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode != 0:
            names = " ".join(line.split(" ", 1)[0] for line in lines)
            sys.exit(
                "wheels.py: pip cannot fetch {} for Python {}; its own words are above. Is PyPI within reach (pip takes "
                "a mirror from PIP_INDEX_URL)? Without a network, fill a folder with `tests/build/wheels.py` elsewhere "
                "and name it in CUDA_ENTRYPOINT_WHEELS.".format(names, python)
            )
        for wheel in pathlib.Path(partial).glob("*.whl"):
            wheel.rename(wheels / wheel.name)


def main(arguments):
    python, machine, files = "3.11", "x86_64", False
    while arguments and arguments[0].startswith("-"):
        option, arguments = arguments[0], arguments[1:]
        if option == "--files":
            files = True
        elif option == "--python" and arguments:
            python, arguments = arguments[0], arguments[1:]
        elif option == "--machine" and arguments:
            machine, arguments = arguments[0], arguments[1:]
        else:
            sys.exit(__doc__.strip())
    if not arguments:
        sys.exit(__doc__.strip())
    # Whoever looks for a wheel by its name and release alone finds this machine's.
    wheels = folder() / ("" if machine == "x86_64" else machine)
    wheels.mkdir(parents=True, exist_ok=True)
    asked = [each for argument in arguments for each in requirements(argument)]
    missing = [each for each in asked if present(wheels, each[0], each[1], python) is None]
    if missing:
        print("fetching {} into {}".format(", ".join("==".join(each[:2]) for each in missing), wheels), file=sys.stderr)
    # pip takes one release of a distribution at a time.
    while missing:
        turn, later = {}, []
        for each in missing:
            if each[0] in turn:
                later.append(each)
            else:
                turn[each[0]] = each
        fetch(wheels, [line for _, _, line in turn.values()], python, machine)
        missing = later
    if files:
        print("\n".join(str(present(wheels, each[0], each[1], python)) for each in asked))
    else:
        print(wheels)


main(sys.argv[1:])
