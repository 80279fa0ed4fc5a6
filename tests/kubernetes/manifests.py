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
IMAGES = {
    "point-cloud-service:cu124", "cuda-entrypoint:latest", "cuda-entrypoint-validator:latest", "my-service:1.0"
}
# Each component with the files that it is for, and the first release that has what it uses.
COMPONENTS = {
    "aks": (("daemonset.yaml", "deployment.yaml", "job.yaml"), "1.30"),
    "bottlerocket": (("daemonset.yaml",), "1.30"),
    "dra": (("deployment.yaml", "job.yaml"), "1.34"),
    "eks": (("deployment.yaml", "job.yaml"), "1.30"),
    "gke": (("deployment.yaml", "job.yaml"), "1.30"),
    "image-volume": (("install.yaml",), "1.31"),
    "kueue": (("job.yaml", "jobset.yaml"), "1.30"),
    "openshift": (("daemonset.yaml", "deployment.yaml", "install.yaml", "job.yaml", "jobset.yaml", "pod.yaml"), "1.30"),
    "restart-rules": (("job.yaml",), "1.34"),
}
# What is configuration of kustomize, and no manifest.
KUSTOMIZE = {"kustomization.yaml", "image-fields.yaml"}


def documents(path):
    """All documents of a file of YAML."""
    return list(yaml.safe_load_all(path.read_text()))


def pod_spec(document):
    """The pod that a document describes, or None."""
    if document["kind"] == "Pod":
        return document["spec"]
    if document["kind"] == "JobSet":
        return pod_spec(job_of(document))
    return document.get("spec", {}).get("template", {}).get("spec")


def job_of(jobset):
    """The Job of a JobSet, whose own resource is no part of Kubernetes and has no schema there."""
    replicated, = jobset["spec"]["replicatedJobs"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": replicated["name"]}, **replicated["template"]}


def schema_problems(document, since=RELEASES[0]):
    """What each release of Kubernetes refuses in a document, unknown keys included."""
    if document["kind"] == "JobSet":
        document = job_of(document)
    for release in RELEASES[RELEASES.index(since):]:
        try:
            kubernetes_validate.validate(document, release, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {release} refuses it: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield f"Kubernetes {release} has no schema for it: {error}"


def resource_problems(container):
    """A container without requests and limits, as policies of many clusters refuse it."""
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        missing = {"cpu", "memory"} - set(resources.get(kind, {}))
        if missing:
            yield f"{container['name']} has no {kind} of {', '.join(sorted(missing))}"


def pod_problems(spec, allowed=()):
    """Where a pod is outside of the Pod Security Standard "restricted", or says what we do not want said.

    allowed: what a component is for, "any-user" or "hostPath".
    """
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not (security.get("runAsUser") or "any-user" in allowed):
        yield "the pod may run as root"
    if spec.get("automountServiceAccountToken") is not False:
        yield "it mounts the token of a service account"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccomp is not RuntimeDefault"
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "it shares a namespace of the node"
    for volume in spec.get("volumes", []):
        if not set(volume) <= {"name", "emptyDir", "configMap", "image", *allowed}:
            yield f"the volume {volume['name']} is neither emptyDir nor configMap nor an image"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"the volume {volume['name']} may grow without limit"
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
        yield from resource_problems(container)
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
        lambda document, spec, container: spec["volumes"][0].update(emptyDir={}),
        lambda document, spec, container: spec.pop("automountServiceAccountToken"),
        lambda document, spec, container: container["resources"]["limits"].pop("memory"),
        lambda document, spec, container: container.pop("resources"),
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
    jobset, = documents(FOLDER / "jobset.yaml")
    _, daemons = documents(FOLDER / "daemonset.yaml")
    self_test(pod)
    # A Deployment's pods are always restarted.
    if {**pod["spec"], "restartPolicy": "Always"} != {**pod_spec(deployment), "restartPolicy": "Always"}:
        yield "pod.yaml and deployment.yaml describe different pods"
    check, = pod["spec"]["initContainers"]
    service, = pod["spec"]["containers"]
    if check["resources"] != service["resources"] or check["image"] != service["image"]:
        yield "pod.yaml: the init container proves another image, or asks for other GPUs, than the service has"
    archs = json.loads((ROOT / "src/stack/pointcept-cu124.json").read_text())["archs"]
    for name, spec in (("pod.yaml", pod["spec"]), ("job.yaml", pod_spec(job)), ("jobset.yaml", pod_spec(jobset))):
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
    if "nvidia.com/gpu" in json.dumps([container["resources"] for container in pod_spec(daemons)["containers"]]):
        yield "daemonset.yaml takes a GPU away from somebody"


def kustomize(folder):
    """What `kustomize build` makes of a folder."""
    command = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    run = subprocess.run([*command, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode:
        raise SystemExit(f"kubernetes: {' '.join(command)} {folder} failed: {run.stderr}")
    return list(yaml.safe_load_all(run.stdout))


DIGEST = "sha256:" + 64 * "0"


def with_digests(text):
    """A manifest with the images that kustomization.yaml gives it."""
    for image in IMAGES:
        text = text.replace(f'"{image}"', f'"registry.example/{image.rpartition(":")[0]}@{DIGEST}"')
    return text


def built_with(resources, components=()):
    """What kustomize makes of some files with some components, by kustomization.yaml."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
        path = Path(folder) / "kustomization.yaml"
        whole = yaml.safe_load(path.read_text())
        whole.update(resources=list(resources), components=[f"components/{name}" for name in components])
        path.write_text(yaml.safe_dump(whole))
        return kustomize(folder)


def kustomize_problems(files):
    """The kustomization as it is, and one of all files."""
    built = kustomize(FOLDER)
    original = json.dumps(documents(FOLDER / "deployment.yaml"))
    if built != json.loads(with_digests(original)):
        yield "kustomization.yaml changes more than the names of images"
    built = built_with(path.name for path in files)
    if len(built) != sum(len(documents(path)) for path in files):
        yield "kustomize leaves out documents"
    for document in built:
        if any(f'"{image}"' in json.dumps(document) for image in IMAGES):
            yield f"kustomize does not reach into {document['kind']} {document['metadata']['name']}"
        yield from schema_problems(document)


def component_problems(name, built):
    """What a component is for, in what kustomize made with it."""
    text = json.dumps(built)
    pods = [(document["kind"], pod_spec(document)) for document in built if pod_spec(document)]
    containers = [one for _, spec in pods for one in spec.get("initContainers", []) + spec["containers"]]
    if name == "openshift" and ("runAsUser" in text or "runAsGroup" in text or "fsGroup" in text):
        yield "a user or group has a fixed number"
    if name == "gke":
        if "runtimeClassName" in text or "nvidia.com/gpu.compute" in text:
            yield "there is a runtime class, or a label of GPU feature discovery"
        if any("/usr/local/nvidia/lib64" not in json.dumps(container["env"]) for container in containers):
            yield "the driver's folder is not in LD_LIBRARY_PATH"
    if name in ("eks", "aks") and "nvidia.com/gpu.compute" in text:
        yield "there is a label of GPU feature discovery"
    if name == "aks" and any({"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
                             not in spec["tolerations"] for _, spec in pods):
        yield "the taint sku=gpu is not tolerated"
    if name == "bottlerocket" and "/var/run/nvidia-container-devices/all" not in text:
        yield "nothing asks for the GPUs"
    if name == "dra":
        claims = [container["resources"].get("claims") for container in containers]
        if "nvidia.com/gpu" in json.dumps([container["resources"] for container in containers]):
            yield "the device plugin is asked as well"
        if claims != [[{"name": "gpu"}]] * len(claims):
            yield "init container and service do not share a claim"
        template = next(document for document in built if document["kind"] == "ResourceClaimTemplate")
        if any(spec["resourceClaims"] != [{"name": "gpu", "resourceClaimTemplateName": template["metadata"]["name"]}]
               for _, spec in pods):
            yield "the claim is made from another template"
        archs = json.loads((ROOT / "src/stack/pointcept-cu124.json").read_text())["archs"]
        wanted = ", ".join(f'"{arch}.0"' for arch in archs.split(";"))
        if f"[{wanted}]" not in yaml.safe_dump(template, width=10000):
            yield f"the selector is not for the architectures of the stack, {archs}"
    if name == "image-volume":
        if "initContainers" in text:
            yield "the binary is still copied"
        if f'"reference": "registry.example/cuda-entrypoint@{DIGEST}"' not in text:
            yield "the volume has no image, or kustomize does not rewrite its name"
    if name == "kueue":
        for document in built:
            queue = document["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name")
            if not queue or document["spec"]["suspend"] is not True:
                yield f"{document['kind']} is in no queue, or starts by itself"


def all_component_problems():
    """Each component, built by kustomize with each file that it is for."""
    folders = {path.parent.name for path in FOLDER.glob("components/*/kustomization.yaml")}
    for name in sorted(folders ^ set(COMPONENTS)):
        yield f"components/{name} is not tested, or not there"
    allowed = {"openshift": ["any-user"], "bottlerocket": ["hostPath"]}
    for name, (resources, since) in COMPONENTS.items():
        for resource in resources:
            plain, built = built_with([resource]), built_with([resource], [name])
            found = ["nothing changes"] if plain == built else []
            found += component_problems(name, built)
            for document in built:
                spec = pod_spec(document)
                found += schema_problems(document, since)
                found += pod_problems(spec, allowed.get(name, ())) if spec else []
            # Images have other names now, which is what kustomization.yaml is for.
            found = [problem for problem in found if "which nobody builds" not in problem]
            yield from (f"components/{name} with {resource}: {problem}" for problem in found)


def check():
    """Prints what is wrong; returns the exit status."""
    files = sorted(path for path in FOLDER.glob("*.yaml") if path.name not in KUSTOMIZE)
    problems = [*promises(), *kustomize_problems(files), *all_component_problems()]
    for path in files:
        for document in documents(path):
            spec = pod_spec(document)
            found = [*schema_problems(document), *(pod_problems(spec) if spec else [])]
            problems += [f"{path.name}, {document['kind']}: {problem}" for problem in found]
    readme = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"[a-z]+\.yaml", readme)) | set(re.findall(r"components/[a-z-]+", readme))
    missing = {path.name for path in files} | {f"components/{name}" for name in COMPONENTS}
    problems += [f"README.md does not name {name}" for name in sorted(missing - named)]
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
