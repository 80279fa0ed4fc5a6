#!/usr/bin/env python3
"""Makes an environment of made-up distributions, each with a module, and the manifest that asks for ten of them.

usage: distributions.py FOLDER COUNT
"""

import pathlib
import sys


def main():
    folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    site = folder / "lib/python3.11/site-packages"
    site.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("home = /nowhere/bin\ninclude-system-site-packages = false\nversion = 3.11.9\n")
    for number in range(count):
        name = f"package_{number}"
        info = site / f"{name}-1.{number}.dist-info"
        info.mkdir()
        # As long as metadata is in the middle: a page of headers with a dozen requirements, then a description.
        headers = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: 1.{number}", "Summary: made up"]
        headers += [f"Classifier: Topic :: Number {line}" for line in range(20)]
        headers += [f"Requires-Dist: package-{(number + step) % count}>=1.0" for step in range(1, 5)]
        headers += [f"Requires-Dist: tool-{step}>=2; extra == 'dev'" for step in range(8)]
        (info / "METADATA").write_text("\n".join(headers) + "\n\n" + "A word of description.\n" * 200)
        (info / "WHEEL").write_text("Wheel-Version: 1.0\nTag: py3-none-any\n")
        (info / "RECORD").write_text(f"{name}/__init__.py,,\n" * 50)
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("")
    wanted = ", ".join(f'"package-{number}": "==1.{number}"' for number in range(min(count, 10)))
    manifest = f'{{"schema": 1, "name": "made-up", "packages": {{{wanted}}}}}\n'
    (folder / "stack.json").write_text(manifest)


main()
