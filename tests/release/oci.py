"""An OCI image layout as a tar archive: the binary alone (`FROM scratch`), for each processor.

Source: the OCI Image Format Specification 1.1, image-layout.md, manifest.md, config.md, annotations.md.
"""

import hashlib
import io
import json
import tarfile

MEDIA = "application/vnd.oci.image."


def add(archive, name, data, time, mode=0o644):
    """One file of root's into a tar archive; the same bytes whoever makes it."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), time, mode
    archive.addfile(info, io.BytesIO(data))


def tar(files, time):
    """A tar archive as bytes; `files` are (name, bytes, mode)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data, mode in files:
            add(archive, name, data, time, mode)
    return buffer.getvalue()


def layout(binaries, annotations, created, time):
    """`binaries`: {"amd64": bytes, "arm64": bytes}. The layer is not compressed, so that no compressor's release matters."""
    blobs = {}

    def blob(data, media):
        if not isinstance(data, bytes):
            data = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": MEDIA + media, "digest": "sha256:" + digest, "size": len(data)}

    manifests = []
    for architecture, binary in sorted(binaries.items()):
        layer = tar([("cuda-entrypoint", binary, 0o755)], time)
        layer_descriptor = blob(layer, "layer.v1.tar")
        config = {
            "created": created,
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": ["/cuda-entrypoint"], "Labels": annotations},
            "rootfs": {"type": "layers", "diff_ids": [layer_descriptor["digest"]]},
            "history": [{"created": created, "comment": "cuda-entrypoint " + annotations["org.opencontainers.image.version"]}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MEDIA + "manifest.v1+json",
            "config": blob(config, "config.v1+json"),
            "layers": [layer_descriptor],
            "annotations": annotations,
        }
        descriptor = blob(manifest, "manifest.v1+json")
        descriptor["platform"] = {"architecture": architecture, "os": "linux"}
        manifests.append(descriptor)
    index = {"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": manifests, "annotations": annotations}
    # The layout's own index names one image, by its tag: the index of both processors.
    image = blob(index, "index.v1+json")
    name = "cuda-entrypoint:" + annotations["org.opencontainers.image.version"]
    image["annotations"] = {"org.opencontainers.image.ref.name": name}
    top = {"schemaVersion": 2, "mediaType": MEDIA + "index.v1+json", "manifests": [image]}
    files = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644)]
    files.append(("index.json", json.dumps(top, sort_keys=True, separators=(",", ":")).encode(), 0o644))
    files += [("blobs/sha256/" + digest, data, 0o644) for digest, data in sorted(blobs.items())]
    return tar(files, time)
