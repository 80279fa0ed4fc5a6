#!/usr/bin/env python3
"""Judges what Cargo.lock brings into the two binaries and their tests, and what the lock of the fuzz targets does.

Fails on a license that is not allowed, on a crate that comes from elsewhere than crates.io, and on two versions of one
crate. Reads `cargo metadata` alone, so it needs no network and no database.
"""

import json
import re
import subprocess
import sys

# Permissive licenses whose only duty is the notice. An expression must be satisfiable with these.
ALLOWED = {
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
}

# What never ships may have licenses of its own.
FUZZ_ALLOWED = ALLOWED | {"NCSA"}  # libFuzzer, as a part of LLVM

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"

# Two versions of one crate in what ships cost size: each one here says why it must be.
DUPLICATES_ALLOWED = {
    "getrandom": "tests alone: tempfile and boon's ahash want different ones",
}


def satisfied(expression, allowed=frozenset(ALLOWED)):
    """Whether an SPDX expression can be satisfied with allowed licenses; AND binds tighter than OR.

    `A/B` is the old way to write `A OR B`. `X WITH exception` grants more than X, so X decides.
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        if position == len(tokens):
            raise ValueError(f"license expression ends early: {expression!r}")
        position += 1
        return tokens[position - 1]

    def alternatives():
        holds = terms()
        while peek() == "OR":
            take()
            # Both sides must be read, whatever the first one says.
            holds = terms() or holds
        return holds

    def terms():
        holds = single()
        while peek() == "AND":
            take()
            holds = single() and holds
        return holds

    def single():
        token = take()
        if token == "(":
            holds = alternatives()
            if take() != ")":
                raise ValueError(f"license expression lacks a parenthesis: {expression!r}")
            return holds
        if token in ("AND", "OR", "WITH", ")"):
            raise ValueError(f"license expression makes no sense: {expression!r}")
        if peek() == "WITH":
            take()
            take()
        return token in allowed

    holds = alternatives()
    if peek() is not None:
        raise ValueError(f"license expression goes on after its end: {expression!r}")
    return holds


def judge(packages, allowed=frozenset(ALLOWED)):
    """Problems of the packages of one `cargo metadata`, as sentences."""
    problems = []
    versions = {}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        versions.setdefault(package["name"], []).append(package["version"])
        if package["source"] not in (None, CRATES_IO):
            problems.append(f"{name} comes from {package['source']}, not from crates.io")
        if not package["license"]:
            problems.append(f"{name} states no license")
            continue
        try:
            if not satisfied(package["license"], allowed):
                problems.append(f"{name} is licensed {package['license']}, which the allowed ones do not satisfy")
        except ValueError as error:
            problems.append(f"{name}: {error}")
    for name, found in sorted(versions.items()):
        if len(found) > 1 and name not in DUPLICATES_ALLOWED:
            problems.append(f"{name} is there in {len(found)} versions: {', '.join(sorted(found))}")
    return problems


def self_test():
    """The judge must know right from wrong before it judges."""
    for expression, expected in [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT/Apache-2.0", True),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", True),
        ("(MIT OR Apache-2.0) AND CC-BY-4.0", False),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", True),
        ("GPL-2.0-only OR GPL-3.0-only AND MIT", False),
    ]:
        assert satisfied(expression) is expected, expression
    for broken in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "AND MIT"]:
        try:
            satisfied(broken)
        except ValueError:
            continue
        raise AssertionError(broken)
    assert not satisfied("(MIT OR Apache-2.0) AND NCSA")
    assert satisfied("(MIT OR Apache-2.0) AND NCSA", FUZZ_ALLOWED)
    alien = {"name": "a", "version": "1.0.0", "source": "git+https://example.invalid/a", "license": "MIT"}
    assert len(judge([alien, {**alien, "version": "2.0.0", "license": None}])) == 4


def packages_of(*arguments):
    """The packages that one lock brings in here."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    command += ["--filter-platform", "x86_64-unknown-linux-gnu", *arguments]
    answer = subprocess.run(command, stdout=subprocess.PIPE)
    if answer.returncode:
        sys.exit("cargo metadata failed; its message is above")
    metadata = json.loads(answer.stdout)
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    return [package for package in metadata["packages"] if package["id"] in used]


def main():
    self_test()
    problems = judge(packages_of())
    problems += judge(packages_of("--manifest-path", "tests/fuzz/Cargo.toml"), FUZZ_ALLOWED)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
