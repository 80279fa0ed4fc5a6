#!/usr/bin/env python3
"""Becomes a Python service behind the hand-off, as the entrypoint does it: `launch.py OPTIONS ARGV...`.

OPTIONS is JSON: `handoff` and `smoke`, the two texts' files; `entries`; `devices`; `timeout_s`; `pid`; `verdict`, a
file that tells the fake entrypoint what to do; `out`, where it writes what it was given. The fake entrypoint is
tests/smoke_script/verdict.py, run by this interpreter.
"""

import fcntl
import io
import json
import os
import sys
import zipfile

options = json.loads(sys.argv[1])
argv = sys.argv[2:]
here = os.path.dirname(os.path.abspath(__file__))



def at(fd, number):
    """The same with a number from there on, which nothing else has: a leftover would be seen."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD, number)
    os.close(fd)
    return moved


results = at(os.memfd_create("results"), 30)
fcntl.fcntl(results, fcntl.F_SETFL, os.O_APPEND)
kept = at(os.open(os.devnull, os.O_RDONLY), 40)
binary = at(os.open(options.get("binary", os.path.realpath(sys.executable)), os.O_RDONLY), 50)
zipped = at(os.memfd_create("zip"), 60)

before = os.environ.get("PYTHONPATH")
plan = {
    "entries": options.get("entries", ["torch", "spconv"]),
    "devices": options.get("devices", "first"),
    "zip_fd": zipped,
    "python_path": before,
    "binary_fd": binary,
    "results_fd": results,
    "keep_fds": [results, kept],
    "verdict_argv": ["verdict", "-I", "-S", os.path.join(here, "verdict.py"), str(results), json.dumps(options)],
    "verdict_env": ["LANG=C.UTF-8", "ODD=\udcff=x", "SERVICE=1"],
    "timeout_s": options.get("timeout_s", 60),
}
if "pid" in options:
    plan["pid"] = os.getpid() + options["pid"]
plan.update(options.get("plan", {}))
with open(options["handoff"]) as file:
    text = "PLAN = __import__('json').loads({!r})\n".format(json.dumps(plan)) + file.read()
with open(options["smoke"]) as file:
    smoke = file.read()
archive = io.BytesIO()
with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
    file.writestr("sitecustomize.py", text)
    file.writestr("_cuda_entrypoint_smoke.py", smoke)
os.write(zipped, archive.getvalue())
for fd in (results, kept, binary, zipped):
    os.set_inheritable(fd, True)
path = "/proc/self/fd/{}".format(zipped)
os.environ["PYTHONPATH"] = path + ":" + before if before else path
os.execvp(argv[0], argv)
