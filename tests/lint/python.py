#!/usr/bin/env python3
"""Parses every Python file with the grammar of the oldest Python that the wheels of the stack are made for."""

import ast
import subprocess
import sys

OLDEST = (3, 9)

listed = subprocess.run(["git", "ls-files", "-z", "--", "*.py"], check=True, stdout=subprocess.PIPE).stdout
failed = False
for path in filter(None, listed.decode().split("\0")):
    try:
        with open(path, "rb") as source:
            ast.parse(source.read(), filename=path, feature_version=OLDEST)
    except (SyntaxError, ValueError) as error:
        failed = True
        print(f"{path}: {error}", file=sys.stderr)
sys.exit(failed)
