"""The crates that the two binaries link, from cargo's own resolution of Cargo.lock."""

import functools
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRIPLES = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]
# How crates call the files with their terms.
TERMS = ("licen", "copying", "copyright", "notice", "unlicense")


class Crate:
    """One crate, with the crates that it links."""

    def __init__(self, package, links):
        self.name, self.version = package["name"], package["version"]
        self.license = package["license"]
        self.description = " ".join((package["description"] or "").split())
        self.repository = package["repository"]
        self.folder = pathlib.Path(package["manifest_path"]).parent
        self.links = sorted(links)

    def key(self):
        return (self.name, self.version)

    def terms(self):
        """Its files with licences and notices, by name."""
        return sorted(f for f in self.folder.iterdir() if f.is_file() and f.name.lower().startswith(TERMS))


def _metadata(triple):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", triple]
    # Both binaries': `entrypoint` is a default.
    command += ["--features", "helper"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(output)


@functools.lru_cache(maxsize=None)
def linked():
    """{(name, version): Crate}, without the project's own, and what that one links. Macros run in the compiler and build scripts
    before it: neither is in a binary."""
    crates, own = {}, set()
    for triple in TRIPLES:
        metadata = _metadata(triple)
        packages = {package["id"]: package for package in metadata["packages"]}
        nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}

        def links(node):
            for dep in node["deps"]:
                normal = any(kind["kind"] is None for kind in dep["dep_kinds"])
                macro = any("proc-macro" in target["kind"] for target in packages[dep["pkg"]]["targets"])
                if normal and not macro:
                    yield dep["pkg"]

        def key(identity):
            return (packages[identity]["name"], packages[identity]["version"])

        root = metadata["resolve"]["root"]
        own.update(key(identity) for identity in links(nodes[root]))
        left = list(links(nodes[root]))
        while left:
            identity = left.pop()
            if key(identity) in crates and triple == crates[key(identity)].seen:
                continue
            crate = Crate(packages[identity], [key(each) for each in links(nodes[identity])])
            known = crates.get(crate.key())
            if known:
                crate.links = sorted(set(crate.links) | set(known.links))
            crate.seen = triple
            crates[crate.key()] = crate
            left.extend(links(nodes[identity]))
    return crates, sorted(own)


def checksums():
    """{(name, version): SHA-256 of the published archive}, as Cargo.lock has them."""
    found, name, version = {}, None, None
    for line in (ROOT / "Cargo.lock").read_text().splitlines():
        word, _, value = line.partition(" = ")
        value = value.strip('"')
        if word == "name":
            name = value
        elif word == "version":
            version = value
        elif word == "checksum":
            found[(name, version)] = value
    return found
