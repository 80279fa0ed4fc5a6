//! The shipped binary in Docker: on every kind of root file system, as PID 1, confined, stopped, and in Dockerfiles.

mod adoption;
mod pods;
mod stack;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::support::docker::{Base, BuildFailure, Content, Image, Run};
use crate::support::{cuda, docker};

/// What the service's image demands.
const STACK: &str = r#"{
  "schema": 1, "name": "docker-test", "cuda": {"driver": ">=12.4"}, "archs": "9.0", "env": {"FROM_MANIFEST": "yes"}
}"#;
const HEALTHY: &str = "{}";
const HANG: &str = r#"{"calls": {"cuInit": {"hang": true}}}"#;

/// The image of a service as the README shows it, made once for each base.
fn service(base: Base) -> &'static Image {
    static MADE: Mutex<Vec<(Base, &'static Image)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, image)) = made.iter().find(|(of, _)| *of == base) {
        return image;
    }
    let dockerfile = format!(
        "FROM {}\n\
         COPY root /\n\
         ENTRYPOINT [\"cuda-entrypoint\", \"run\", \"--\"]\n\
         CMD [\"cat\", \"/proc/1/cmdline\"]\n",
        base.image().name()
    );
    let context = [
        (
            "root/usr/local/bin/cuda-entrypoint",
            Content::File(docker::binary()),
        ),
        ("root/etc/cuda-entrypoint/stack.json", Content::text(STACK)),
    ];
    // The janitor removes it.
    let image: &'static Image = Box::leak(Box::new(Image::build(&dockerfile, &context).unwrap()));
    made.push((base, image));
    image
}

/// The service on Debian 12 with a healthy driver.
fn healthy() -> Run {
    Run::of(service(Base::Debian12)).driver(HEALTHY)
}

// ---- the same file everywhere

/// Starts without glibc, says that CUDA cannot, and becomes a service that needs no CUDA.
fn without_glibc(base: Base, loader: &str) {
    let image = base.image();
    let run = |words: &str| Run::of(image).command(words).finish();
    let version = run("/cuda-entrypoint --version").expect(0);
    // The commit of the build stands behind it.
    let named = format!("cuda-entrypoint {}", env!("CARGO_PKG_VERSION"));
    assert!(version.stdout.starts_with(&named), "{version:#?}");

    let check = run("/cuda-entrypoint check --stage device").expect(81);
    assert!(check.stdout.contains("[loader-missing]"), "{check:#?}");
    assert!(check.stdout.contains(loader), "{check:#?}");
    assert!(!check.stdout.contains("[driver-missing]"), "{check:#?}");

    // A scratch image has no other program: a copy of the binary is one that it does not know for itself.
    let service = if base == Base::Scratch {
        "/service --version"
    } else {
        "cat /proc/1/cmdline"
    };
    let started = Run::of(image)
        .mount_text(STACK, "/stack.json")
        .mount(&docker::binary(), "/service")
        .command(&format!(
            "/cuda-entrypoint run --stack /stack.json --gpu off --smoke off -- {service}"
        ))
        .finish()
        .expect(0)
        .says(&["docker-test"]);
    let expected = if base == Base::Scratch {
        version.stdout
    } else {
        service.replace(' ', "\0") + "\0"
    };
    assert_eq!(started.stdout, expected);
}

#[test]
fn base_scratch() {
    without_glibc(Base::Scratch, "/lib64/ld-linux-x86-64.so.2 does not exist");
}

#[test]
fn base_busybox_without_libc() {
    without_glibc(Base::Busybox, "/lib64/ld-linux-x86-64.so.2 does not exist");
}

#[test]
fn base_musl() {
    without_glibc(Base::Musl, "/lib64/ld-linux-x86-64.so.2 does not exist");
}

/// Alpine's gcompat gives musl's loader the name of glibc's: programs start, and NVIDIA's libraries never load.
#[test]
fn base_musl_in_the_name_of_glibc() {
    without_glibc(Base::MuslAsGlibc, "not glibc");
}

/// Loads what there is to load, misses the driver, and becomes the service where nobody asks for one.
fn with_glibc(base: Base) {
    let image = service(base);
    let version = Run::of(image)
        .options(["--entrypoint", "cuda-entrypoint"])
        .command("--version")
        .finish();
    assert!(version.expect(0).stdout.starts_with("cuda-entrypoint "));

    let check = Run::of(image)
        .options(["--entrypoint", "cuda-entrypoint"])
        .command("check --stage device")
        .finish()
        .expect(82);
    assert!(check.stdout.contains("[driver-missing]"), "{check:#?}");
    assert!(check.stdout.contains("docker run --gpus all"), "{check:#?}");
    assert!(!check.stdout.contains("[loader-missing]"), "{check:#?}");

    let started = Run::of(image)
        .env("CUDA_ENTRYPOINT_GPU", "off")
        .env("CUDA_ENTRYPOINT_SMOKE", "off")
        .finish()
        .expect(0);
    assert_eq!(started.stdout, "cat\0/proc/1/cmdline\0");
}

#[test]
fn base_debian_11() {
    with_glibc(Base::Debian11);
}

#[test]
fn base_debian_12() {
    with_glibc(Base::Debian12);
}

// ---- as PID 1 with a driver

/// The value of a field of /proc/PID/status.
#[track_caller]
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

/// With the driver mounted as the NVIDIA runtime mounts it, the service is PID 1 as if nothing had been before it.
fn becomes_pid_1(base: Base) {
    let run = || Run::of(service(base)).driver(HEALTHY);
    let plain = run().finish().expect(0).says(&["NVIDIA H200", "docker-test"]);
    assert_eq!(plain.stdout, "cat\0/proc/1/cmdline\0");
    assert_eq!(plain.stderr.lines().count(), 1, "{plain:#?}");

    let status = run().command("cat /proc/1/status").finish().expect(0).stdout;
    for (name, value) in [
        ("Name", "cat"),
        ("Pid", "1"),
        ("PPid", "0"),
        ("Threads", "1"),
        ("SigPnd", "0000000000000000"),
        ("ShdPnd", "0000000000000000"),
        ("SigBlk", "0000000000000000"),
        ("SigIgn", "0000000000000000"),
        ("SigCgt", "0000000000000000"),
    ] {
        assert_eq!(field(&status, name), value, "{name} in {status}");
    }

    // No child, no zombie, no descriptor: the shell's own words name every process, and ls has one for its folder.
    let processes = run().words(["sh", "-c", "echo /proc/[0-9]*"]).finish().expect(0);
    assert_eq!(processes.stdout, "/proc/1\n");
    let descriptors = run().command("ls /proc/self/fd").finish().expect(0);
    assert_eq!(descriptors.stdout, "0\n1\n2\n3\n");

    let given = run()
        .env("GIVEN", "by -e")
        .command("env")
        .finish()
        .expect(0)
        .stdout;
    for variable in ["FROM_MANIFEST=yes", "GIVEN=by -e", "FAKE_GPU_SCRIPT=/gpu.json"] {
        assert!(
            given.lines().any(|line| line == variable),
            "{variable} in {given}"
        );
    }
}

#[test]
fn pid_1_on_debian_11() {
    becomes_pid_1(Base::Debian11);
}

#[test]
fn pid_1_on_debian_12() {
    becomes_pid_1(Base::Debian12);
}

// ---- how containers are run

#[test]
fn confined_containers_pass() {
    let confinements: [&[&str]; 10] = [
        &["--read-only"],
        &["--user", "65534"],
        &["--cap-drop", "ALL"],
        &["--security-opt", "no-new-privileges"],
        &["--pids-limit", "8"],
        &["--memory", "64m"],
        &["--network", "none"],
        &["--tmpfs", "/tmp:noexec"],
        &["--ulimit", "nofile=32:32"],
        &["--workdir", "/var/empty"],
    ];
    for options in confinements {
        let run = healthy()
            .options(options.iter().copied())
            .command("echo served")
            .finish();
        let run = run.expect(0).says(&["NVIDIA H200"]);
        assert_eq!(run.stdout, "served\n", "{options:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{options:?}: {run:#?}");
    }
    let all = confinements.concat();
    let run = healthy()
        .options(all)
        .command("cat /proc/1/status")
        .finish()
        .expect(0)
        .says(&["NVIDIA H200"]);
    for (name, value) in [
        ("Uid", "65534\t65534\t65534\t65534"),
        ("CapEff", "0000000000000000"),
        ("NoNewPrivs", "1"),
    ] {
        assert_eq!(field(&run.stdout, name), value, "{run:#?}");
    }
}

/// The kernel ends the greediest process of the container, which is never PID 1.
#[test]
fn a_driver_that_takes_all_memory_is_ended_and_told() {
    let greedy = || {
        Run::of(service(Base::Debian12))
            .driver(r#"{"calls": {"cuInit": {"allocate": 600000000}}}"#)
            .options(["--memory", "64m", "--memory-swap", "64m"])
            .command("echo served")
    };
    let failed = greedy().finish().expect(82).says(&[
        "helper-crashed",
        "SIGKILL in cuInit",
        "raise the container's memory limit",
    ]);
    assert_eq!(failed.stdout, "");
    let warned = greedy().env("CUDA_ENTRYPOINT_MODE", "warn").finish().expect(0);
    assert_eq!(warned.says(&["SIGKILL in cuInit"]).stdout, "served\n");
}

/// Docker's own init as PID 1, and a terminal.
#[test]
fn not_pid_1_and_on_a_terminal() {
    let init = healthy()
        .options(["--init"])
        .command("cat /proc/1/comm")
        .finish()
        .expect(0);
    assert_eq!(init.stdout, "docker-init\n");

    // A terminal has one stream: what we say stands before what the service says.
    let terminal = healthy()
        .options(["--tty"])
        .words(["sh", "-c", "test -t 0 && test -t 1 && echo served"]);
    let terminal = terminal.finish().expect(0);
    assert!(terminal.stdout.contains("NVIDIA H200"), "{terminal:#?}");
    assert!(terminal.stdout.ends_with("served\r\n"), "{terminal:#?}");
}

#[test]
fn words_and_variables_of_docker_run() {
    // Words behind the image take the place of CMD, never of ENTRYPOINT.
    let other = healthy()
        .command("echo --mode off -- x")
        .finish()
        .expect(0)
        .says(&["NVIDIA H200"]);
    assert_eq!(other.stdout, "--mode off -- x\n");

    let bare = || Run::of(service(Base::Debian12)).command("echo served");
    let warn = bare().env("CUDA_ENTRYPOINT_MODE", "warn").finish().expect(0);
    assert_eq!(
        warn.says(&["driver-missing", "docker run --gpus all"]).stdout,
        "served\n"
    );
    let off = bare().env("CUDA_ENTRYPOINT_MODE", "off").finish().expect(0);
    assert_eq!(off.says(&["nothing is checked"]).stdout, "served\n");
    let optional = bare().env("CUDA_ENTRYPOINT_GPU", "optional").finish().expect(0);
    assert_eq!(optional.says(&["driver-missing"]).stdout, "served\n");
    bare()
        .env("CUDA_ENTRYPOINT_MOD", "off")
        .finish()
        .expect(82)
        .says(&["unknown variable CUDA_ENTRYPOINT_MOD", "CUDA_ENTRYPOINT_MODE"]);
}

/// One for each party who must act, as `docker run` and `docker inspect` report them.
#[test]
fn exit_codes() {
    let image = service(Base::Debian12);
    let no_command = [
        "FROM ".to_string() + image.name(),
        "ENTRYPOINT [\"cuda-entrypoint\", \"run\", \"--\"]".into(),
    ];
    // An ENTRYPOINT of its own forgets the CMD of the image below.
    let no_command = Image::build(&no_command.join("\n"), &[]).unwrap();
    Run::of(&no_command)
        .driver(HEALTHY)
        .finish()
        .expect(64)
        .says(&["no service command", "CMD"]);

    let served = |run: Run| run.command("echo served");
    let wrong = served(healthy()).env("CUDA_ENTRYPOINT_GPU", "maybe").finish();
    wrong.expect(78).says(&["CUDA_ENTRYPOINT_GPU", "maybe"]);
    let broken = served(healthy())
        .mount_text("{\n  \"schema\": 1,\n", "/etc/cuda-entrypoint/stack.json")
        .finish();
    broken.expect(78).says(&["/etc/cuda-entrypoint/stack.json"]);

    served(Run::of(image))
        .finish()
        .expect(82)
        .says(&["driver-missing", "docker run --gpus all"]);
    let old = r#"{"devices": [{"name": "Tesla V100", "cc": "7.0"}]}"#;
    served(Run::of(image).driver(old))
        .finish()
        .expect(83)
        .says(&["arch-unsupported", "Tesla V100", "9.0"]);
    let late = served(Run::of(image).driver(HANG))
        .env("CUDA_ENTRYPOINT_DEVICE_TIMEOUT", "1s")
        .finish();
    late.expect(85).says(&["helper-timeout", "cuInit"]);

    for (command, code, words) in [
        ("/etc/passwd", 126, "may not be executed"),
        ("/etc", 126, "is a folder"),
        ("serve", 127, "`serve` is in no folder of PATH"),
        ("/srv/serve", 127, "/srv/serve does not exist"),
    ] {
        healthy().command(command).finish().expect(code).says(&[words]);
    }
    healthy().words(["sh", "-c", "exit 42"]).finish().expect(42);
}

/// The verdict for Kubernetes, of which Docker knows nothing: a file that is mounted, and one that cannot be written.
#[test]
fn termination_message() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("termination-log");
    std::fs::write(&log, "").unwrap();
    let volume = format!("{}:/dev/termination-log", log.display());
    let run = |options: &[&str]| {
        let run = Run::of(service(Base::Debian12)).options(["--volume", &volume]);
        run.options(options.iter().copied())
            .finish()
            .expect(82)
            .says(&["driver-missing"])
    };
    run(&["--read-only"]);
    let message = std::fs::read_to_string(&log).unwrap();
    assert!(
        message.contains("driver-missing") && message.contains("hint: "),
        "{message:?}"
    );
    assert!(message.len() <= 4096, "{message:?}");

    std::fs::write(&log, "untouched").unwrap();
    run(&["--user", "65534", "--cap-drop", "ALL"]);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "untouched");

    // An init container's verdict is its own. What somebody has checked beside a service is no reason why that died.
    let check = healthy()
        .command("cuda-entrypoint check")
        .options(["--volume", &volume]);
    check.finish().expect(0);
    let passed = std::fs::read_to_string(&log).unwrap();
    assert!(passed.starts_with("pass"), "{passed:?}");
    std::fs::write(&log, "untouched").unwrap();
    let service = healthy()
        .options(["--volume", &volume])
        .command("sleep 600")
        .start();
    service.wait_for("sleep 600");
    let (code, text) = service.exec("cuda-entrypoint check");
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "untouched");
}

// ---- how containers end

#[test]
fn stop_during_the_checks() {
    let hanging = || {
        let container = Run::of(service(Base::Debian12)).driver(HANG).start();
        container.wait_for("cuda-helper driver");
        container
    };
    // `docker stop` waits 3 seconds here and then kills, which would be 137.
    hanging()
        .stop()
        .says(&["ended by SIGTERM during the checks"])
        .code_is(143);
    hanging().kill("TERM").code_is(143);
    hanging().kill("INT").code_is(130);
    hanging().kill("HUP").code_is(129);
    hanging().kill("QUIT").code_is(131);
    hanging().kill("KILL").code_is(137);
}

#[test]
fn stop_during_the_checks_behind_docker_s_init() {
    let container = Run::of(service(Base::Debian12))
        .driver(HANG)
        .options(["--init"])
        .start();
    container.wait_for("cuda-helper driver");
    container
        .stop()
        .says(&["ended by SIGTERM during the checks"])
        .code_is(143);
}

#[test]
fn stop_during_the_service() {
    // A service that handles SIGTERM gets it as PID 1.
    let handling = healthy().words([
        "sh",
        "-c",
        "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done",
    ]);
    let handling = handling.start();
    handling.wait_for("sleep");
    let handling = handling.stop();
    assert_eq!(handling.stdout, "up\nbye\n");
    handling.code_is(7);

    // One that does not is PID 1's own problem, which Docker's init mends.
    let sleeping = healthy().options(["--init"]).command("sleep 600").start();
    sleeping.wait_for("sleep 600");
    sleeping.stop().code_is(143);
}

/// What a Kubernetes exec probe and Docker's HEALTHCHECK run inside the container of a running service.
#[test]
fn health_of_a_running_service() {
    let healthy = healthy().command("sleep 600").start();
    healthy.wait_for("sleep 600");
    let (code, text) = healthy.exec("cuda-entrypoint check --stage health");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("pass: ") && text.contains("healthy"), "{text}");

    // `systemctl daemon-reload` on the host may take the devices away from a container that runs: NVML's 999.
    let lost = r#"{"calls": {"nvmlDeviceGetCount_v2": {"returns": 999}}}"#;
    let lost = Run::of(service(Base::Debian12))
        .driver(lost)
        .command("sleep 600")
        .start();
    lost.wait_for("sleep 600");
    let (code, text) = lost.exec("cuda-entrypoint check --stage health");
    assert_eq!(code, Some(82), "{text}");
    assert!(text.contains("gpu-not-ready"), "{text}");
}

// ---- in Dockerfiles

/// A Dockerfile on `base` that checks at its end, as the README has it.
fn checked_build(
    base: Base,
    steps: &str,
    stack: &str,
    context: &[(&str, Content)],
) -> Result<Image, BuildFailure> {
    let dockerfile = format!(
        "FROM {}\n\
         COPY root /\n\
         {steps}\n\
         RUN cuda-entrypoint check --stage image\n",
        base.image().name()
    );
    let mut whole = vec![
        (
            "root/usr/local/bin/cuda-entrypoint",
            Content::File(docker::binary()),
        ),
        ("root/etc/cuda-entrypoint/stack.json", Content::text(stack)),
    ];
    whole.extend(context.iter().cloned());
    Image::build(&dockerfile, &whole)
}

#[track_caller]
fn fails_with_81(build: Result<Image, BuildFailure>, words: &[&str]) {
    let failure = build.expect_err("the build went through");
    assert_eq!(failure.code, Some(81), "{}", failure.text);
    for each in words {
        assert!(failure.text.contains(each), "no {each:?} in {}", failure.text);
    }
}

#[test]
fn image_stage_fails_the_build() {
    let absent = r#"{"schema": 1, "name": "t", "packages": {"torch": "==2.5.0+cu124"}}"#;
    let build = checked_build(Base::Debian12, "", absent, &[]);
    fails_with_81(
        build,
        &["package-missing", "torch", "returned a non-zero code: 81"],
    );

    let newer = r#"{"schema": 1, "name": "t", "python": ">=3.10"}"#;
    checked_build(Base::Debian12, "", newer, &[]).unwrap();
    fails_with_81(
        checked_build(Base::Debian11, "", newer, &[]),
        &["python-version", "3.9"],
    );
    fails_with_81(
        checked_build(Base::Busybox, "RUN true", newer, &[]),
        &["python-missing"],
    );
}

const CUDA_124: &str = r#"{"schema": 1, "name": "t", "cuda": {"runtime": "12.4", "nvrtc": "12.4"}}"#;

/// As in images of NVIDIA: a toolkit's folder that the loader knows.
fn system_cuda(base: Base, version: &str) -> Result<Image, BuildFailure> {
    let steps = "RUN echo /usr/local/cuda/lib64 > /etc/ld.so.conf.d/cuda.conf && ldconfig";
    let libraries = [
        (
            "root/usr/local/cuda/lib64/libcudart.so.12",
            Content::File(cuda::cudart(version)),
        ),
        (
            "root/usr/local/cuda/lib64/libnvrtc.so.12",
            Content::File(cuda::nvrtc(version)),
        ),
    ];
    checked_build(base, steps, CUDA_124, &libraries)
}

/// The libraries of an image are those of CUDA 12.4, for a manifest that says so, and no others.
fn holds_cuda_124(image: &Image, service: &str, served: &str) {
    let run = Run::of(image)
        .command(&format!("cuda-entrypoint run --gpu off -- {service}"))
        .finish();
    assert_eq!(
        run.expect(0).says(&["CUDA runtime 12.4", "nvrtc 12.4"]).stdout,
        served
    );
    let other = Run::of(image).mount_text(&CUDA_124.replace("12.4", "12.1"), "/other.json");
    let other = other
        .command("cuda-entrypoint check --stage image --stack /other.json")
        .finish()
        .expect(81);
    for each in ["[cudart-version]", "[nvrtc-version]", "12.4", "12.1"] {
        assert!(other.stdout.contains(each), "no {each:?} in {other:#?}");
    }
}

#[test]
fn image_stage_asks_the_system_s_cuda_libraries() {
    for base in [Base::Debian11, Base::Debian12] {
        holds_cuda_124(&system_cuda(base, "12.4").unwrap(), "echo served", "served\n");
    }
    let older = system_cuda(Base::Debian12, "12.1");
    fails_with_81(older, &["cudart-version", "nvrtc-version", "12.1"]);
    let none = checked_build(Base::Debian12, "", CUDA_124, &[]);
    fails_with_81(none, &["library-missing", "libcudart.so.12", "libnvrtc.so.12"]);
}

/// As pip lays out NVIDIA's wheels for a Debian interpreter.
fn wheels(base: Base, version: &str, release: &str) -> Result<Image, BuildFailure> {
    let python = if base == Base::Debian11 {
        "python3.9"
    } else {
        "python3.11"
    };
    let at = |path: &str| format!("root/usr/local/lib/{python}/dist-packages/{path}");
    let metadata = |name: &str| {
        Content::text(format!(
            "Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n"
        ))
    };
    let files = [
        (
            at("nvidia/cuda_runtime/lib/libcudart.so.12"),
            Content::File(cuda::cudart(version)),
        ),
        (
            at("nvidia/cuda_nvrtc/lib/libnvrtc.so.12"),
            Content::File(cuda::nvrtc(version)),
        ),
        (
            at(&format!("nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.{version}")),
            Content::File(cuda::nvrtc_builtins(version)),
        ),
        (
            at(&format!("nvidia_cuda_runtime_cu12-{release}.dist-info/METADATA")),
            metadata("nvidia-cuda-runtime-cu12"),
        ),
        (
            at(&format!("nvidia_cuda_nvrtc_cu12-{release}.dist-info/METADATA")),
            metadata("nvidia-cuda-nvrtc-cu12"),
        ),
    ];
    let files = files
        .each_ref()
        .map(|(path, content)| (path.as_str(), content.clone()));
    let stack = r#"{
      "schema": 1, "name": "t", "cuda": {"runtime": "12.4", "nvrtc": "12.4"}, "python": ">=3.9",
      "packages": {"nvidia-cuda-runtime-cu12": "==12.4.127", "nvidia-cuda-nvrtc-cu12": "==12.4.127"}
    }"#;
    checked_build(base, "", stack, &files)
}

#[test]
fn image_stage_asks_the_wheels_cuda_libraries() {
    for base in [Base::Debian11, Base::Debian12] {
        holds_cuda_124(
            &wheels(base, "12.4", "12.4.127").unwrap(),
            "python3 -c print(1)",
            "1\n",
        );
    }
    let words = ["package-version", "12.1.105", "cudart-version", "nvrtc-version"];
    fails_with_81(wheels(Base::Debian11, "12.1", "12.1.105"), &words);
    // Metadata may say one thing and the library another: the library is right.
    let words = ["cudart-version", "nvrtc-version", "12.1"];
    fails_with_81(wheels(Base::Debian12, "12.1", "12.4.127"), &words);
}

/// docker/Dockerfile builds the binary from the source tree, and other images take it from there.
#[test]
fn a_dockerfile_builds_the_binary() {
    let rust = docker::rust_image();
    let base = format!("BASE={}", rust.name());
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = tree.join("docker/Dockerfile");
    let options = ["--file", file.to_str().unwrap(), "--build-arg", &base];
    let image = Image::build_folder(tree, &options).unwrap_or_else(|failure| panic!("{}", failure.text));
    assert_eq!(image.layers(), 1);
    let version = Run::of(&image).command("--version").finish().expect(0);
    // The commit of the build stands behind it.
    let named = format!("cuda-entrypoint {}", env!("CARGO_PKG_VERSION"));
    assert!(version.stdout.starts_with(&named), "{version:#?}");

    let dockerfile = format!(
        "FROM {}\nCOPY --from={} /cuda-entrypoint /usr/local/bin/cuda-entrypoint\nRUN cuda-entrypoint --version\n",
        Base::Debian11.image().name(),
        image.name()
    );
    let taken = Image::build(&dockerfile, &[]).unwrap();
    // Its helper runs with a glibc older than that of the image it was built in.
    let check = Run::of(&taken)
        .driver(HEALTHY)
        .command("cuda-entrypoint check --stage device")
        .finish();
    assert!(check.expect(0).stdout.contains("NVIDIA H200"));
}
