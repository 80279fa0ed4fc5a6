//! Modes, severities and what `--gpu` makes of a machine without one.

use serde_json::{Value, json};

use crate::support::device::Checked;
use crate::support::scene::Scene;

/// A scene for each finding of the smoke that can be a problem, with its exit code.
fn one_of_each() -> Vec<(&'static str, i32, Scene, &'static [&'static str])> {
    vec![
        (
            "smoke-import",
            84,
            Scene::acting(r#"{"import torch": {"raise": "ImportError"}}"#),
            &[],
        ),
        (
            "smoke-forward",
            84,
            Scene::acting(r#"{"forward float32": {"raise": "RuntimeError"}}"#),
            &[],
        ),
        (
            "smoke-wrong",
            84,
            Scene::acting(r#"{"forward float32": {"difference": 1.0}}"#),
            &[],
        ),
        (
            "smoke-device",
            82,
            Scene::acting(r#"{"init": {"raise": "RuntimeError", "message": "CUDA unknown error"}}"#),
            &[],
        ),
        (
            "jit-at-runtime",
            84,
            Scene::acting(r#"{"forward float32": {"nvrtc": ["a"]}}"#),
            &[],
        ),
        (
            "smoke-timeout",
            85,
            Scene::acting(r#"{"import torch": {"hang": "sleep"}}"#),
            &["--smoke-timeout", "500ms"],
        ),
    ]
}

#[test]
fn every_problem_can_be_denied_warned_of_and_allowed() {
    for (code, exit, scene, options) in one_of_each() {
        for (flag, status, exit) in [
            ("--deny", "fail", exit),
            ("--warn", "warn", 0),
            ("--allow", "info", 0),
        ] {
            let found = scene.prove(exit, &[options, &[flag, code]].concat());
            found.says(code, status, ["", "", "", ""]);
            // The smoke did not pass, whatever that weighs.
            assert_eq!(
                found.report["smoke"]["status"], "failed",
                "{code} {flag}: {found}"
            );
            assert_ne!(found.report["smoke"]["reason"], "", "{code} {flag}");
        }
    }
    // One of two.
    let both = Scene::acting(
        r#"{"matmul float32": {"difference": 1.0}, "forward float32": {"raise": "RuntimeError"}}"#,
    );
    let found = both.prove(84, &["--warn", "smoke-wrong"]);
    assert_eq!(
        (found.codes("warn"), found.codes("fail")),
        (vec!["smoke-wrong"], vec!["smoke-forward"])
    );
    let variable = both.var("CUDA_ENTRYPOINT_WARN", "smoke-wrong,smoke-forward");
    let ran = variable.run(&[]);
    assert_eq!(ran.exit(), 0, "{ran}");
    let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    assert!(
        said.contains("smoke-forward: spconv: forward float32 on GPU 0 failed")
            && said.contains("2 warnings"),
        "{said}"
    );
}

#[test]
fn under_mode_warn_the_service_starts_all_the_same() {
    for (code, exit, scene, options) in one_of_each() {
        let ran = scene.run(&[options, &["--mode", "warn"]].concat());
        assert_eq!(ran.exit(), 0, "{ran}");
        assert_eq!(ran.output.stdout, b"started\n");
        scene.world.assert_nothing_left();
        ran.says(code, "fail", ["", "", "", ""]);
        assert_eq!(
            (&ran.report["verdict"], &ran.report["exit_code"]),
            (&json!("fail"), &json!(exit))
        );
        let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
        assert!(said.contains(&format!("{code}: starting /")), "{said}");
        assert!(
            said.contains(&format!("would exit {exit}; mode is warn")),
            "{said}"
        );
        let found = scene.check(&[options, &["--mode", "warn"]].concat());
        assert_eq!(found.exit(), 0, "{found}");
    }
    // Nothing is cancelled: who rolls out wants to know all.
    let scene = Scene::acting(r#"{"forward float32": {"difference": 1.0}}"#)
        .manifest(json!({"schema": 1, "name": "t", "packages": {"nowhere": "*"}, "smoke": ["spconv"]}));
    let ran = scene.run(&["--mode", "warn"]);
    assert_eq!(
        (ran.exit(), ran.codes("fail")),
        (0, vec!["package-missing", "smoke-wrong"]),
        "{ran}"
    );
}

/// What the smoke says of each entry.
fn of_smoke(found: &Checked) -> Vec<String> {
    let text = |f: &Value, key: &str| f[key].as_str().unwrap().to_string();
    let all = found.findings();
    all.iter()
        .filter(|f| f["stage"] == "smoke")
        .map(|f| {
            format!(
                "{} {}: {}",
                text(f, "status"),
                text(f, "subject"),
                text(f, "message")
            )
        })
        .collect()
}

#[test]
fn where_no_gpu_is_used_the_imports_are_proven_all_the_same() {
    let off = ["--gpu", "off"].as_slice();
    let optional = ["--gpu", "optional"].as_slice();
    let no_device = Scene::new().driver(r#"{"devices": []}"#);
    let hidden = Scene::new().var("CUDA_VISIBLE_DEVICES", "");
    for (scene, options, reason) in [
        (Scene::new(), off, "--gpu off"),
        (Scene::new().without_driver(), off, "--gpu off"),
        (
            Scene::new().without_driver(),
            optional,
            "no usable GPU (driver-missing)",
        ),
        (no_device, optional, "no usable GPU (gpu-missing)"),
        (hidden, optional, "no usable GPU (gpu-missing)"),
    ] {
        let scene = scene.torch(r#"{"init": {"mark": "{dir}/gpu"}}"#);
        let found = scene.prove(0, options);
        let expected = [
            "pass torch: torch imports (2.5.0+fake)".to_string(),
            format!("skip torch: not run on a GPU: {reason}"),
            "pass spconv: spconv imports (2.3.8)".to_string(),
            format!("skip spconv: not run on a GPU: {reason}"),
        ];
        assert_eq!(of_smoke(&found), expected, "{found}");
        assert!(!scene.world.path("gpu").exists());
        // And a package that does not import is a failure there, too.
        let scene = scene.torch(r#"{"import spconv": {"raise": "ImportError"}}"#);
        scene
            .prove(84, options)
            .says("smoke-import", "fail", ["", "", "spconv", ""]);
    }
}

#[test]
fn the_stage_alone_asks_for_a_gpu_and_judges_nothing_else() {
    let scene = Scene::new().manifest(json!({
        "schema": 1, "name": "t", "archs": "7.5", "packages": {"nowhere": "*"}, "smoke": ["torch", "spconv"]
    }));
    let found = scene.check(&["--stage", "smoke"]);
    assert_eq!((found.exit(), found.codes("fail")), (0, vec![]), "{found}");
    assert!(found.findings().iter().all(|f| f["stage"] == "smoke"), "{found}");
    assert_eq!(found.report["smoke"]["status"], "passed");
    // A smoke that could not use the GPU which is required proved nothing.
    for scene in [
        Scene::new().without_driver(),
        Scene::new().driver(r#"{"devices": []}"#),
        Scene::new().driver(r#"{"calls": {"cuInit": {"returns": 999}}}"#),
        Scene::new().driver(r#"{"calls": {"cuInit": {"signal": 11}}}"#),
    ] {
        let found = scene.check(&["--stage", "smoke"]);
        assert_eq!(
            (found.exit(), found.codes("fail")),
            (82, vec!["smoke-device"]),
            "{found}"
        );
        found.says(
            "smoke-device",
            "fail",
            ["", "", "no usable GPU", "--stage device"],
        );
        assert_eq!(found.report["smoke"]["status"], "failed");
        for policy in ["off", "optional"] {
            let found = scene.check(&["--stage", "smoke", "--gpu", policy]);
            assert_eq!((found.exit(), found.codes("fail")), (0, vec![]), "{found}");
        }
        // What needs none is run and judged without one.
        let scene = scene.smoke(json!([{"name": "model", "argv": ["true"]}]));
        assert_eq!(scene.check(&["--stage", "smoke"]).exit(), 0);
    }
    let fails = Scene::acting(r#"{"forward float32": {"difference": 1.0}}"#);
    let found = fails.check(&["--stage", "smoke"]);
    assert_eq!(
        (found.exit(), found.codes("fail")),
        (84, vec!["smoke-wrong"]),
        "{found}"
    );
}
