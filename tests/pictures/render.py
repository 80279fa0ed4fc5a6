#!/usr/bin/env python3
"""Draws the pictures of README.md from what dist/cuda-entrypoint says: docker/pictures/fail.svg and pass.svg.

usage: render.py [--text]     --text prints what was said instead of drawing it

Both are of one environment: faiss-gpu-cu12 1.11.0 with all that it requires, 0.7 GB from PyPI, in `pictures` below cargo's
target folder; CUDA_ENTRYPOINT_PICTURE_ENV names one that is there. Its folder is written as /opt/venv.
"""

import html
import os
import pathlib
import pty
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = (ROOT / os.environ.get("CARGO_TARGET_DIR", "target")).absolute()
ENTRYPOINT = pathlib.Path(os.environ.get("CUDA_ENTRYPOINT_DIST") or ROOT / "dist/cuda-entrypoint").absolute()
PACKAGES = [
    "faiss-gpu-cu12==1.11.0", "numpy==1.26.4", "packaging==26.4",
    "nvidia-cublas-cu12==12.9.1.4", "nvidia-cuda-runtime-cu12==12.9.79",
]
CHECK = "cuda-entrypoint check --stage image --stack none"
PICTURES = {
    "fail": [f"{CHECK} --archs '8.0;9.0' --quiet"],
    "pass": [f"{CHECK} --archs '7.0;8.0'", "cuda-entrypoint run --stack none --gpu off -- python3 -m this"],
}
# At this width a phone shows letters that can be read.
COLUMNS = 60
CHARACTER, LINE, MARGIN = 8.4, 20, 16
COLOURS = {"1": "#ffffff", "2": "#8b949e", "31": "#ff7b72", "32": "#3fb950", "33": "#d29922", "36": "#39c5cf"}
PLAIN, BACKGROUND = "#e6edf3", "#0d1117"


def environment():
    named = os.environ.get("CUDA_ENTRYPOINT_PICTURE_ENV")
    if named:
        return pathlib.Path(named).absolute()
    folder = TARGET / "pictures/venv"
    if not folder.exists():
        draft = folder.with_name("venv.draft")
        subprocess.run(["rm", "-rf", draft], check=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", draft], check=True)
        site = draft / "lib/python{}.{}/site-packages".format(*sys.version_info)
        install = ["install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:", "--target", site]
        subprocess.run([ROOT / "tests/build/pip.sh", *install, *PACKAGES], check=True)
        draft.rename(folder)
    return folder


def said(command, folder):
    """What a terminal gets of a command, without the lines that the service itself writes."""
    env = {"PATH": f"{ENTRYPOINT.parent}:{folder}/bin:/usr/bin:/bin", "VIRTUAL_ENV": str(folder)}
    env |= {"TERM": "xterm", "COLUMNS": "160", "HOME": "/nonexistent"}
    ours, theirs = pty.openpty()
    # The service's own words are no part of the picture.
    service = "run" in command.split()
    output = subprocess.DEVNULL if service else theirs
    child = subprocess.Popen(["sh", "-c", command], env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break
        if not chunk:
            break
        text += chunk
    child.wait()
    text = text.decode().replace("\r\n", "\n").replace(str(folder), "/opt/venv")
    # What was wrapped for this terminal is one line again.
    text = re.sub(r"(?m)\n(?: {14}|  )(?=\S)(?! *(observed|required|hint):)", " ", text)
    return text.rstrip("\n").split("\n")


def cells(line):
    """(character, colour, bold) of a line with escapes."""
    colour, bold, out = PLAIN, False, []
    for part in re.split(r"(\x1b\[[0-9;]*[A-Za-z])", line):
        escape = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
        if escape:
            for code in (escape.group(1) or "0").split(";"):
                if code == "0":
                    colour, bold = PLAIN, False
                elif code == "1":
                    bold = True
                elif code in COLOURS:
                    colour = COLOURS[code]
        elif not part.startswith("\x1b"):
            out += [(character, colour, bold) for character in part]
    return out


def wrapped(line):
    """Lines of at most COLUMNS cells; the rest of each below its own beginning."""
    text = "".join(cell[0] for cell in line)
    label = re.match(r" {4}(observed|required|hint):\s+", text)
    mark = re.match(r"[✗✓!i?-] ", text)
    indent = label.end() if label else 4 if text.startswith("    ") else 2 if mark or len(text) > COLUMNS else 0
    rows, rest = [], line
    while len(rest) > COLUMNS:
        blank = max((at for at in range(indent + 1, COLUMNS + 1) if rest[at][0] == " "), default=COLUMNS)
        rows.append(rest[:blank])
        rest = rest[blank:]
        while rest and rest[0][0] == " ":
            rest = rest[1:]
        rest = [(" ", PLAIN, False)] * indent + rest
    return [*rows, rest]


def svg(title, rows):
    width = round(COLUMNS * CHARACTER + 2 * MARGIN)
    height = len(rows) * LINE + 2 * MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>',
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="14">',
    ]
    for number, row in enumerate(rows):
        y = MARGIN + number * LINE + 15
        at = 0
        while at < len(row):
            end = at
            while end < len(row) and row[end][1:] == row[at][1:]:
                end += 1
            text = "".join(cell[0] for cell in row[at:end])
            lead = len(text) - len(text.lstrip(" "))
            stripped = text.strip(" ")
            if stripped:
                x = MARGIN + (at + lead) * CHARACTER
                weight = ' font-weight="bold"' if row[at][2] else ""
                out.append(
                    f'<text x="{x:.1f}" y="{y}" fill="{row[at][1]}"{weight} xml:space="preserve" '
                    f'textLength="{len(stripped) * CHARACTER:.1f}">{html.escape(stripped)}</text>'
                )
            at = end
    return "\n".join([*out, "</g>", "</svg>"]) + "\n"


def main():
    folder = environment()
    for name, commands in PICTURES.items():
        rows, words = [], []
        for command in commands:
            # Once before, so that its files are in memory, as they are in an image that was just built.
            said(command, folder)
            lines = said(command, folder)
            words += [f"$ {command}", *(re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines)]
            rows += [[]] if rows else []
            rows += wrapped([(character, "#ffffff", True) for character in f"$ {command}"])
            rows += [row for line in lines for row in wrapped(cells(line))]
        if sys.argv[1:] == ["--text"]:
            print("\n".join(words))
        else:
            path = ROOT / f"docker/pictures/{name}.svg"
            path.parent.mkdir(exist_ok=True)
            path.write_text(svg(f"the output of: {commands[0]}", rows))
            print(path.relative_to(ROOT))


main()
