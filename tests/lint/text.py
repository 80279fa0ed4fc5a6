#!/usr/bin/env python3
"""Looks through every tracked text for what no editor shows.

Control characters and characters that reorder text can make a reviewer read something else than the compiler does;
trailing blanks and a missing last newline make noise in every later change. Fixtures are exempt: they are what some
machine or attacker wrote, byte for byte.
"""

import re
import subprocess
import sys

# Folders whose files are kept as they came.
EXEMPT_FOLDERS = {"fixtures", "found", "invalid", "snapshots"}
# Files that are not text.
BINARY_SUFFIXES = (".bin", ".cubin", ".fatbin", ".so", ".whl", ".zip", ".gz")

CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, delete, C1
    r"\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"  # invisible, or changes the direction of reading
)


def problems_of(data):
    """Yields (line number, sentence) for the bytes of one file."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield line, "is not UTF-8"
        return
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        found = CONTROL.search(line)
        if found:
            yield number, f"holds the control character U+{ord(found.group()):04X}"
        if line != line.rstrip(" \t"):
            yield number, "ends in a blank"
    if text and lines[-1]:
        yield len(lines), "does not end in a newline"
    elif len(lines) > 2 and not lines[-2]:
        yield len(lines) - 1, "is an empty line at the end of the file"


def self_test():
    """The check must find each of these before its silence means anything."""
    for bad in [b"a\x1b[31m\n", b"a \n", b"a\t\n", b"a", b"\xff\n", b"a\r\n", "a\u202eb\n".encode(), b"a\n\n"]:
        assert list(problems_of(bad)), bad
    for good in [b"", b"a\n", b"\tindented\n\nb\n", "caf\u00e9\n".encode()]:
        assert not list(problems_of(good)), good


def main():
    self_test()
    listed = subprocess.run(["git", "ls-files", "-z", "--stage"], check=True, stdout=subprocess.PIPE).stdout
    failed = False
    for entry in filter(None, listed.decode(errors="surrogateescape").split("\0")):
        mode, path = entry.split(" ", 1)[0], entry.split("\t", 1)[1]
        if not mode.startswith("100") or path.endswith(BINARY_SUFFIXES):
            continue  # links and submodules have no text of their own
        if EXEMPT_FOLDERS.intersection(path.split("/")[:-1]):
            continue
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            continue  # removed in the working tree
        for line, sentence in problems_of(data):
            failed = True
            print(f"{path}:{line}: {sentence}", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
