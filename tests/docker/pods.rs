//! The shipped pods, played by podman with the image of docker/Dockerfile.gpu.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{HEALTHY, field, stack};
use crate::support::docker::{Base, Image};
use crate::support::podman::{Play, Pod, manifest, pod_of, provide};

/// The documents of a manifest. The first call gives podman the image that they name.
fn documents(name: &str) -> Vec<Value> {
    static PROVIDED: OnceLock<()> = OnceLock::new();
    PROVIDED.get_or_init(|| provide(stack::light(), "point-cloud-service:cu124"));
    manifest(name)
}

fn play(name: &str) -> Play {
    Play::of(documents(name))
}

/// The pod that a Job or a DaemonSet makes, which podman does not play by themselves.
fn play_template(name: &str) -> Play {
    let [document] = &mut documents(name)[..] else {
        panic!("{name} has more than one document")
    };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": pod_of(document).take()});
    Play::of(vec![pod])
}

const FETCH: &str = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/').status)";

/// The init container proved what there is to prove, and the service serves, confined as the manifest says.
#[track_caller]
fn serves(pod: &Pod) {
    pod.is_up();
    let message = pod.message("check");
    assert!(
        message.starts_with("pass: stack demo-cu124 (/etc/cuda-entrypoint/stack.json)"),
        "{message}"
    );

    assert_eq!(pod.exec_when_up("service", &["python", "-c", FETCH]), "200\n");
    let logs = pod.logs("service");
    assert!(logs.contains("cuda-entrypoint: ok: "), "{logs}");
    assert_eq!(pod.message("service"), "");

    let (code, status) = pod.exec("service", &["cat", "/proc/1/status"]);
    assert_eq!(code, Some(0), "{status}");
    for (name, value) in [
        ("Name", "python"),
        ("Uid", "10001\t10001\t10001\t10001"),
        ("Gid", "10001\t10001\t10001\t10001"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(field(&status, name), value, "{status}");
    }
    let (code, text) = pod.exec("service", &["python", "-c", "open('/srv/x', 'w')"]);
    assert!(
        code == Some(1) && text.contains("Read-only file system"),
        "{text}"
    );

    let health = &["cuda-entrypoint", "check", "--stage", "health"];
    let (code, text) = pod.exec("service", health);
    assert!(code == Some(0) && text.contains("healthy"), "{text}");
}

#[test]
fn the_pod_is_checked_and_serves() {
    serves(&play("pod.yaml").gpu(HEALTHY).start());
}

#[test]
fn the_deployment_is_checked_and_serves() {
    serves(&play("deployment.yaml").gpu(HEALTHY).start());
}

/// What the init container proved is proven, at the first start and at those after a crash.
#[test]
fn a_service_that_crashes_starts_by_the_receipt() {
    let pod = play("pod.yaml").gpu(HEALTHY).start();
    serves(&pod);
    pod.crash("service");
    assert_eq!(pod.exec_when_up("service", &["python", "-c", FETCH]), "200\n");
    let logs = pod.logs("service");
    let starts: Vec<&str> = logs
        .lines()
        .filter(|line| line.contains("cuda-entrypoint: ok: "))
        .collect();
    assert_eq!(starts.len(), 2, "{logs}");
    for start in starts {
        assert!(start.contains("image and GPUs as proven"), "{logs}");
    }
}

/// Nothing but the init container's verdict, for whoever reads the pod's status.
#[test]
fn a_failed_check_keeps_the_service_from_starting() {
    let old = r#"{"devices": [{"name": "Tesla V100", "cc": "7.0"}]}"#;
    for (file, script, code, finding) in [
        ("pod.yaml", None, "82", "driver-missing (exit 82): "),
        ("deployment.yaml", Some(old), "83", "arch-unsupported (exit 83): "),
    ] {
        let play = play(file).env("CUDA_ENTRYPOINT_WAIT", "0s");
        let pod = match script {
            Some(script) => play.gpu(script),
            None => play,
        };
        let pod = pod.start();
        pod.is_not_up();
        assert_eq!(pod.state("check", "ExitCode"), code);
        let message = pod.message("check");
        assert!(
            message.starts_with(finding) && message.contains("\nhint: "),
            "{message}"
        );
        assert_eq!(pod.state("service", "Status"), "created");
        assert_eq!(
            (pod.message("service"), pod.logs("service")),
            (String::new(), String::new())
        );
    }
}

/// `kubectl set env deployment/… CUDA_ENTRYPOINT_MODE=warn`: in, in spite of everything, to look around.
#[test]
fn the_way_out_of_a_crash_loop() {
    let pod = play("pod.yaml")
        .env("CUDA_ENTRYPOINT_WAIT", "0s")
        .env("CUDA_ENTRYPOINT_MODE", "warn")
        .start();
    pod.is_up();
    assert_eq!(pod.exec_when_up("service", &["python", "-c", FETCH]), "200\n");
    assert!(
        pod.logs("service").contains("driver-missing"),
        "{}",
        pod.logs("service")
    );
    let (code, text) = pod.exec(
        "service",
        &["env", "CUDA_ENTRYPOINT_MODE=enforce", "cuda-entrypoint", "check"],
    );
    assert!(code == Some(82) && text.contains("driver-missing"), "{text}");
}

/// A job's attempt, by the codes that its podFailurePolicy looks at.
#[test]
fn an_attempt_of_the_job_ends_with_a_code_for_its_policy() {
    let done = play_template("job.yaml").gpu(HEALTHY).start();
    assert_eq!(done.wait("work"), "0");
    assert!(done.logs("work").contains("worked"), "{}", done.logs("work"));
    // The image went through an archive and another store, as through a registry, and its receipt still holds.
    assert!(
        done.logs("work").contains("image as proven"),
        "{}",
        done.logs("work")
    );

    let failed = play_template("job.yaml")
        .env("CUDA_ENTRYPOINT_WAIT", "0s")
        .start();
    assert_eq!(failed.wait("work"), "82");
    assert!(
        failed.message("work").starts_with("driver-missing (exit 82): "),
        "{}",
        failed.message("work")
    );
    assert!(!failed.logs("work").contains("worked"), "{}", failed.logs("work"));
}

/// A node that loses its GPU after its check, as the readiness probe sees it.
#[test]
fn the_node_check_stays_and_watches() {
    let health = &["cuda-entrypoint", "check", "--stage", "health"];
    let fit = play_template("daemonset.yaml").gpu(HEALTHY).start();
    fit.is_up();
    fit.exec_when_up("check", &["sh", "-c", "grep -q sleep /proc/[0-9]*/comm"]);
    assert_eq!(fit.exec("check", health).0, Some(0));
    assert_eq!(fit.stop("check"), "143");

    let lost = r#"{"calls": {"nvmlDeviceGetCount_v2": {"returns": 999}}}"#;
    let lost = play_template("daemonset.yaml")
        .gpu(lost)
        .env("CUDA_ENTRYPOINT_WARN", "gpu-not-ready")
        .start();
    lost.exec_when_up("check", &["sh", "-c", "grep -q sleep /proc/[0-9]*/comm"]);
    let probe = [&["env", "CUDA_ENTRYPOINT_WARN="], &health[..]].concat();
    let (code, text) = lost.exec("check", &probe);
    assert!(code == Some(82) && text.contains("gpu-not-ready"), "{text}");
}

/// The binary from its own image, the service from one that knows nothing of it.
#[test]
fn the_binary_comes_from_an_init_container() {
    let dockerfile = format!(
        "FROM {}\nENTRYPOINT [\"/cuda-entrypoint\"]\n",
        Base::Scratch.image().name()
    );
    provide(&Image::build(&dockerfile, &[]).unwrap(), "cuda-entrypoint:latest");
    let dockerfile = format!(
        "FROM {}\nCOPY libcudart.so.12 /usr/local/lib/\nRUN ldconfig\n",
        Base::Debian12.image().name()
    );
    let cudart = [(
        "libcudart.so.12",
        crate::support::docker::Content::File(crate::support::cuda::cudart("12.4")),
    )];
    provide(&Image::build(&dockerfile, &cudart).unwrap(), "my-service:1.0");

    let pod = Play::of(manifest("install.yaml")).gpu(HEALTHY).start();
    pod.is_up();
    pod.exec_when_up("service", &["sh", "-c", "grep -q python3 /proc/1/comm"]);
    let logs = pod.logs("service");
    assert!(
        logs.contains("stack my-stack (…/stack.json)") && logs.contains("NVIDIA H200"),
        "{logs}"
    );
    let health = &[
        "/opt/cuda-entrypoint/cuda-entrypoint",
        "check",
        "--stage",
        "health",
    ];
    assert_eq!(pod.exec("service", health).0, Some(0));

    let pod = Play::of(manifest("install.yaml")).start();
    assert_eq!(pod.wait("service"), "82");
    assert!(
        pod.message("service").starts_with("driver-missing (exit 82): "),
        "{}",
        pod.message("service")
    );
}
