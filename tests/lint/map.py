#!/usr/bin/env python3
"""map.py [--write]: draws which modules of src use which, as the picture in ARCHITECTURE.md.

Without an argument it fails where the picture is not the code's, or where two modules use each other, directly or by way of
others: the tree has one direction. With --write it puts the picture into the file.

A module is a name directly below src (src/check.rs and src/check/ are one); the program's own modules (main.rs and
commands) are `commands`. Tests do not count. An arrow that follows from two others is left out of the picture.
"""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path("ARCHITECTURE.md")
BEGIN, END = "<!-- map: begin (make map) -->\n", "<!-- map: end -->\n"
PROGRAM = {"main", "commands"}
NOT_ROOMS = {"lib", "build", "bin"}
COMMENT_OR_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|b?"(?:\\.|[^"\\])*"|r#".*?"#', re.DOTALL)
# `crate::name`, `cuda_entrypoint::name`, and the first names of a group: `crate::{a::B, c}`.
USE = re.compile(r"\b(?:crate|cuda_entrypoint)::(\w+|\{)")


def code_of(text):
    """The text without comments, strings and what only tests have."""
    text = COMMENT_OR_TEXT.sub("", text)
    while found := re.search(r"#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))?\s+)?(?:mod|fn|impl|use)\b[^{;]*([{;])", text):
        end = found.end()
        if found[1] == "{":
            end = closing(text, end)
        text = text[: found.start()] + text[end:]
    return text


def closing(text, start):
    """The position behind the brace that closes the one before `start`."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position + 1
    raise ValueError("a brace is not closed")


def first_names(text, start):
    """The first names of the entries of a use group that begins at `start`."""
    group, depth, entry = text[start : closing(text, start) - 1], 0, ""
    for letter in group + ",":
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            if name := re.match(r"\s*(\w+)", entry):
                yield name[1]
            entry = ""
        else:
            entry += letter


def used_by(text):
    """The names directly below the crate that a file's code uses."""
    code = code_of(text)
    for found in USE.finditer(code):
        if found[1] == "{":
            yield from first_names(code, found.end())
        else:
            yield found[1]


def room_of(path):
    """The module a file belongs to, or None where the map does not show it."""
    parts = Path(path).with_suffix("").parts[1:]
    if parts[0] in NOT_ROOMS or parts[-1] in ("tests", "testing", "fixtures") or "tests" in parts:
        return None
    return "commands" if parts[0] in PROGRAM else parts[0]


def arrows():
    """For each module, those it uses."""
    files = subprocess.run(["git", "ls-files", "-z", "src/*.rs"], stdout=subprocess.PIPE, check=True).stdout
    rooms = {}
    for path in filter(None, files.decode().split("\0")):
        if room := room_of(path):
            rooms.setdefault(room, set()).update(used_by(Path(path).read_text(encoding="utf-8")))
    return {room: {used for used in uses if used in rooms and used != room} for room, uses in sorted(rooms.items())}


def floors(uses):
    """Each module's floor, 0 for those that use no other. Fails where they use each other."""
    found = {}

    def floor(room, way):
        if room in way:
            circle = [*way[way.index(room) :], room]
            sys.exit("modules of src use each other: " + " -> ".join(circle))
        if room not in found:
            found[room] = 1 + max((floor(used, [*way, room]) for used in sorted(uses[room])), default=-1)
        return found[room]

    for room in uses:
        floor(room, [])
    return found


def reachable(uses, room):
    """All that a module uses, directly or not."""
    seen, queue = set(), [room]
    while queue:
        for used in uses[queue.pop()] - seen:
            seen.add(used)
            queue.append(used)
    return seen


def picture():
    """The map as Mermaid's flow chart, with the count of modules, arrows and floors above it."""
    uses = arrows()
    level = floors(uses)
    direct = {
        room: {used for used in found if not any(used in reachable(uses, other) for other in found - {used})}
        for room, found in uses.items()
    }
    count = sum(map(len, uses.values()))
    lines = [f"{len(uses)} modules on {max(level.values()) + 1} floors, {count} uses, none upwards.", "", "```mermaid"]
    lines.append("flowchart TD")
    for floor in sorted(set(level.values()), reverse=True):
        rooms = " & ".join(room for room in uses if level[room] == floor)
        lines.append(f"  subgraph floor{floor} [{floor}]")
        lines.extend(f"    {room}" for room in rooms.split(" & "))
        lines.append("  end")
    for room in sorted(uses, key=lambda room: (-level[room], room)):
        if direct[room]:
            lines.append(f"  {room} --> {' & '.join(sorted(direct[room]))}")
    lines.append("```")
    return "\n".join(lines) + "\n"


def main():
    text = PAGE.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{PAGE}: no place for the map between `{BEGIN.strip()}` and `{END.strip()}`")
    drawn = f"{before}{BEGIN}\n{picture()}\n{END}{after}"
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(drawn, encoding="utf-8")
    elif drawn != text:
        sys.exit(f"{PAGE}: the map is not the code's; run `make map`")


main()
