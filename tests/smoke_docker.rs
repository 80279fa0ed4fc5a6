//! The smoke of the shipped binary in Docker: as PID 1, stopped in the middle, and short of memory.

use std::sync::OnceLock;

use crate::support::docker::{Image, Run, Running};
use crate::support::smoke_image;

const STACK: &str = r#"{
  "schema": 1, "name": "docker-smoke", "cuda": {"driver": ">=12.4"},
  "env": {"SPCONV_DISABLE_JIT": "1", "CUMM_DISABLE_JIT": "1"},
  "smoke": ["torch", "spconv", {"name": "model", "argv": ["python3", "-c", "import torch"], "gpu": true}]
}"#;

/// Debian with Python, the packages that act out a script, and a service that is Python.
fn service() -> &'static Image {
    static MADE: OnceLock<&Image> = OnceLock::new();
    MADE.get_or_init(|| {
        let image = smoke_image::build(STACK, &[], r#"["python3", "-c", "print('served')"]"#);
        // The janitor removes it.
        Box::leak(Box::new(image))
    })
}

fn smoking(script: &str) -> Run {
    Run::of(service()).driver("{}").env("FAKE_TORCH_SCRIPT", script)
}

#[test]
fn the_service_is_pid_1_after_the_smoke() {
    let served = smoking("{}")
        .finish()
        .expect(0)
        .says(&["torch OK, spconv forward OK, model OK", "docker-smoke"]);
    assert_eq!(served.stdout, "served\n");
    // Nothing is left of it, whatever the packages started.
    let script = r#"{"import torch": {"daemon": "setsid"}, "forward float32": {"daemon": "group"}}"#;
    for options in [
        &[][..],
        &["--user", "65534", "--read-only", "--cap-drop", "ALL"],
        &["--pids-limit", "16"],
    ] {
        let alone = smoking(script)
            .options(options.iter().copied())
            .words(["sh", "-c", "echo $$; echo /proc/[0-9]*; ls /proc/self/fd"])
            .finish()
            .expect(0);
        assert_eq!(alone.stdout, "1\n/proc/1\n0\n1\n2\n3\n", "{alone:#?}");
    }
}

#[test]
fn failures_have_their_codes() {
    for (script, code, says) in [
        (
            r#"{"import spconv": {"raise": "ImportError", "message": "undefined symbol"}}"#,
            84,
            "smoke-import",
        ),
        (r#"{"forward float32": {"difference": 0.5}}"#, 84, "smoke-wrong"),
        (
            r#"{"init": {"raise": "RuntimeError", "message": "CUDA out of memory"}}"#,
            82,
            "smoke-device",
        ),
    ] {
        let run = smoking(script)
            .finish()
            .expect(code)
            .says(&[says, "not starting"]);
        assert_eq!(run.stdout, "");
    }
    let hangs = smoking(r#"{"import spconv": {"hang": "hold"}}"#).env("CUDA_ENTRYPOINT_SMOKE_TIMEOUT", "1s");
    hangs
        .finish()
        .expect(85)
        .says(&["smoke-timeout", "import spconv.pytorch"]);
    let skipped = smoking(r#"{"import torch": {"hang": "sleep"}}"#)
        .env("CUDA_ENTRYPOINT_SMOKE", "off")
        .command("echo served");
    assert_eq!(skipped.finish().expect(0).stdout, "served\n");
}

/// The cgroup counts threads as well.
#[test]
fn however_small_the_limit_on_processes_a_hand_off_ends_with_a_proof_or_a_sentence() {
    let mut handed = Vec::new();
    for limit in [1, 2, 3, 4, 6, 10] {
        for (script, passes) in [
            ("{}", true),
            (r#"{"forward float32": {"difference": 0.5}}"#, false),
        ] {
            let run = smoking(script)
                .env("CUDA_ENTRYPOINT_SMOKE", "handoff")
                .options(["--pids-limit", &limit.to_string()])
                .finish();
            let separately = run
                .stderr
                .contains("no hand-off, in a process of its own instead");
            match run.code {
                0 if passes => {
                    assert_eq!(run.stdout, "served\n", "{limit}: {run:#?}");
                    assert!(run.stderr.contains("spconv forward OK"), "{limit}: {run:#?}");
                    if !separately {
                        handed.push(limit);
                    }
                }
                84 if !passes => assert!(run.stderr.contains("smoke-wrong"), "{limit}: {run:#?}"),
                82 if limit < 3 => {
                    assert!(
                        run.stderr.contains("raise the limit on processes"),
                        "{limit}: {run:#?}"
                    );
                }
                other => panic!("{limit}: {other}: {run:#?}"),
            }
            assert!(run.code == 0 || run.stdout.is_empty(), "{limit}: {run:#?}");
            assert!(!run.stderr.contains("Traceback"), "{limit}: {run:#?}");
        }
    }
    assert!(handed.contains(&10), "{handed:?}");
}

/// Runs until the packages have come to the place where they hang.
#[track_caller]
fn until_it_hangs(run: Run) -> Running {
    let running = run.options(["--tmpfs", "/run/here"]).start();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while running.exec("test -e /run/here/it").0 != Some(0) {
        assert!(std::time::Instant::now() < until, "{:?}", running.stop());
    }
    running
}

/// `stop` leaves it 3 s of its usual 10, after which Docker kills and the code is 137.
#[test]
fn docker_stop_ends_a_smoke_at_once() {
    for place in ["import spconv", "forward float32"] {
        for (hang, options) in [("sleep", &[][..]), ("hold", &[]), ("sleep", &["--init"])] {
            let script =
                format!(r#"{{"{place}": {{"mark": "/run/here/it", "daemon": "setsid", "hang": "{hang}"}}}}"#);
            let stopped = until_it_hangs(smoking(&script).options(options.iter().copied())).stop();
            stopped.code_is(143);
            assert!(
                stopped.stderr.contains("ended by SIGTERM during the checks"),
                "{stopped:#?}"
            );
            assert_eq!(stopped.stdout, "");
        }
    }
    let script = r#"{"forward float16": {"mark": "/run/here/it", "hang": "sleep"}}"#;
    until_it_hangs(smoking(script)).kill("INT").code_is(130);
}

#[test]
fn a_container_that_is_short_of_memory_says_so() {
    let greedy = smoking(r#"{"import torch": {"allocate": 600000000}}"#);
    let run = greedy
        .options(["--memory", "96m", "--memory-swap", "96m"])
        .finish()
        .expect(82);
    let run = run.says(&[
        "smoke-device",
        "SIGKILL in import torch",
        "raise the container's memory limit",
    ]);
    assert_eq!(run.stdout, "");
}
