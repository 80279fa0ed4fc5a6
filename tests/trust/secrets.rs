//! What the environment and the service's arguments hold is told nowhere: on no stream, in no report, log or receipt.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::run::{Run, Running};
use crate::support::scene::Scene;

/// In every secret.
const MARK: &str = "Zq8xNeverTold";

/// Variables as they are met, some of which look like those whose values count.
const NAMES: [&str; 33] = [
    "PASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
    "NGC_API_KEY",
    "NVIDIA_API_KEY",
    "NVIDIA_REQUIREMENT",
    "CUDA_PASSWORD",
    "CUDA_VISIBLE_TOKENS",
    "CUDA_ENTRYPOINT_TOKEN",
    "CUDA_ENTRYPOINT_RECEIPTS", // nearly one of ours, which is told by its name
    "DATABASE_URL",
    "GITHUB_TOKEN",
    "PIP_INDEX_URL",
    "https_proxy",
    "GOOGLE_CREDENTIALS",
    "SSH_PRIVATE_KEY",
    "TORCH_TOKEN",
    "SPCONV_TOKEN",
    "LDAP_PASSWORD",
    "LD_SDK_KEY", // LaunchDarkly's, and not the loader's
    "LD_API_TOKEN",
    "PYTHON_API_KEY",
    "PYTHON_KEYRING_PASSWORD",
    "PYTHONANYWHERE_API_TOKEN",
    "NCCL_SECRET",
    "T_JIT", // the manifest sets it to something else
    "VIRTUAL_ENV_PROMPT",
    "CONDA_TOKEN",
    "TOKEN_VISIBLE_DEVICE",
    "TERM_PROGRAM",
];

fn secret(number: usize) -> String {
    match number % 4 {
        0 => format!("{MARK}-{number}"),
        1 => format!("https://user:{MARK}-{number}@host/path?token={MARK}"),
        2 => format!("-----BEGIN KEY-----\n{MARK}-{number}\n-----END KEY-----"),
        _ => format!("{{\"key\": \"{MARK}-{number}\"}}"),
    }
}

fn with_secrets(command: &mut Command, numbers_from: usize) {
    for (number, name) in NAMES.iter().enumerate() {
        command.env(name, secret(numbers_from + number));
    }
}

/// Nowhere in what was said, nor in any file of the scene.
#[track_caller]
fn told_nowhere(scene: &Scene, what: &str, run: &Run) {
    let outputs = [
        String::from_utf8_lossy(&run.stdout).into_owned(),
        run.stderr.clone(),
    ];
    for text in outputs {
        is_clean(what, &text);
    }
    look_through(what, &scene.world.path(""));
}

#[track_caller]
fn is_clean(what: &str, text: &str) {
    let line = text.lines().find(|line| line.contains(MARK));
    assert_eq!(line, None, "{what}");
}

#[track_caller]
fn look_through(what: &str, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => look_through(what, &entry.path()),
            kind if kind.is_file() => {
                let text = fs::read(entry.path()).unwrap();
                let what = format!("{what}: {}", entry.path().display());
                is_clean(&what, &String::from_utf8_lossy(&text));
            }
            _ => {}
        }
    }
}

/// Every output that there is, at its most talkative.
const ALL: [&str; 6] = [
    "--log",
    "trace",
    "--report",
    "report.json",
    "--receipt",
    "receipt.json",
];

fn stack() -> serde_json::Value {
    json!({
        "schema": 1, "name": "t", "cuda": {"driver": ">=12.4"}, "archs": "9.0", "python": ">=3.8",
        "smoke": ["torch", "spconv", {"name": "model", "argv": ["sh", "-c", "exit 0"]}],
        "env": {"SPCONV_DISABLE_JIT": "1", "CUMM_DISABLE_JIT": "1", "T_JIT": "1"}
    })
}

/// `run` and `check` in both formats, twice each with other secrets: the second time there is a receipt.
#[track_caller]
fn keeps_secrets(what: &str, scene: &Scene, exit: i32, options: &[&str]) {
    let token = format!("--token={MARK}");
    let python = scene.python();
    let service = [python.as_str(), "-c", "pass", token.as_str()];
    for format in ["human", "json"] {
        for verb in ["run", "check"] {
            for numbers_from in [0, 100] {
                let mut command = scene.command(verb, &[&ALL[..], &["--format", format], options].concat());
                with_secrets(&mut command, numbers_from);
                let run = Run::of(command.arg("--").args(service));
                let what = format!("{what}, {verb} as {format}");
                assert_eq!(run.code(), Some(exit), "{what}: {}", run.stderr);
                told_nowhere(scene, &what, &run);
            }
        }
        let _ = fs::remove_file(scene.world.path("receipt.json"));
    }
}

#[test]
fn when_all_is_well() {
    let scene = Scene::new().manifest(stack());
    keeps_secrets("all is well", &scene, 0, &[]);
    keeps_secrets("handed off", &scene, 0, &["--smoke", "handoff"]);
    keeps_secrets("as init", &scene, 0, &["--init", "--gpu", "optional"]);
    keeps_secrets("unchecked", &scene, 0, &["--mode", "off"]);
}

#[test]
fn when_a_stage_fails() {
    let mut absent = stack();
    absent["packages"] = json!({"not-there": "==1.0"});
    let image = Scene::new().manifest(absent);
    keeps_secrets("image", &image, 81, &[]);
    keeps_secrets("a warning", &image, 0, &["--mode", "warn"]);
    let device = Scene::new().manifest(stack());
    let calls = |text: &str| format!(r#"{{"calls": {{"cuInit": {text}}}}}"#);
    let device = device.driver(&calls(r#"{"returns": 100}"#));
    keeps_secrets("device", &device, 82, &[]);
    let crash = Scene::new().manifest(stack()).driver(&calls(r#"{"signal": 11}"#));
    keeps_secrets("crash", &crash, 82, &[]);
    let none = Scene::new().manifest(stack()).without_driver();
    keeps_secrets("no driver", &none, 82, &[]);
    let arch = Scene::new().manifest(stack());
    keeps_secrets("arch", &arch, 83, &["--archs", "7.5"]);
    keeps_secrets("helper", &arch, 82, &["--helper-path", "/nowhere/helper"]);
}

#[test]
fn when_the_smoke_fails() {
    let fails = Scene::acting(r#"{"import spconv": {"raise": "ImportError", "message": "no"}}"#);
    keeps_secrets("import", &fails.manifest(stack()), 84, &[]);
    let fails = Scene::acting(r#"{"forward float32": {"raise_signal": 11}}"#).manifest(stack());
    keeps_secrets("crash", &fails, 84, &[]);
    keeps_secrets("crash in a hand-off", &fails, 84, &["--smoke", "handoff"]);
    let hangs = Scene::acting(r#"{"import spconv": {"hang": "sleep"}}"#).manifest(stack());
    keeps_secrets("timeout", &hangs, 85, &["--smoke-timeout", "1s"]);
    let mut own = stack();
    own["smoke"] = json!([{"name": "model", "argv": ["sh", "-c", "exit 3"]}]);
    keeps_secrets("an own command", &Scene::new().manifest(own), 84, &[]);
}

#[test]
fn when_it_cannot_start_or_is_ended() {
    let scene = Scene::new().manifest(stack());
    let token = format!("--token={MARK}");
    scene.world.write("plain", "#!/bin/sh\n");
    scene.world.program("garbage", "\x7fELF\u{1}\u{1}\u{1}");
    for (service, exit) in [("nowhere", 127), ("./plain", 126), ("./garbage", 126)] {
        let mut command = scene.command("run", &[&ALL[..], &["--smoke", "off"]].concat());
        with_secrets(&mut command, 0);
        let run = Run::of(command.args(["--", service, &token]));
        assert_eq!(run.code(), Some(exit), "{}", run.stderr);
        told_nowhere(&scene, service, &run);
    }
    // More than the kernel takes.
    let mut command = scene.command("run", &[&ALL[..], &["--smoke", "off"]].concat());
    with_secrets(&mut command, 0);
    let long = format!("{MARK}{}", "x".repeat(200_000));
    let run = Run::of(
        command
            .args(["--", "true", &long[..100_000]])
            .env("LONG", &long[..100_000]),
    );
    told_nowhere(&scene, "long", &run);
    let hangs = Scene::new()
        .manifest(stack())
        .driver(r#"{"calls": {"cuInit": {"hang": true}}}"#);
    let mut command = hangs.command("run", &ALL);
    with_secrets(&mut command, 0);
    let running = Running::start(command.args(["--", "true", &token]));
    running.helper_in_driver();
    running.kill(nix::sys::signal::Signal::SIGTERM);
    let run = running.finish();
    run.exits(143);
    told_nowhere(&hangs, "ended", &run);
}

#[test]
fn by_no_other_command() {
    let scene = Scene::new().manifest(stack());
    for arguments in [
        &["stack", "show"][..],
        &["stack", "show", "--json"],
        &["stack", "capture"],
        &["schema", "stack"],
        &["schema", "report"],
        &["explain"],
        &["check", "--stage", "health", "--log", "trace"],
        &["kernels", "stack.json"],
        &["check", "--nonsense"],
        &["--help"],
    ] {
        let mut command = scene.world.entrypoint(arguments);
        scene.equip(&mut command);
        with_secrets(&mut command, 0);
        let run = Run::of(&mut command);
        told_nowhere(&scene, &arguments.join(" "), &run);
    }
}

/// The test above looks where something is told: what may be told arrives in all of these places.
#[test]
fn what_may_be_told_is_found_where_secrets_are_looked_for() {
    let scene = Scene::new().manifest(stack()).var("CUDA_VISIBLE_DEVICES", "0");
    let mut command = scene.command("run", &[&ALL[..], &["--format", "json"]].concat());
    command.env("PYTHONPATH", "/shown/in/the/receipt");
    let run = Run::of(command.args(["--", "true"]));
    run.exits(0).says("\"message\"");
    assert!(
        scene
            .world
            .read("report.json")
            .unwrap()
            .contains("CUDA_VISIBLE_DEVICES")
    );
    assert!(
        scene
            .world
            .read("receipt.json")
            .unwrap()
            .contains("/shown/in/the/receipt")
    );
}
