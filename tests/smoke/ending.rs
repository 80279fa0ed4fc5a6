//! Signals in the middle of a smoke, as PID 1 and not: 128+N, and nothing is left.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::needs::Need;
use crate::support::run::{ENTRYPOINT, Run, Running, children, eventually, kill};
use crate::support::scene::Scene;

/// Scenes that come to a halt, which they tell by the file `here`.
fn halting() -> Vec<(&'static str, Scene)> {
    let shell = |script: &str| json!([{"name": "model", "argv": ["sh", "-c", script]}]);
    vec![
        (
            "an import",
            Scene::acting(r#"{"import spconv": {"mark": "{dir}/here", "hang": "sleep"}}"#),
        ),
        (
            "an import that holds the lock",
            Scene::acting(r#"{"import spconv": {"mark": "{dir}/here", "hang": "hold"}}"#),
        ),
        (
            "a forward",
            Scene::acting(
                r#"{"forward float32": {"daemon": "setsid", "mark": "{dir}/here", "hang": "sleep"}}"#,
            ),
        ),
        ("a command", Scene::new().smoke(shell("touch here; sleep 3600"))),
        (
            "a command that does not listen",
            Scene::new().smoke(shell("trap '' TERM INT HUP QUIT; touch here; sleep 3600")),
        ),
    ]
}

#[track_caller]
fn ended(scene: &Scene, what: &str, run: &Run, signal: Signal, since: Instant) {
    let took = since.elapsed();
    // `docker stop` gives ten seconds.
    assert!(took < Duration::from_secs(8), "{what}: {took:?}");
    run.exits(128 + signal as i32)
        .prints("")
        .says("during the checks");
    let line = format!("signal (exit {}): ended by {signal}", 128 + signal as i32);
    assert!(
        scene.last_words().starts_with(&line),
        "{what}: {}",
        scene.last_words()
    );
    scene.world.assert_nothing_left();
}

#[test]
fn a_signal_ends_the_smoke_and_everything_that_it_started() {
    for verb in ["run", "check"] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            for (what, scene) in halting() {
                let mut command = scene.command(verb, &[]);
                let running = Running::start(command.args(["--", "echo", "started"]));
                assert!(eventually(|| scene.world.path("here").exists()), "{what}");
                let since = Instant::now();
                running.kill(signal);
                ended(&scene, what, &running.finish(), signal, since);
            }
        }
    }
}

#[test]
fn a_smoke_goes_with_its_parent() {
    // Killed, it cannot end anything itself.
    for (what, scene) in halting() {
        if what.contains("forward") || what.contains("command") {
            continue; // what they start themselves knows nothing of us
        }
        let running = Running::start(scene.command("run", &[]).args(["--", "echo", "started"]));
        assert!(eventually(|| scene.world.path("here").exists()), "{what}");
        running.kill(Signal::SIGKILL);
        assert_eq!(running.finish().signal(), Some(9));
        scene.world.assert_nothing_left();
    }
}

/// `unshare` with the entrypoint as PID 1 of a namespace of its own.
fn as_pid_1(scene: &Scene) -> Command {
    let mut command = scene.world.command("unshare");
    command.args(["--fork", "--pid", "--mount-proc", "--kill-child", ENTRYPOINT]);
    let inner = scene.command("run", &[]);
    command.args(inner.get_args());
    scene.equip(&mut command);
    command
}

#[test]
fn as_pid_1_no_signal_is_lost_during_the_smoke() {
    Need::PidNamespace.demand();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for (what, scene) in halting() {
            let running = Running::start(as_pid_1(&scene).args(["--", "echo", "started"]));
            assert!(eventually(|| scene.world.path("here").exists()), "{what}");
            let init = running.child_that(|pid| !children(pid).is_empty());
            let since = Instant::now();
            kill(init, signal);
            ended(&scene, what, &running.finish(), signal, since);
        }
    }
}

#[test]
fn as_pid_1_it_becomes_the_service_and_nothing_else_is_there() {
    Need::PidNamespace.demand();
    for script in [
        "{}",
        r#"{"import torch": {"daemon": "setsid"}, "forward float32": {"daemon": "group"}}"#,
        r#"{"import torch": {"daemon": "setsid", "raise": "ImportError"}}"#,
    ] {
        let scene = Scene::acting(script).var("CUDA_ENTRYPOINT_WARN", "smoke-import");
        let run = Run::of(as_pid_1(&scene).args(["--", "sh", "-c", "echo $$; cd /proc; echo [0-9]*"]));
        run.exits(0).prints("1\n1\n").says("NVIDIA H200");
    }
}

#[test]
fn a_signal_while_it_waits_to_smoke_again_is_not_slept_over() {
    let scene = Scene::acting(
        r#"{"init": {"mark": "{dir}/here", "raise": "RuntimeError", "message": "CUDA out of memory"}}"#,
    );
    let running = Running::start(
        scene
            .command("run", &["--wait", "5m"])
            .args(["--", "echo", "started"]),
    );
    // The smoke is over when no Python is left.
    let idle = || scene.world.path("here").exists() && children(running.pid()).is_empty();
    assert!(eventually(idle));
    let since = Instant::now();
    running.kill(Signal::SIGTERM);
    ended(&scene, "the wait", &running.finish(), Signal::SIGTERM, since);
}

#[test]
fn a_signal_at_any_moment_ends_either_us_or_the_service() {
    let scene = Scene::new();
    for step in 0..40 {
        let mut command = scene.command("run", &["--log", "error"]);
        let running = Running::start(command.args(["--", "sleep", "600"]));
        std::thread::sleep(Duration::from_millis(step * 4));
        running.kill(Signal::SIGTERM);
        let run = running.finish();
        let ended = matches!((run.code(), run.signal()), (Some(143), None) | (None, Some(15)));
        assert!(ended, "after step {step}: {} {}", run.status, run.stderr);
        scene.world.assert_nothing_left();
        let _ = fs::remove_file(scene.world.path("termination"));
    }
}
