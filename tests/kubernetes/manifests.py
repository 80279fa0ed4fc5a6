#!/usr/bin/env python3
"""The Kubernetes manifests of docker/kubernetes.

    manifests.py check        holds them against the schemas of Kubernetes, and against what we promise of them
    manifests.py json FILE    the documents of one file as JSON, for the tests that run them
"""

import copy
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker/kubernetes"
TOOLS = subprocess.run(
    [ROOT / "tests/build/tools.sh", "kubernetes"], check=True, stdout=subprocess.PIPE, text=True
).stdout.strip()
sys.path.insert(0, TOOLS)

import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402

# Releases whose schemas the validator has in full.
RELEASES = ["1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
# Images that a person builds or brings; a registry's name is theirs to add.
IMAGES = {"point-cloud-service:cu124", "cuda-entrypoint:latest", "my-service:1.0"}


def documents(path):
    """All documents of a file of YAML."""
    return list(yaml.safe_load_all(path.read_text()))


def pod_spec(document):
    """The pod that a document describes, or None."""
    if document["kind"] == "Pod":
        return document["spec"]
    return document.get("spec", {}).get("template", {}).get("spec")


def schema_problems(document):
    """What each release of Kubernetes refuses in a document, unknown keys included."""
    for release in RELEASES:
        try:
            kubernetes_validate.validate(document, release, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {release} refuses it: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"Kubernetes {release} has no schema for it: {error}"


def pod_problems(spec):
    """Where a pod is outside of the Pod Security Standard "restricted", or says what we do not want said."""
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield "the pod may run as root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccomp is not RuntimeDefault"
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "it shares a namespace of the node"
    for volume in spec.get("volumes", []):
        if not set(volume) <= {"name", "emptyDir", "configMap"}:
            yield f"the volume {volume['name']} is neither emptyDir nor configMap"
    for container in spec.get("initContainers", []) + spec["containers"]:
        name, own = container["name"], container.get("securityContext", {})
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            yield f"{name} may escalate its privileges"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name} may write its root file system"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name} keeps capabilities"
        if container["image"] not in IMAGES:
            yield f"{name} has the image {container['image']}, which nobody builds"
        unmounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        unmounted -= {volume["name"] for volume in spec.get("volumes", [])}
        if unmounted:
            yield f"{name} mounts {', '.join(sorted(unmounted))}, of which there is no volume"


def self_test(pod):
    """Each of these must be found before silence means anything."""

    def broken(change):
        document = copy.deepcopy(pod)
        change(document, document["spec"], document["spec"]["containers"][0])
        return [*schema_problems(document), *pod_problems(document["spec"])]

    assert not broken(lambda document, spec, container: None)
    for change in [
        lambda document, spec, container: spec.update(restartPolice="Never"),
        lambda document, spec, container: container.update(args="one string"),
        lambda document, spec, container: document.update(apiVersion="v2"),
        lambda document, spec, container: spec["securityContext"].pop("runAsNonRoot"),
        lambda document, spec, container: spec["securityContext"].pop("seccompProfile"),
        lambda document, spec, container: spec.update(hostPID=True),
        lambda document, spec, container: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        lambda document, spec, container: spec["volumes"].pop(),
        lambda document, spec, container: container["securityContext"].pop("capabilities"),
        lambda document, spec, container: container["securityContext"].pop("readOnlyRootFilesystem"),
        lambda document, spec, container: container["securityContext"].update(allowPrivilegeEscalation=True),
        lambda document, spec, container: container.update(image="registry.invalid/x:1"),
    ]:
        assert broken(change), change


def affinity_of(archs):
    """The node selector terms for a manifest's list, by GPU feature discovery's labels."""
    majors = {}
    for arch in archs.split(";"):
        major, minor = arch.split(".")
        majors.setdefault(major, []).append(minor)
    for major, minors in majors.items():
        yield {"matchExpressions": [
            {"key": "nvidia.com/gpu.compute.major", "operator": "In", "values": [major]},
            {"key": "nvidia.com/gpu.compute.minor", "operator": "In", "values": minors},
        ]}


def promises():
    """What the files say of one another and of the stack."""
    pod, = documents(FOLDER / "pod.yaml")
    deployment, = documents(FOLDER / "deployment.yaml")
    job, = documents(FOLDER / "job.yaml")
    daemons, = documents(FOLDER / "daemonset.yaml")
    self_test(pod)
    if pod["spec"] != pod_spec(deployment):
        yield "pod.yaml and deployment.yaml describe different pods"
    check, = pod["spec"]["initContainers"]
    service, = pod["spec"]["containers"]
    if check["resources"] != service["resources"] or check["image"] != service["image"]:
        yield "pod.yaml: the init container proves another image, or asks for other GPUs, than the service has"
    archs = json.loads((ROOT / "src/stack/pointcept-cu124.json").read_text())["archs"]
    for name, spec in (("pod.yaml", pod["spec"]), ("job.yaml", pod_spec(job))):
        node = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        if node["nodeSelectorTerms"] != list(affinity_of(archs)):
            yield f"{name}: the node affinity is not for the architectures of the stack, {archs}"
        for container in spec["containers"]:
            if "command" in container:
                yield f"{name}: a command bypasses the ENTRYPOINT"
    rules = {rule["action"]: rule for rule in job["spec"]["podFailurePolicy"]["rules"]}
    # Which codes these are is the table's in src/exit_code.rs, whose test reads this file.
    for action in ("FailJob", "Count"):
        if rules[action]["onExitCodes"]["operator"] != "In":
            yield f"job.yaml: {action} is not for a list of exit codes"
    if pod_spec(job)["restartPolicy"] != "Never":
        yield "job.yaml: a podFailurePolicy needs restartPolicy Never"
    if any("resources" in container for container in pod_spec(daemons)["containers"]):
        yield "daemonset.yaml takes a GPU away from somebody"


def kustomize(folder):
    """What `kustomize build` makes of a folder."""
    command = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    run = subprocess.run([*command, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode:
        raise SystemExit(f"kubernetes: {' '.join(command)} {folder} failed: {run.stderr}")
    return list(yaml.safe_load_all(run.stdout))


def kustomize_problems(files):
    """The kustomization as it is, and one of all files with another image."""
    built = kustomize(FOLDER)
    if built != documents(FOLDER / "deployment.yaml"):
        yield "kustomization.yaml changes more than the name of an image"
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            shutil.copy(path, folder)
        image = {"name": "point-cloud-service", "newName": "somewhere/else", "newTag": "2"}
        whole = {"resources": [path.name for path in files], "images": [image], "namePrefix": "a-"}
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(whole))
        built = kustomize(folder)
    if len(built) != sum(len(documents(path)) for path in files):
        yield "kustomize leaves out documents"
    for document in built:
        text = json.dumps(document)
        if "point-cloud-service:cu124" in text or not document["metadata"]["name"].startswith("a-"):
            yield f"kustomize does not reach into {document['kind']} {document['metadata']['name']}"
        yield from schema_problems(document)


def check():
    """Prints what is wrong; returns the exit status."""
    files = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
    problems = [*promises(), *kustomize_problems(files)]
    for path in files:
        for document in documents(path):
            spec = pod_spec(document)
            found = [*schema_problems(document), *(pod_problems(spec) if spec else [])]
            problems += [f"{path.name}, {document['kind']}: {problem}" for problem in found]
    named = set(re.findall(r"[a-z]+\.yaml", (FOLDER / "README.md").read_text()))
    problems += [f"README.md does not name {path.name}" for path in files if path.name not in named]
    for problem in problems:
        print(f"kubernetes: {problem}", file=sys.stderr)
    return bool(problems)


def main():
    if sys.argv[1:] == ["check"]:
        return check()
    if len(sys.argv) == 3 and sys.argv[1] == "json":
        print(json.dumps(documents(Path(sys.argv[2]))))
        return 0
    print(__doc__, file=sys.stderr)
    return 64


if __name__ == "__main__":
    sys.exit(main())
