#!/usr/bin/env python3
"""Times commands in turns, so that a machine's moods meet all of them alike.

usage: measure.py ROUNDS NAME=COMMAND... (each COMMAND is split at blanks); prints a JSON object a line: name, median,
minimum and maximum in milliseconds, rounds, and the exit statuses seen.
"""

import json
import os
import shlex
import statistics
import sys
import time


def once(argv):
    start = time.perf_counter()
    null = os.open(os.devnull, os.O_RDWR)
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)])
    _, status = os.waitpid(pid, 0)
    os.close(null)
    return (time.perf_counter() - start) * 1000, os.waitstatus_to_exitcode(status)


def main():
    rounds = int(sys.argv[1])
    commands = [argument.split("=", 1) for argument in sys.argv[2:]]
    times = {name: [] for name, _ in commands}
    codes = {name: set() for name, _ in commands}
    for turn in range(rounds + 1):
        for name, command in commands:
            took, code = once(shlex.split(command))
            codes[name].add(code)
            if turn > 0:  # the first turn fills caches
                times[name].append(took)
    for name, command in commands:
        values = times[name]
        print(json.dumps({
            "name": name, "median_ms": round(statistics.median(values), 2), "min_ms": round(min(values), 2),
            "max_ms": round(max(values), 2), "rounds": rounds, "exit": sorted(codes[name]), "command": command,
        }))


main()
