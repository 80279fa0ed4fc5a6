#!/usr/bin/env python3
"""tests/release/crates.md against what is linked: every crate with its reason, and no other; and what Rust each one asks for.

usage: crates.py [--write [PROGRAM]]
    --write    writes the table anew: the dates are those of the registry's index as cargo keeps it, and the sizes those of
               PROGRAM, a release build that was not stripped; without it they stay as they are
"""

import collections
import glob
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/release"))
import crates as listing  # noqa: E402

TABLE = ROOT / "tests/release/crates.md"
HEAD = """# The crates that are linked

Written by `tests/lint/crates.py --write`, which `make lint` compares with Cargo.lock. Macros and what only builds or tests are
not in a binary, and are not here. The reason of a crate that the project names is that of Cargo.toml; the others come with one.
Bytes are those of its functions in the x86-64 binary that have its name after optimisation; generic code counts for the crate
that defines it, and what was inlined elsewhere for that one.

| crate | version | why it is there | bytes | its newest release |
| --- | --- | --- | --- | --- |
"""


def reasons():
    """{crate: the comment above its line} of Cargo.toml's dependencies; one comment can stand above several."""
    found, comment, ended = {}, [], True
    section = (ROOT / "Cargo.toml").read_text().split("\n[dependencies]\n")[1].split("\n[")[0]
    for line in section.splitlines():
        if line.startswith("#"):
            comment = [line.lstrip("# ")] if ended else comment + [line.lstrip("# ")]
        elif line:
            found[line.split(" ")[0]] = " ".join(comment)
        ended = not line.startswith("#")
    return found


def newest(name):
    """The day of a crate's newest release, from the registry's index in cargo's home; "" where that does not tell."""
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    short = {1: "1", 2: "2", 3: "3/" + name[:1]}.get(len(name), name[:2] + "/" + name[2:4])
    days = [""]
    for path in glob.glob(home + "/registry/index/*/.cache/" + short + "/" + name):
        for part in pathlib.Path(path).read_bytes().split(b"\0"):
            try:
                entry = json.loads(part)
            except ValueError:
                continue
            if not entry.get("yanked") and "-" not in entry.get("vers", "-"):
                days.append(entry.get("pubtime", "")[:10])
    return max(days)


def sizes(program):
    """{crate: bytes of its functions}, by the names that the linker kept."""
    output = subprocess.run(["nm", "--print-size", "--size-sort", program], stdout=subprocess.PIPE, check=True).stdout
    found = collections.Counter()
    for line in output.decode().splitlines():
        fields = line.split()
        # _ZN, or for an implementation _ZN and the length of `_<…`; v0: C, s and a hash, the length, the name.
        match = re.match(r"_ZN(?:\d+_\$LT\$)?(?:\$RF\$)?(\d*)([a-z][a-z0-9_]*)", fields[3]) or re.search(r"Cs\w+?_(\d+)(\w+)", fields[3])
        if match:
            length = int(match.group(1) or 0) or len(match.group(2))
            found[match.group(2)[:length]] += int(fields[1], 16)
    return found


def rows():
    """{crate: (version, why)}"""
    crates, own = listing.linked()
    direct, users = reasons(), collections.defaultdict(set)
    for crate in crates.values():
        for name, _ in crate.links:
            users[name].add(crate.name)
    own = {name for name, _ in own}
    table = {}
    for (name, version), _ in sorted(crates.items()):
        why = direct.get(name, "") if name in own else "of " + ", ".join(sorted(users[name]))
        table[name] = (version, why)
    return table


def written():
    """{crate: its fields} of the table as it is."""
    found = {}
    for line in TABLE.read_text().splitlines() if TABLE.exists() else []:
        fields = [field.strip() for field in line.strip("|").split(" | ")]
        if line.startswith("| ") and fields[0] not in ("crate", "---"):
            found[fields[0]] = fields
    return found


def too_new():
    """Crates that need a newer Rust than Cargo.toml states, which would make that statement false."""
    number = lambda text: tuple(int(part) for part in text.split(".")[:2])  # noqa: E731
    minimum = re.search(r'^rust-version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", listing.TRIPLES[0]]
    packages = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)["packages"]
    for package in packages:
        if package["rust_version"] and number(package["rust_version"]) > number(minimum):
            yield "{name} {version} needs Rust {rust_version}".format(**package) + ", and Cargo.toml states " + minimum


def main(arguments):
    table, old = rows(), written()
    if arguments[:1] == ["--write"]:
        measured = sizes(arguments[1]) if len(arguments) > 1 else None
        text = HEAD
        for name, (version, why) in table.items():
            kept = old.get(name, ["", "", "", "", ""])
            size = kept[3] if measured is None else str(measured[name.replace("-", "_")])
            text += "| {} | {} | {} | {} | {} |\n".format(name, version, why, size, newest(name) or kept[4])
        TABLE.write_text(text)
        return
    wrong = list(too_new())
    for name in sorted(set(table) | set(old)):
        if name not in table:
            wrong.append(name + " is in crates.md and not linked")
        elif name not in old:
            wrong.append(name + " is linked and not in crates.md")
        elif tuple(old[name][1:3]) != table[name]:
            wrong.append("{} is {} in crates.md, and is {}".format(name, old[name][1:3], list(table[name])))
        elif not table[name][1]:
            wrong.append(name + " has no reason in Cargo.toml")
    for each in wrong:
        print("crates.py: " + each, file=sys.stderr)
    if wrong:
        sys.exit("crates.py: run: tests/lint/crates.py --write")


main(sys.argv[1:])
