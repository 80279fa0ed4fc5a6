"""The software bill of materials: CycloneDX 1.6 as JSON."""

import crates as listing


def document(version, commit, timestamp, tools):
    """Of both binaries, which link the same crates. `tools` are (name, version) of what else is in them: Rust's standard library
    and the C library, by processor."""
    crates, own = listing.linked()
    sums = listing.checksums()

    def reference(key):
        return "pkg:cargo/{}@{}".format(*key)

    components = []
    for key, crate in sorted(crates.items()):
        component = {
            "type": "library",
            "bom-ref": reference(key),
            "name": crate.name,
            "version": crate.version,
            "description": crate.description,
            "scope": "required",
            "licenses": [{"expression": crate.license}],
            "purl": reference(key),
        }
        if key in sums:
            component["hashes"] = [{"alg": "SHA-256", "content": sums[key]}]
        if crate.repository:
            component["externalReferences"] = [{"type": "vcs", "url": crate.repository}]
        components.append(component)
    for name, release, license, processor in tools:
        components.append(
            {
                "type": "library",
                "bom-ref": "{}@{}?arch={}".format(name, release, processor),
                "name": name,
                "version": release,
                "licenses": [{"expression": license}],
                "properties": [{"name": "cuda-entrypoint:arch", "value": processor}],
            }
        )
    root = "pkg:generic/cuda-entrypoint@" + version
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": timestamp,
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": "cuda-entrypoint",
                "version": version,
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
                "purl": root,
                "properties": [{"name": "cuda-entrypoint:commit", "value": commit}],
            },
        },
        "components": components,
        "dependencies": [{"ref": root, "dependsOn": [reference(key) for key in own]}]
        + [
            {"ref": reference(key), "dependsOn": [reference(each) for each in crate.links]}
            for key, crate in sorted(crates.items())
        ],
    }
