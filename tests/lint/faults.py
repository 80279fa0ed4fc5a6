#!/usr/bin/env python3
"""Holds tests/faults.md against the tests: every row names one that is there and that `make test` runs.

A row of a table names its tests as `PATH::NAME`. Rows of the section on what cannot be survived need none.
"""

import pathlib
import re
import subprocess
import sys

PAGE = "tests/faults.md"
EXEMPT = "What cannot be survived"
REFERENCE = re.compile(r"`([A-Za-z0-9_./-]+\.rs)::([a-z0-9_]+)`")
# What may stand between an attribute and its function: other attributes and comments.
TEST = re.compile(r"#\[test\]\n(?P<between>(?:[ \t]*(?:#\[[^\n]*\]|//[^\n]*)\n)*)[ \t]*fn (?P<name>\w+)\(")
IGNORED = re.compile(r"#\[ignore\b")


def tests_of(source):
    """Names of a file's tests; True for those that cargo leaves out unless it is told to run them."""
    text = source.replace("\r\n", "\n")
    found = {}
    for match in TEST.finditer(text):
        before = text[: match.start()].splitlines()
        around = match.group("between")
        # `#[ignore]` may stand before `#[test]` as well.
        while before and before[-1].strip().startswith(("#[", "//")):
            around += before.pop() + "\n"
        found[match.group("name")] = bool(IGNORED.search(around))
    return found


def rows_of(page):
    """Yields (line number, section, cells) for each row of a table but for its head."""
    section, previous, in_table = "", "", False
    for number, line in enumerate(page.splitlines(), 1):
        if line.startswith("#"):
            section = line.lstrip("#").strip()
        if re.fullmatch(r"\|[ :|-]+\|", line):
            in_table = previous.startswith("|")
        elif not line.startswith("|"):
            in_table = False
        elif in_table:
            yield number, section, [cell.strip() for cell in line.strip().strip("|").split("|")]
        previous = line


def problems_of(page, read, is_run, runs_ignored):
    """Sentences on the page; `read` gives a file's text or None, `is_run` whether a test program holds it."""
    problems = []
    known = {}
    rows = 0
    for number, section, cells in rows_of(page):
        rows += 1
        references = REFERENCE.findall(" ".join(cells))
        if not references and section != EXEMPT:
            problems.append((number, "names no test"))
        if any(not cell for cell in cells):
            problems.append((number, "has an empty cell"))
        for path, name in references:
            if path not in known:
                text = read(path)
                known[path] = None if text is None else tests_of(text)
            if known[path] is None:
                problems.append((number, f"{path} does not exist"))
            elif name not in known[path]:
                problems.append((number, f"{path} has no test {name}"))
            elif not is_run(path):
                problems.append((number, f"{path} is in no test program of `make test`"))
            elif known[path][name] and not runs_ignored:
                problems.append((number, f"{path}::{name} is ignored, and nothing runs it"))
    if not rows:
        problems.append((1, "has no table"))
    return problems


def counts_of(page):
    """(section, rows, distinct tests) of each section, then of the whole page."""
    rows, tests, everything = {}, {}, set()
    for _, section, cells in rows_of(page):
        named = set(REFERENCE.findall(" ".join(cells)))
        rows[section] = rows.get(section, 0) + 1
        tests.setdefault(section, set()).update(named)
        everything |= named
    return [(s, rows[s], len(tests[s])) for s in rows] + [("together", sum(rows.values()), len(everything))]


def self_test():
    """The judge must know right from wrong before it judges."""
    source = (
        '#[test]\nfn plain() {}\n#[test]\n#[ignore = "slow"]\nfn left_out() {}\n'
        "// why\n#[ignore]\n#[test]\n// more\nfn left_out_too() {}\nfn helper() {}\n"
        "mod tests {\n    #[test]\n    fn inner() {}\n}\n"
    )
    assert tests_of(source) == {"plain": False, "left_out": True, "left_out_too": True, "inner": False}

    def judged(body, runs_ignored=True, heading="1. Signals"):
        page = f"# Faults\n\n## {heading}\n\n| fault | what happens | test |\n| --- | --- | --- |\n{body}\n"
        read = {"tests/a.rs": source, "tests/b.rs": source}.get
        return [said for _, said in problems_of(page, read, lambda path: path == "tests/a.rs", runs_ignored)]

    assert judged("| a | b | `tests/a.rs::plain`, `tests/a.rs::inner` |") == []
    assert judged("| a | b | `tests/a.rs::left_out` |") == []
    assert judged("| a | b | c |", heading=EXEMPT) == []
    for wrong, said in [
        ("| a | b | c |", "names no test"),
        ("| a | b | `tests/c.rs::plain` |", "does not exist"),
        ("| a | b | `tests/a.rs::helper` |", "has no test"),
        ("| a | b | `tests/a.rs::plai` |", "has no test"),
        ("| a | b | `tests/b.rs::plain` |", "no test program"),
        ("| a | | `tests/a.rs::plain` |", "empty cell"),
        ("", "has no table"),
    ]:
        found = judged(wrong)
        assert len(found) == 1 and said in found[0], (wrong, found)
    assert judged("| a | b | `tests/a.rs::left_out` |", runs_ignored=False)
    counted = "## A\n\n| f | t |\n| - | - |\n| x | `tests/a.rs::plain` |\n| y | `tests/a.rs::plain` |\n"
    assert counts_of(counted) == [("A", 2, 1), ("together", 2, 1)]
    assert judged("| a | b | `tests/c.rs::plain` |", heading=EXEMPT)


def main():
    self_test()
    root = pathlib.Path(__file__).resolve().parents[2]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, stdout=subprocess.PIPE).stdout
    tracked = set(filter(None, listed.decode().split("\0")))

    def read(path):
        return (root / path).read_text() if path in tracked else None

    # The files that tests/main.rs names, and those that they name.
    run, waiting = set(), ["tests/main.rs"]
    while waiting:
        path = waiting.pop()
        run.add(path)
        stem = pathlib.PurePosixPath(path)
        folder = stem.parent if stem.name in ("main.rs", "mod.rs") else stem.with_suffix("")
        for name in re.findall(r"^(?:pub )?mod (\w+);", read(path), re.M):
            waiting += [p for p in (f"{folder}/{name}.rs", f"{folder}/{name}/mod.rs") if p in tracked]

    def is_run(path):
        # The helper has no tests of its own, and cargo is told so.
        return path in run or (path.startswith("src/") and not path.startswith("src/bin/"))

    runs_ignored = "-- --ignored" in read("tests/test.sh")
    page = read(PAGE)
    if page is None:
        sys.exit(f"{PAGE} does not exist, or git does not know it")
    problems = problems_of(page, read, is_run, runs_ignored)
    for number, said in problems:
        print(f"{PAGE}:{number}: {said}", file=sys.stderr)
    if sys.argv[1:] == ["--count"]:
        for section, faults, tests in counts_of(page):
            print(f"{section}: {faults} faults, {tests} tests")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
