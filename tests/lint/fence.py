#!/usr/bin/env python3
"""fence.py [--self-test]: `unsafe` stands in two modules, src/sys.rs and the helper's src/bin/cuda-helper/foreign, and
wherever it is allowed a reason stands beside it.

The compiler refuses it elsewhere (`unsafe_code = "deny"`) unless somebody writes an `allow`, and clippy wants a SAFETY
comment for each block (`undocumented_unsafe_blocks = "deny"`): so this looks at the two settings and at every `allow`.
"""

import re
import subprocess
import sys

FENCED = {"src/sys.rs", "src/bin/cuda-helper/foreign.rs"}
INSIDE = ("src/sys.rs", "src/sys/", "src/bin/cuda-helper/foreign.rs", "src/bin/cuda-helper/foreign/")
SETTINGS = ('unsafe_code = "deny"', 'undocumented_unsafe_blocks = "deny"')
LOOSENED = re.compile(r"#(!?)\[[^\]]*\b(allow|expect|warn)\(([^)]*)\)")
LINTS = ("unsafe_code", "undocumented_unsafe_blocks")
COMMENT_OR_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|b?"(?:\\.|[^"\\])*"|r#"[^\n]*?"#', re.DOTALL)


def code_of(text):
    """The text without comments and strings, with its lines in place."""
    return COMMENT_OR_TEXT.sub(lambda found: "\n" * found.group().count("\n"), text)


def problems(files, cargo):
    """What is wrong in the files, a dict from path to text, and in Cargo.toml."""
    for setting in SETTINGS:
        if not re.search(rf"^{re.escape(setting)}$", cargo, re.MULTILINE):
            yield f"Cargo.toml: no {setting}"
    for missing in sorted(FENCED - set(files)):
        yield f"{missing}: it is not there; name the module in its place here"
    for path, text in sorted(files.items()):
        shipped = path.startswith("src/")
        lines = text.split("\n")
        allowed = False
        for number, line in enumerate(code_of(text).split("\n"), 1):
            where = f"{path}:{number}"
            if shipped and re.search(r"\bunsafe\b(?!_)", line) and not path.startswith(INSIDE):
                yield f"{where}: `unsafe` outside of the two modules"
            for inner, _, names in LOOSENED.findall(line):
                loosened = [lint for lint in LINTS if lint in names]
                if not loosened:
                    continue
                if "undocumented_unsafe_blocks" in loosened:
                    yield f"{where}: every unsafe block says why it is sound"
                    continue
                if shipped and not (path in FENCED and inner):
                    yield f"{where}: `unsafe_code` is allowed outside of the two modules"
                allowed = True
                above = lines[number - 2].strip() if number > 1 else ""
                if "//" not in lines[number - 1] and not re.match(r"//(?![/!])", above):
                    yield f"{where}: `unsafe_code` is allowed without a reason beside it"
        if path in FENCED and not allowed:
            yield f"{path}: it allows no `unsafe`: is it still one of the two modules?"


def self_test():
    cargo = "\n".join(SETTINGS)
    fenced = "#![allow(unsafe_code)] // system calls\n"
    good = {path: fenced for path in FENCED}
    good["src/bin/cuda-helper/foreign/abi.rs"] = "unsafe impl A for B {}\n"
    good["src/lib.rs"] = '//! No unsafe here.\nfn a() -> &str { "unsafe { } \\" unsafe" } // unsafe\nfn unsafe_here() {}\n'
    good["tests/a.rs"] = "// kill(2)\n#[allow(unsafe_code)]\nfn a() { unsafe { kill() } }\n"
    assert not list(problems(good, cargo)), list(problems(good, cargo))
    for path, text, part in [
        ("src/process/init.rs", "fn a() {\n  unsafe { b() }\n}\n", "src/process/init.rs:2: `unsafe` outside"),
        ("src/process/init.rs", "#![allow(unsafe_code)] // because\n", "is allowed outside"),
        ("src/process/init.rs", "#[cfg_attr(test, allow(dead_code, unsafe_code))] // because\n", "is allowed outside"),
        ("src/bin/cuda-helper/foreign/abi.rs", "#![allow(unsafe_code)] // because\n", "is allowed outside"),
        ("src/sys.rs", fenced + "#[allow(clippy::undocumented_unsafe_blocks)]\n", "says why"),
        ("src/sys.rs", "#![allow(unsafe_code)]\n", "without a reason"),
        ("src/sys.rs", "fn a() {}\n", "is it still one"),
        ("tests/a.rs", "/// a\n#[allow(unsafe_code)]\nfn a() {}\n", "without a reason"),
    ]:
        found = list(problems({**good, path: text}, cargo))
        assert len(found) == 1 and part in found[0], (path, text, found)
    assert "is not there" in next(problems({"src/sys.rs": fenced}, cargo))
    for left_out in SETTINGS:
        found = list(problems(good, cargo.replace(left_out, "# " + left_out)))
        assert found == [f"Cargo.toml: no {left_out}"], found


if sys.argv[1:] == ["--self-test"]:
    self_test()
    sys.exit(0)
listed = subprocess.run(["git", "ls-files", "-z", "--", "*.rs"], check=True, stdout=subprocess.PIPE).stdout
sources = {}
for name in filter(None, listed.decode().split("\0")):
    # The fakes play vendors' libraries, which are nothing but `unsafe`; they have lints of their own.
    if not name.startswith("tests/fakes/"):
        with open(name, encoding="utf-8") as source:
            sources[name] = source.read()
with open("Cargo.toml", encoding="utf-8") as manifest:
    wrong = list(problems(sources, manifest.read()))
for problem in wrong:
    print(problem, file=sys.stderr)
sys.exit(bool(wrong))
