//! docker/validator/gpu-node-check: the exit codes, sentences and events that other programs rely on.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::folders::root;
use crate::support::run::{ENTRYPOINT, Run, World};

const HEALTHY: &str = "{}";
const LOST: &str = r#"{"calls": {"nvmlDeviceGetCount_v2": {"returns": 999}}}"#;
const BROKEN: &str = r#"{"devices": [{"ecc": 2}]}"#;
const HANG: &str = r#"{"calls": {"cuInit": {"hang": true}}}"#;
/// Keeps what it is asked to send.
const SENDER: &str = "#!/bin/sh\nprintf '%s\\n' \"$@\" >arguments\ncat >event\n";

fn script() -> PathBuf {
    root().join("docker/validator/gpu-node-check")
}

fn node_check(world: &World, options: &[&str]) -> Command {
    world.write("stack.json", include_str!("../docker/validator/stack.json"));
    let mut command = world.command(script());
    command
        .args(options)
        .env("CUDA_ENTRYPOINT", ENTRYPOINT)
        .env("CUDA_ENTRYPOINT_STACK", "stack.json")
        .env("TMPDIR", world.path(""));
    command
}

/// What node-problem-detector makes of a plug-in: 0 is fit, 1 is not fit, another code is unknown, and the sentence is what
/// stands on stdout.
#[test]
fn exit_code_and_sentence_are_those_of_a_plug_in() {
    for (script, options, code, sentence) in [
        (Some(HEALTHY), &[][..], 0, "pass: stack gpu-node "),
        (Some(HEALTHY), &["--stage", "health"], 0, "pass: stack gpu-node "),
        (None, &[], 1, "driver-missing (exit 82): "),
        (Some(LOST), &["--stage", "health"], 1, "gpu-not-ready (exit 82): "),
        (Some(BROKEN), &[], 1, "gpu-unhealthy (exit 82): "),
        (
            Some(HANG),
            &["--device-timeout", "1s"],
            1,
            "helper-timeout (exit 85): ",
        ),
        (
            Some(HEALTHY),
            &["--stage", "nonsense"],
            2,
            "unknown: usage (exit 64): ",
        ),
        (
            Some(HEALTHY),
            &["--stack", "absent.json"],
            2,
            "unknown: manifest (exit 78): ",
        ),
    ] {
        let world = World::new();
        let mut command = node_check(&world, options);
        if let Some(script) = script {
            world.with_gpu(&mut command, script);
        }
        let run = Run::of(&mut command);
        run.exits(code);
        assert!(run.text().starts_with(sentence), "{options:?}: {}", run.text());
        assert_eq!(run.text().lines().count(), 1, "{}", run.text());
        let left: Vec<_> = std::fs::read_dir(world.path("")).unwrap().flatten().collect();
        assert!(
            !left
                .iter()
                .any(|one| one.file_name().to_string_lossy().starts_with("gpu-node-check"))
        );
    }
}

/// Variables that let services start do not make a node fit.
#[test]
fn the_mode_of_services_hides_nothing() {
    for mode in ["off", "warn"] {
        let world = World::new();
        let mut command = node_check(&world, &[]);
        Run::of(command.env("CUDA_ENTRYPOINT_MODE", mode)).exits(1);
    }
}

#[test]
fn a_program_that_is_not_there_is_unknown() {
    let world = World::new();
    let mut command = node_check(&world, &[]);
    let run = Run::of(command.env("CUDA_ENTRYPOINT", "./absent"));
    run.exits(2);
    assert!(
        run.text().starts_with("unknown: ") && run.text().contains("not found"),
        "{}",
        run.text()
    );
    Run::of(&mut node_check(&world, &["--watch", "soon"]))
        .exits(2)
        .says("requires a number of seconds");
}

/// The configuration names what is there, and leaves the check the time to say by itself that the driver hangs.
#[test]
fn the_configuration_of_node_problem_detector_fits_the_script() {
    let config: Value =
        serde_json::from_str(include_str!("../docker/validator/node-problem-detector.json")).unwrap();
    let seconds = |text: &Value| {
        text.as_str()
            .unwrap()
            .trim_end_matches('s')
            .parse::<u32>()
            .unwrap()
    };
    assert_eq!(config["plugin"], "custom");
    let conditions: Vec<&Value> = config["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["type"])
        .collect();
    for rule in config["rules"].as_array().unwrap() {
        assert_eq!(rule["path"], "/usr/local/bin/gpu-node-check");
        let args: Vec<&str> = rule["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a.as_str().unwrap())
            .collect();
        let world = World::new();
        let mut command = node_check(&world, &args);
        Run::of(world.with_gpu(&mut command, HEALTHY)).exits(0);
        let at = args.iter().position(|arg| *arg == "--device-timeout").unwrap();
        assert!(seconds(&json!(args[at + 1])) < seconds(&rule["timeout"]));
        assert!(seconds(&rule["timeout"]) <= seconds(&config["pluginConfig"]["timeout"]));
        assert!(seconds(&rule["timeout"]) < seconds(&config["pluginConfig"]["invoke_interval"]));
        if rule["type"] == "permanent" {
            assert!(conditions.contains(&&rule["condition"]), "{rule}");
        }
    }
}

fn with_socket(world: &World, options: &[&str]) -> Command {
    world.program("send", SENDER);
    let mut command = node_check(world, options);
    command
        .env("PLATFORM_CONNECTOR_SOCKET", "unix:///var/run/nvsentinel.sock")
        .env("NODE_NAME", "node \"7\"")
        .env("GRPCURL", world.path("send"));
    command
}

/// NVSentinel's preflight checks: 0 passed, 1 failed, 2 wrong configuration, 3 event not sent.
#[test]
fn a_result_is_sent_as_a_health_event() {
    let world = World::new();
    let run = Run::of(&mut with_socket(&world, &[]));
    run.exits(1);
    let sent: Value = serde_json::from_str(&world.read("event").unwrap()).unwrap();
    let [event] = &sent["events"].as_array().unwrap()[..] else {
        panic!("{sent}")
    };
    for (name, value) in [
        ("version", json!(1)),
        ("nodeName", json!("node \"7\"")),
        ("isHealthy", json!(false)),
        ("isFatal", json!(true)),
        ("errorCode", json!(["CUDA_ENTRYPOINT_82"])),
        ("message", json!(run.text().trim_end())),
        ("processingStrategy", json!("EXECUTE_REMEDIATION")),
    ] {
        assert_eq!(event[name], value, "{name} of {event}");
    }
    let fields = include_str!("../docker/validator/health_event.proto");
    for name in event.as_object().unwrap().keys() {
        assert!(
            fields.contains(&format!(" {name} = ")),
            "health_event.proto has no {name}"
        );
    }
    let arguments = world.read("arguments").unwrap();
    assert!(
        arguments.contains(
            "unix:///var/run/nvsentinel.sock\ndatamodels.PlatformConnector/HealthEventOccurredV1\n"
        )
    );

    let mut command = with_socket(&world, &[]);
    Run::of(world.with_gpu(&mut command, HEALTHY)).exits(0);
    let sent: Value = serde_json::from_str(&world.read("event").unwrap()).unwrap();
    assert_eq!(sent["events"][0]["isHealthy"], json!(true));
}

#[test]
fn what_is_not_sent_and_what_does_not_block() {
    let world = World::new();
    Run::of(with_socket(&world, &[]).env("PROCESSING_STRATEGY", "STORE_ONLY")).exits(0);
    let sent: Value = serde_json::from_str(&world.read("event").unwrap()).unwrap();
    assert_eq!(sent["events"][0]["processingStrategy"], json!("STORE_ONLY"));

    Run::of(with_socket(&world, &[]).env("GRPCURL", "false")).exits(3);
    Run::of(with_socket(&world, &[]).env_remove("NODE_NAME"))
        .exits(2)
        .says("NODE_NAME");
    // A check that could not be made says nothing about the node.
    let world = World::new();
    Run::of(&mut with_socket(&world, &["--stack", "absent.json"])).exits(2);
    assert_eq!(world.read("event"), None);
}
