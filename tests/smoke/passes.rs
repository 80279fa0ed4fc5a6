//! All is well: what is said, and what the service is started with.

use std::fs;

use serde_json::{Value, json};

use crate::support::probe::{Told, probe};
use crate::support::run::Run;
use crate::support::scene::Scene;

/// Every entry that comes along, and a command.
fn everything() -> Scene {
    Scene::new().smoke(json!([
        "torch",
        "spconv",
        "torchvision",
        "torch-scatter",
        "mmcv",
        {"name": "model", "argv": ["echo", "a model"], "gpu": true}
    ]))
}

/// The table without what concerns this machine alone.
fn table(scene: &Scene, options: &[&str]) -> String {
    let table = scene.table(options);
    let (_, smoke) = table.split_once("smoke\n-----\n").expect("no smoke");
    smoke.to_string()
}

#[test]
fn check_shows_what_was_proven() {
    insta::assert_snapshot!(table(&everything(), &[]));
    // The stage alone judges nothing else.
    let alone = everything().table(&["--stage", "smoke"]);
    assert!(alone.starts_with("smoke\n-----\n✓ torch OK"), "{alone}");
    insta::assert_snapshot!("without_a_gpu", table(&everything(), &["--gpu", "off"]));
}

#[test]
fn the_report_holds_every_step() {
    let scene = everything();
    let mut found = scene.prove(0, &[]);
    assert_eq!(found.report["verdict"], "pass");
    let mut smoke = found.report["facts"]["smoke"].take();
    timeless(&mut smoke);
    let text = scene.readable(&format!("{smoke:#}"));
    let version = smoke["builtin"]["python"]["version"].as_str().unwrap();
    insta::assert_snapshot!(text.replace(version, "3.X.Y"));
    assert_eq!(
        found.report["smoke"],
        json!({"mode": "separate", "status": "passed", "reason": ""})
    );
    assert!(found.report["timing_ms"]["smoke"].is_number(), "{found}");
}

fn timeless(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                if key == "ms" {
                    assert!(value.as_f64().is_some_and(|ms| ms >= 0.0), "{value}");
                    *value = Value::Null;
                }
                timeless(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(timeless),
        _ => {}
    }
}

#[test]
fn run_says_what_was_proven_and_leaves_stdout_to_the_service() {
    let scene = everything();
    let ran = scene.run(&[]);
    assert_eq!(ran.exit(), 0, "{ran}");
    assert_eq!(ran.output.stdout, b"started\n");
    let said = scene.readable(&String::from_utf8_lossy(&ran.output.stderr));
    insta::assert_snapshot!(said);
    // That is for how a container ends.
    assert_eq!(scene.world.read("termination"), None);
    // Nobody asked for chatter.
    let quiet = scene.run(&["--log", "error"]);
    assert_eq!(String::from_utf8_lossy(&quiet.output.stderr), "", "{quiet}");
    // One JSON object a line where that was asked for.
    let run = Run::of(scene.command("run", &["--format", "json"]).args(["--", "true"]));
    let log = run.exits(0).prints("").log();
    let last = log.last().unwrap();
    assert_eq!(last["verdict"], "pass");
    assert!(
        last["message"].as_str().unwrap().contains("spconv forward OK"),
        "{last}"
    );
}

#[test]
fn the_service_cannot_tell_that_a_smoke_ran_before_it() {
    // Packages that leave as much behind as they can.
    let script = r#"{"import torch": {"daemon": "setsid", "print": "chatter"}, "forward float32": {"daemon": "group"}}"#;
    let scene = everything().torch(script);
    let told = |options: &[&str]| {
        let mut command = scene.command("run", options);
        command
            .args(["--", probe().to_str().unwrap()])
            .envs([("SPCONV_DISABLE_JIT", "1"), ("CUMM_DISABLE_JIT", "1")]);
        let run = Run::of(&mut command);
        run.exits(0);
        let mut told = Told::parse(run.text());
        (told.pid, told.group.0) = (0, 0);
        for (_, target) in &mut told.fds {
            if target.starts_with("pipe:") {
                *target = "pipe".into();
            }
        }
        (told, run.stderr)
    };
    let (with, said) = told(&[]);
    assert!(said.contains("spconv forward OK"), "{said}");
    assert_eq!(
        (with.child, with.blocked, with.subreaper, with.deathsig),
        (None, 0, 0, 0)
    );
    assert_eq!((&with.ignored, &with.caught), (&vec![], &vec![]));
    let (without, said) = told(&["--mode", "off"]);
    assert!(!said.contains("smoke"), "{said}");
    assert_eq!(with, without);
    scene.world.assert_nothing_left();
}

#[test]
fn every_device_is_proven_where_all_are_asked_for() {
    let scene = Scene::acting(
        r#"{"devices": [["NVIDIA L4", "00000000-0000-0000-0000-00000000000a"], ["NVIDIA L4", "00000000-0000-0000-0000-00000000000b"]],
            "forward float16": {}}"#,
    )
    .driver(r#"{"devices": [{"repeat": 2, "name": "NVIDIA L4", "cc": "8.9"}]}"#);
    let proven = |found: &crate::support::device::Checked| -> Vec<(String, u64)> {
        let steps = found.report["facts"]["smoke"]["builtin"]["steps"]
            .as_array()
            .unwrap();
        let on_gpu = steps
            .iter()
            .filter_map(|step| Some((step, step["device"].as_u64()?)));
        on_gpu
            .map(|(step, device)| (step["step"].as_str().unwrap().into(), device))
            .collect()
    };
    let first = scene.prove(0, &[]);
    assert!(proven(&first).iter().all(|(_, device)| *device == 0), "{first}");
    let all = scene.prove(0, &["--smoke-devices", "all"]);
    assert_eq!(
        all.report["facts"]["smoke"]["builtin"]["devices"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    for step in [
        "matmul float32",
        "matmul float16",
        "forward float32",
        "forward float16",
    ] {
        for device in [0, 1] {
            assert!(
                proven(&all).contains(&(step.to_string(), device)),
                "{step} on {device}: {all}"
            );
        }
    }
    let table = table(&scene, &["--smoke-devices", "all"]);
    assert!(
        table.contains("spconv forward OK (float32 within 1.0e-4, float16 within 1.0e-4, on 2 GPUs"),
        "{table}"
    );
    // The variable says the same.
    let scene = scene.var("CUDA_ENTRYPOINT_SMOKE_DEVICES", "all");
    assert_eq!(proven(&scene.check(&[])).len(), 8);
}

/// What a smoke on the first device sees of several is that one: `cuInit` takes its time for each.
#[test]
fn the_first_of_several_devices_is_the_only_one_that_cuda_is_shown() {
    for (devices, list, options, seen) in [
        ("{}, {}", None, &[][..], r#""0""#),
        ("{}, {}, {}", Some("2,1"), &[], r#""2""#),
        (
            "{}, {}",
            Some("GPU-00000000-0000-4000-8000-000000000001,0"),
            &[],
            r#""GPU-00000000-0000-4000-8000-000000000001""#,
        ),
        ("{}, {}", None, &["--smoke-devices", "all"], "null"),
        ("{}, {}", Some("1,0"), &["--receipt", "receipt.json"], r#""1,0""#),
        ("{}", None, &[], "null"),
        ("{}, {}", Some("1"), &[], r#""1""#),
    ] {
        let script = format!(r#"{{"init": {{"need": {{"CUDA_VISIBLE_DEVICES": {seen}}}}}}}"#);
        let mut scene = Scene::acting(&script).driver(&format!(r#"{{"devices": [{devices}]}}"#));
        if let Some(list) = list {
            scene = scene.var("CUDA_VISIBLE_DEVICES", list);
        }
        scene.prove(0, options);
    }
}

/// The one that is left is not the one that the smoke ran on last.
#[test]
fn a_receipt_of_two_devices_says_of_one_what_a_smoke_of_it_would() {
    let script = r#"{"devices": [["NVIDIA H200", "00000000-0000-4000-8000-000000000000"],
                                 ["NVIDIA H200", "00000000-0000-4000-8000-000000000001"]]}"#;
    let said = "spconv forward OK";
    let scene = Scene::acting(script).driver(r#"{"devices": [{"repeat": 2}]}"#);
    let receipt = ["--receipt", "receipt.json"];
    let proven = scene.run(&receipt).output.stderr;
    assert!(String::from_utf8_lossy(&proven).contains(said));
    let scene = scene.driver(r#"{"devices": [{}]}"#);
    let ran = scene.run(&receipt);
    let known = String::from_utf8_lossy(&ran.output.stderr);
    assert!(known.contains("as proven"), "{known}");
    assert!(known.contains(said), "{known}");
}

#[test]
fn a_manifest_without_a_smoke_starts_no_python() {
    let script = r#"{"import torch": {"mark": "{dir}/imported"}}"#;
    let begun = |scene: &Scene| {
        let path = scene.world.path("imported");
        let begun = path.exists();
        let _ = fs::remove_file(path);
        begun
    };
    let scene = Scene::acting(script);
    scene.prove(0, &[]);
    assert!(begun(&scene), "it does not run: nothing is tested");
    let found = scene.prove(0, &["--smoke", "off"]);
    assert!(!begun(&scene));
    let skipped = found.problem("smoke-forward");
    assert_eq!(
        (&skipped["status"], &skipped["message"]),
        (&json!("skip"), &json!("not run: --smoke off"))
    );
    assert_eq!(
        found.report["smoke"],
        json!({"mode": "off", "status": "not-run", "reason": "not run: --smoke off"})
    );
    assert!(found.report["facts"].get("smoke").is_none(), "{found}");
    for stage in ["image", "device", "health"] {
        assert_eq!(scene.check(&["--stage", stage]).exit(), 0);
        assert!(!begun(&scene), "{stage}");
    }
    let said = String::from_utf8(scene.run(&["--smoke", "off"]).output.stderr).unwrap();
    assert!(!said.contains("smoke:"), "{said}");
    for manifest in [
        json!({"schema": 1, "name": "t"}),
        json!({"schema": 1, "name": "t", "smoke": []}),
    ] {
        let scene = Scene::acting(script).manifest(manifest);
        let found = scene.prove(0, &[]);
        assert!(!begun(&scene));
        assert!(!found.to_string().contains("\"stage\": \"smoke\""), "{found}");
        assert_eq!(found.report["smoke"]["status"], "not-run");
        assert_eq!(found.report["smoke"]["reason"], "the manifest has no smoke");
    }
}
