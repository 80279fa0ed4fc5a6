#!/usr/bin/env python3
"""An OCI runtime for podman where CAP_SYS_RESOURCE is missing, as it often is in a container: runc may then not raise
limits of processes, which podman asks for in everything it starts. Takes them out and becomes runc or crun."""

import json
import os
import shutil
import sys


def without_limits(path, key):
    """Removes the limits from the process that a file describes, below `key` if there is one."""
    with open(path) as file:
        whole = json.load(file)
    (whole[key] if key else whole).pop("rlimits", None)
    with open(path, "w") as file:
        json.dump(whole, file)


arguments = sys.argv[1:]
if "create" in arguments and "--bundle" in arguments:
    without_limits(os.path.join(arguments[arguments.index("--bundle") + 1], "config.json"), "process")
if "exec" in arguments and "--process" in arguments:
    without_limits(arguments[arguments.index("--process") + 1], None)
runtime = shutil.which("runc") or shutil.which("crun")
if runtime is None:
    sys.exit("runtime.py: neither runc nor crun is on PATH")
os.execv(runtime, [runtime, *arguments])
