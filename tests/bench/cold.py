#!/usr/bin/env python3
"""Times commands whose files are not in the page cache: all of it is dropped before each of them. Needs root.

usage: cold.py ROUNDS NAME=COMMAND...; prints a JSON object a line, as tests/gpu/measure.py does.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import time


def once(argv):
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3\n")
    start = time.perf_counter()
    code = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    return (time.perf_counter() - start) * 1000, code


def main():
    commands = [argument.split("=", 1) for argument in sys.argv[2:]]
    found = {name: [once(shlex.split(command)) for _ in range(int(sys.argv[1]))] for name, command in commands}
    for name, command in commands:
        times = [ms for ms, _ in found[name]]
        print(json.dumps({
            "name": name, "median_ms": round(statistics.median(times), 2), "min_ms": round(min(times), 2),
            "max_ms": round(max(times), 2), "rounds": len(times), "exit": sorted({code for _, code in found[name]}),
            "command": command,
        }))


main()
