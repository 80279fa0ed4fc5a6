//! The shipped pods, played by podman with the image of docker/Dockerfile.gpu.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{HEALTHY, field, stack};
use crate::support::docker::{self, Base, Content, Image, Run};
use crate::support::podman::{Play, Pod, manifest, play_as_shipped, pod_of, provide};

/// The documents of a manifest. The first call gives podman the image that they name.
fn documents(name: &str) -> Vec<Value> {
    static PROVIDED: OnceLock<()> = OnceLock::new();
    PROVIDED.get_or_init(|| provide(stack::light(), "point-cloud-service:cu124"));
    manifest(name)
}

fn play(name: &str) -> Play {
    Play::of(documents(name))
}

/// The pod that a Job or a DaemonSet makes, which podman does not play by themselves, with what stands before it.
fn play_template(name: &str) -> Play {
    let mut documents = documents(name);
    let last = documents.last_mut().unwrap();
    *last = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": pod_of(last).take()});
    Play::of(documents)
}

/// The status of a container's process with this name, and that of PID 1 behind it.
#[track_caller]
fn status_of(pod: &Pod, container: &str, comm: &str) -> String {
    let script = "for each in /proc/[0-9]*; do grep -qx \"$0\" $each/comm && cat $each/status; done; cat /proc/1/status";
    let (code, status) = pod.exec(container, &["sh", "-c", script, comm]);
    assert_eq!(code, Some(0), "{status}");
    status
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
    assert_eq!(pod.message("service"), "");
    serves_confined(pod);
}

#[track_caller]
fn serves_confined(pod: &Pod) {
    assert_eq!(pod.exec_when_up("service", &["python", "-c", FETCH]), "200\n");
    let logs = pod.logs("service");
    assert!(logs.contains("cuda-entrypoint: ok: "), "{logs}");

    let status = status_of(pod, "service", "python");
    for (name, value) in [
        ("Name", "python"),
        ("PPid", "1"),
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

/// The file itself, which nothing has been changed in. Its image has the driver in it, as no image should.
#[test]
fn the_pod_plays_as_it_is_shipped() {
    documents("pod.yaml");
    let folder = docker::LIBRARY_FOLDER;
    let dockerfile = format!(
        "FROM {}\nUSER root\nCOPY libcuda.so.1 libnvidia-ml.so.1 {folder}/\nENV FAKE_GPU_SCRIPT=/gpu.json\n\
         COPY gpu.json /gpu.json\nUSER 10001:10001\n",
        stack::light().name()
    );
    let driver = docker::fake_driver();
    let context = [
        ("libcuda.so.1", Content::File(driver.join("libcuda.so"))),
        ("libnvidia-ml.so.1", Content::File(driver.join("libnvidia_ml.so"))),
        ("gpu.json", Content::text(HEALTHY)),
    ];
    let image = Image::build(&dockerfile, &context).unwrap();
    let pod = play_as_shipped(
        "pod.yaml",
        "point-cloud-service",
        &image,
        "point-cloud-service:cu124",
    );
    pod.is_up();
    serves_confined(&pod);
    // podman removes an init container that went well; what it has proven is there.
    let logs = pod.logs("service");
    assert!(logs.contains("image and GPUs as proven"), "{logs}");
    // The entrypoint as PID 1 passes the signal on to the stand-in, which ends by it.
    assert_eq!(pod.stop("service"), "143");
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

/// The image of docker/Dockerfile.validator, whose base has a shell and glibc.
fn validator() -> &'static Image {
    static BUILT: OnceLock<Image> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = |path: &str| Content::text(std::fs::read_to_string(root.join(path)).unwrap());
        let entrypoint = format!("FROM {}\n", Base::Scratch.image().name());
        let entrypoint = Image::build(&entrypoint, &[]).unwrap();
        let dockerfile = std::fs::read_to_string(root.join("docker/Dockerfile.validator"))
            .unwrap()
            .replace(
                "ENTRYPOINT_IMAGE=cuda-entrypoint",
                &format!("ENTRYPOINT_IMAGE={}", entrypoint.name()),
            )
            .replace(
                "BASE=docker.io/library/debian:12-slim",
                &format!("BASE={}", Base::Debian12.image().name()),
            );
        let files = [
            "gpu-node-check",
            "health_event.proto",
            "node-problem-detector.json",
            "stack.json",
        ];
        let context = files.map(|name| format!("docker/validator/{name}"));
        let context: Vec<(&str, Content)> = context
            .iter()
            .map(|path| {
                let content = match path.ends_with("check") {
                    true => Content::File(root.join(path)),
                    false => text(path),
                };
                (path.as_str(), content)
            })
            .collect();
        Image::build(&dockerfile, &context).unwrap()
    })
}

/// The lines that the README has for the image of another program, here on Debian.
#[test]
fn the_plug_in_goes_into_another_image() {
    let readme = include_str!("../../docker/kubernetes/README.md");
    let (_, dockerfile) = readme.split_once("```dockerfile\nARG BASE\n").unwrap();
    let (dockerfile, _) = dockerfile.split_once("```").unwrap();
    let dockerfile = dockerfile
        .replace("${BASE}", Base::Debian12.image().name())
        .replace("cuda-entrypoint-validator", validator().name());
    let image = Image::build(&dockerfile, &[]).unwrap_or_else(|failure| panic!("{}", failure.text));
    let config = Run::of(&image)
        .command("cat /config/cuda-entrypoint.json")
        .finish()
        .expect(0);
    let config: Value = serde_json::from_str(&config.stdout).unwrap();
    for rule in config["rules"].as_array().unwrap() {
        let args: Vec<&str> = rule["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|arg| arg.as_str().unwrap())
            .collect();
        let words = [&[rule["path"].as_str().unwrap()], &args[..]].concat();
        let run = |run: Run, code| run.words(words.iter().copied()).finish().expect(code).stdout;
        let fit = run(Run::of(&image).driver(HEALTHY), 0);
        assert!(fit.starts_with("pass: stack gpu-node "), "{fit}");
        let bare = run(Run::of(&image), 1);
        assert!(
            bare.starts_with("driver-missing") || bare.starts_with("nvml-missing"),
            "{bare}"
        );
        assert!(
            bare.len()
                <= usize::try_from(config["pluginConfig"]["max_output_length"].as_u64().unwrap()).unwrap()
        );
    }
}

fn play_validator() -> Play {
    static PROVIDED: OnceLock<()> = OnceLock::new();
    PROVIDED.get_or_init(|| provide(validator(), "cuda-entrypoint-validator:latest"));
    play_template("daemonset.yaml")
}

/// One JSON line for each run, and readiness by NVML.
#[test]
fn the_node_check_stays_and_watches() {
    let health = &["gpu-node-check", "--stage", "health"];
    let fit = play_validator().gpu(HEALTHY).start();
    fit.is_up();
    fit.exec_when_up("check", &["sh", "-c", "grep -q sleep /proc/[0-9]*/comm"]);
    assert_eq!(fit.exec("check", health).0, Some(0));
    let line: Value = serde_json::from_str(&fit.logs("check")).unwrap();
    assert_eq!(
        (&line["verdict"], &line["stack"]["name"]),
        (&json!("pass"), &json!("gpu-node"))
    );
    assert_eq!(fit.stop("check"), "0");

    let lost = r#"{"calls": {"nvmlDeviceGetCount_v2": {"returns": 999}}}"#;
    let lost = play_validator().gpu(lost).start();
    lost.exec_when_up("check", &["sh", "-c", "grep -q sleep /proc/[0-9]*/comm"]);
    let (code, text) = lost.exec("check", health);
    assert!(code == Some(1) && text.contains("gpu-not-ready"), "{text}");

    // A mode that lets services start hides nothing here.
    let bare = play_validator().env("CUDA_ENTRYPOINT_MODE", "off").start();
    bare.exec_when_up("check", &["sh", "-c", "grep -q sleep /proc/[0-9]*/comm"]);
    let line: Value = serde_json::from_str(&bare.logs("check")).unwrap();
    assert_eq!(
        (&line["verdict"], &line["exit_code"]),
        (&json!("fail"), &json!(82))
    );
}

// ---- what other clusters do to the same image

/// GKE mounts the driver where no loader looks, and its component says so to the loader.
#[test]
fn the_driver_of_gke_is_found_by_its_variable() {
    let folder = "/usr/local/nvidia/lib64";
    let driver = docker::fake_driver();
    let run = || {
        Run::of(stack::light())
            .mount(&driver.join("libcuda.so"), &format!("{folder}/libcuda.so.1"))
            .mount(
                &driver.join("libnvidia_ml.so"),
                &format!("{folder}/libnvidia-ml.so.1"),
            )
            .mount_text(HEALTHY, "/gpu.json")
            .env("FAKE_GPU_SCRIPT", "/gpu.json")
            .words(["python", "-c", "print('served')"])
    };
    run().finish().expect(82).says(&["driver-missing", folder]);
    let component = include_str!("../../docker/kubernetes/components/gke/kustomization.yaml");
    let (_, value) = component.split_once("name: LD_LIBRARY_PATH, value: \"").unwrap();
    let (value, _) = value.split_once('"').unwrap();
    let served = run().env("LD_LIBRARY_PATH", value).finish().expect(0);
    assert_eq!(served.says(&["NVIDIA H200"]).stdout, "served\n");
}

/// OpenShift's restricted-v2 gives a number from the namespace's range, which no file of the image knows, in group 0.
#[test]
fn a_user_of_openshift_needs_no_entry_in_the_image() {
    let run = Run::of(stack::light())
        .driver(HEALTHY)
        .options([
            "--user",
            "1000680000:0",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--tmpfs",
            "/tmp",
        ])
        .options(["--security-opt", "no-new-privileges"])
        .env("HOME", "/tmp")
        .env("CUDA_ENTRYPOINT_RECEIPT", "/tmp/receipt.json")
        .words(["sh", "-c", "id -u && test -s /tmp/receipt.json"]);
    assert_eq!(run.finish().expect(0).stdout, "1000680000\n");
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
        Content::File(crate::support::cuda::cudart("12.4")),
    )];
    provide(&Image::build(&dockerfile, &cudart).unwrap(), "my-service:1.0");

    let pod = Play::of(manifest("install.yaml")).gpu(HEALTHY).start();
    pod.is_up();
    pod.exec_when_up("service", &["sh", "-c", "grep -q python3 /proc/[0-9]*/comm"]);
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
