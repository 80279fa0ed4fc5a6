#!/usr/bin/env python3
"""Packs what `make release` publishes, from finished binaries. The same input gives the same bytes.

usage: package.py --version V --commit HASH --time SECONDS --out DIR [--source URL]
                  --binary PROCESSOR=FILE... --library PROCESSOR:NAME:VERSION:LICENSE=TERMS[,TERMS...]...
    --time     of the commit, since the epoch: everything in the archives has it
    --library  what is in that processor's binary beside crates: the C library, Rust's standard library; with files of its terms

Writes cuda-entrypoint-V-PROCESSOR.tar.gz for each processor, cuda-entrypoint-V-oci.tar, cuda-entrypoint-V.cdx.json and
SHA256SUMS.
"""

import argparse
import datetime
import gzip
import hashlib
import json
import pathlib
import re
import sys

import crates
import oci
import sbom

ROOT = pathlib.Path(__file__).resolve().parents[2]
OCI_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
RULE = "=" * 78 + "\n"


def third_party(libraries):
    """The terms of everything in a binary that others wrote, with their notices, word for word."""
    parts = ["What others wrote in this program, and their terms, as they published them.\n\n"]
    for name, version, license, files in libraries:
        parts.append("{}{} {} ({})\n{}\n".format(RULE, name, version, license, RULE))
        parts += ["{}\n\n".format(text(file)) for file in files]
    for _, crate in sorted(crates.linked()[0].items()):
        files = crate.terms()
        if not files:
            sys.exit("package.py: {} {} has no file with its terms ({})".format(crate.name, crate.version, crate.license))
        parts.append("{}{} {} ({})\n{}\n".format(RULE, crate.name, crate.version, crate.license, RULE))
        parts += ["{}\n\n".format(text(file)) for file in files]
    return "".join(parts).encode()


def text(path):
    found = pathlib.Path(path).read_text(errors="replace")
    if str(path).endswith(".html"):
        found = re.sub(r"<[^>]*>", "", found)
    return found.strip()


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--version", required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--time", required=True, type=int)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--source", default="")
    parser.add_argument("--binary", action="append", required=True)
    parser.add_argument("--library", action="append", default=[])
    given = parser.parse_args()

    moment = datetime.datetime.fromtimestamp(given.time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = "cuda-entrypoint-" + given.version
    binaries = {key: pathlib.Path(path).read_bytes() for key, path in (each.split("=", 1) for each in given.binary)}
    libraries = {processor: [] for processor in binaries}
    for each in given.library:
        what, files = each.split("=", 1)
        processor, *library = what.split(":", 3)
        libraries[processor].append((*library, files.split(",")))

    made = {}
    for processor, binary in binaries.items():
        folder = "{}-{}/".format(name, processor)
        files = [(folder + "cuda-entrypoint", binary, 0o755)]
        files.append((folder + "THIRD-PARTY.txt", third_party(libraries[processor]), 0o644))
        for path in ["LICENSE-APACHE", "LICENSE-MIT", "CHANGELOG.md", "docker/cuda-entrypoint.1", "tests/release/relinking.txt"]:
            here = path.rpartition("/")[2].replace("relinking.txt", "RELINKING.txt")
            files.append((folder + here, (ROOT / path).read_bytes(), 0o644))
        for path in sorted((ROOT / "docker/completions").iterdir()):
            files.append((folder + "completions/" + path.name, path.read_bytes(), 0o644))
        made[folder[:-1] + ".tar.gz"] = gzip.compress(oci.tar(sorted(files), given.time), mtime=0)

    annotations = {
        "org.opencontainers.image.title": "cuda-entrypoint",
        "org.opencontainers.image.description": description(),
        "org.opencontainers.image.version": given.version,
        "org.opencontainers.image.revision": given.commit,
        "org.opencontainers.image.created": moment,
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
    }
    if given.source:
        annotations["org.opencontainers.image.source"] = given.source
    images = {OCI_NAMES[processor]: binary for processor, binary in binaries.items()}
    made[name + "-oci.tar"] = oci.layout(images, annotations, moment, given.time)
    tools = [(*library[:3], processor) for processor in sorted(libraries) for library in libraries[processor]]
    bill = json.dumps(sbom.document(given.version, given.commit, moment, tools), indent=2) + "\n"
    made[name + ".cdx.json"] = bill.encode()
    sums = ["{}  {}\n".format(hashlib.sha256(data).hexdigest(), file) for file, data in sorted(made.items())]
    made["SHA256SUMS"] = "".join(sums).encode()

    given.out.mkdir(parents=True, exist_ok=True)
    for file, data in made.items():
        (given.out / file).write_bytes(data)


def description():
    match = re.search(r'^description = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    return match.group(1)


main()
