//! Frameworks that bring CUDA of their own: each is proven in a process of its own, behind that of torch.

use std::fs;

use serde_json::{Value, json};

use crate::support::scene::Scene;

/// Torch, the four frameworks and a command.
fn all() -> Scene {
    Scene::new().frameworks("").smoke(json!([
        "jax",
        "onnxruntime",
        "torch",
        "cupy",
        "tensorflow",
        {"name": "model", "argv": ["echo", "a model"], "gpu": true}
    ]))
}

/// The findings of the smoke as `code subject`, the worst ones alone.
fn failures(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let failed = findings.filter(|finding| finding["status"] == "fail");
    failed
        .map(|finding| {
            let field = |name: &str| finding[name].as_str().unwrap().to_string();
            format!("{} {}", field("code"), field("subject"))
        })
        .collect()
}

#[test]
fn each_is_proven_in_a_process_of_its_own() {
    let scene = all();
    let found = scene.prove(0, &[]);
    let smoke = &found.report["facts"]["smoke"];
    let entries = |run: &Value| -> Vec<String> {
        let steps = run["steps"].as_array().unwrap().iter();
        let mut entries: Vec<String> = steps.map(|s| s["entry"].as_str().unwrap().to_string()).collect();
        entries.dedup();
        entries
    };
    assert_eq!(entries(&smoke["builtin"]), ["torch"]);
    let frameworks: Vec<(Value, Vec<String>)> = smoke["frameworks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (run["framework"].clone(), entries(run)))
        .collect();
    // In the manifest's order.
    for (entry, at) in ["jax", "onnxruntime", "cupy", "tensorflow"].into_iter().zip(0..) {
        assert_eq!(frameworks[at], (json!(entry), vec![entry.to_string()]));
    }
    let table = scene.table(&[]);
    insta::assert_snapshot!(table.split_once("smoke\n-----\n").unwrap().1);
    let said = scene.run(&[]).output.stderr;
    insta::assert_snapshot!("run", scene.readable(&String::from_utf8_lossy(&said)));
}

#[test]
fn they_need_no_torch() {
    let scene = Scene::new().frameworks("").smoke(json!(["jax"]));
    let torch = scene.site().join("torch");
    fs::remove_dir_all(torch).unwrap();
    scene.prove(0, &[]);
}

#[test]
fn one_that_fails_keeps_no_other_from_being_proven() {
    let wrong = r#"chosen = {"matmul float16": lambda given: [0.5] * (given.rows * given.columns)}"#;
    let scene = all();
    let cupy = scene.site().join("cupy.py");
    fs::write(
        cupy,
        "raise ImportError('libcublas.so.12: cannot open shared object file')",
    )
    .unwrap();
    fs::remove_file(scene.site().join("tensorflow.py")).unwrap();
    let found = scene
        .frameworks(wrong)
        .smoke(json!(["jax", "torch", "tensorflow"]));
    fs::remove_file(found.site().join("tensorflow.py")).unwrap();
    let report = found.prove(84, &[]).report;
    assert_eq!(
        failures(&report),
        ["smoke-wrong jax", "smoke-import tensorflow"],
        "{report:#}"
    );
}

#[test]
fn a_framework_that_crashes_is_named_and_the_next_one_runs() {
    let scene = all().smoke(json!(["jax", "cupy"]));
    fs::write(
        scene.site().join("jax.py"),
        "import os\nos.kill(os.getpid(), 11)\n",
    )
    .unwrap();
    let report = scene.prove(84, &[]).report;
    assert_eq!(failures(&report), ["smoke-import jax"], "{report:#}");
    let runs = &report["facts"]["smoke"]["frameworks"];
    assert_eq!(
        (&runs[0]["end"], &runs[1]["end"]),
        (&json!("crashed"), &json!("done")),
        "{runs:#}"
    );
}

/// As pip leaves it where a package has written into its own folder: Python imports it as a namespace package.
#[test]
fn a_folder_that_an_uninstall_left_is_no_package() {
    let scene = all().smoke(json!(["tensorflow"]));
    fs::remove_file(scene.site().join("tensorflow.py")).unwrap();
    fs::create_dir_all(scene.site().join("tensorflow/__pycache__")).unwrap();
    for options in [&[][..], &["--gpu", "off"]] {
        let found = scene.prove(84, options);
        let finding = found.problem("smoke-import");
        assert!(
            finding["message"].as_str().unwrap().contains("not installed"),
            "{finding:#}"
        );
    }
}

#[test]
fn without_a_gpu_they_are_imported_and_no_more() {
    let scene = all();
    let found = scene.prove(0, &["--gpu", "off"]);
    for run in found.report["facts"]["smoke"]["frameworks"].as_array().unwrap() {
        let steps = run["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 1, "{run:#}");
        assert_eq!(run["skipped"][0]["reason"], "--gpu off");
    }
}

#[test]
fn all_devices_are_proven_where_all_are_asked_for() {
    let scene = all()
        .smoke(json!(["jax", "onnxruntime"]))
        .driver(r#"{"devices": [{"repeat": 2}]}"#);
    let found = scene.prove(0, &["--smoke-devices", "all"]);
    for run in found.report["facts"]["smoke"]["frameworks"].as_array().unwrap() {
        let steps = run["steps"].as_array().unwrap().iter();
        let devices: Vec<&Value> = steps
            .filter_map(|step| step.get("device"))
            .filter(|d| !d.is_null())
            .collect();
        assert_eq!(devices, [0, 0, 0, 1, 1, 1], "{run:#}");
    }
}

#[test]
fn a_hand_off_runs_torch_in_the_services_process_and_the_others_before_it() {
    let service = ["python", "-c", "print('started')"];
    let scene = all();
    let path = scene.world.path("env/bin");
    let scene = scene.var("PATH", &format!("{}:/usr/bin:/bin", path.display()));
    let ran = scene.run_service(&["--smoke", "handoff"], &service);
    assert_eq!(ran.exit(), 0, "{ran}");
    let said = scene.readable(&String::from_utf8_lossy(&ran.output.stderr));
    // How much the last line has room for depends on the folder.
    insta::assert_snapshot!("handoff", said.split_once("cuda-entrypoint: ok").unwrap().0);
    // Where there is nothing of torch there is nothing to hand off.
    let scene = scene.smoke(json!(["jax", "cupy"]));
    let ran = scene.run_service(&["--smoke", "handoff"], &service);
    assert_eq!(ran.exit(), 0, "{ran}");
    insta::assert_snapshot!(
        "no_handoff",
        scene.readable(&String::from_utf8_lossy(&ran.output.stderr))
    );
}

#[test]
fn a_receipt_holds_what_they_proved() {
    let scene = all().smoke(json!(["jax", "torch"]));
    let metadata = |version: &str| {
        let folder = scene.site().join("jax.dist-info");
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("METADATA"),
            format!("Name: jax\nVersion: {version}\n"),
        )
        .unwrap();
        let module = scene.site().join("jax.py");
        let text = fs::read_to_string(&module).unwrap();
        fs::write(module, text.replace("0.9.0", version)).unwrap();
    };
    metadata("0.9.0");
    let receipt = ["--receipt", "receipt.json"];
    let start = || String::from_utf8(scene.run(&receipt).output.stderr).unwrap();
    assert!(start().contains("smoke: jax with"));
    let known = start();
    assert!(
        known.contains("jax OK, image, GPUs and smoke as proven"),
        "{known}"
    );
    // Another release has proven nothing.
    metadata("0.9.1");
    let anew = start();
    assert!(anew.contains("smoke: jax with"), "{anew}");
}
