//! `--wait`: smoking again what can mend itself.

use crate::support::scene::Scene;

/// Packages of which each new process does what is next in the list.
fn in_turn(place: &str, behaviours: &str) -> Scene {
    Scene::acting(&format!(
        r#"{{"{place}": {behaviours}, "state": "{{dir}}/state"}}"#
    ))
}

/// How many processes loaded the packages.
fn tries(scene: &Scene) -> usize {
    scene.world.read("state").map_or(0, |text| text.lines().count())
}

const BUSY: &str = r#"{"raise": "RuntimeError", "message": "CUDA error: CUDA-capable device(s) is/are busy or unavailable"}"#;

#[test]
fn a_gpu_that_becomes_free_is_waited_for() {
    let scene = in_turn("init", &format!("[{BUSY}, {BUSY}, {{}}]"));
    let ran = scene.run(&["--wait", "60s"]);
    assert_eq!(ran.exit(), 0, "{ran}");
    assert_eq!((tries(&scene), &ran.report["verdict"]), (3, &"pass".into()));
    assert_eq!(ran.output.stdout, b"started\n");
    let said = String::from_utf8_lossy(&ran.output.stderr).into_owned();
    assert_eq!(said.matches("waiting up to ").count(), 2, "{said}");
    assert!(
        said.contains("torch: init failed: all GPUs are busy or unavailable"),
        "{said}"
    );
    // Nothing is left of the first tries.
    let steps = ran.report["facts"]["smoke"]["builtin"]["steps"]
        .as_array()
        .unwrap();
    assert!(steps.iter().all(|step| step["outcome"] == "passed"), "{ran}");
    scene.world.assert_nothing_left();
}

#[test]
fn everything_of_the_device_that_can_mend_itself_is_waited_for() {
    for message in [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "Error 802: system not yet initialized",
        "CUDA unknown error",
        "No CUDA GPUs are available",
    ] {
        let scene = in_turn(
            "init",
            &format!(r#"[{{"raise": "RuntimeError", "message": "{message}"}}, {{}}]"#),
        );
        let found = scene.check(&["--stage", "smoke", "--wait", "60s"]);
        assert_eq!((found.exit(), tries(&scene)), (0, 2), "{message}: {found}");
    }
}

#[test]
fn what_cannot_mend_itself_is_not_waited_for() {
    for (place, behaviour, exit) in [
        (
            "init",
            r#"{"raise": "RuntimeError", "message": "CUDA error: uncorrectable ECC error encountered"}"#,
            82,
        ),
        (
            "init",
            r#"{"raise": "RuntimeError", "message": "CUDA error: system has unsupported display driver / cuda driver combination"}"#,
            82,
        ),
        (
            "init",
            r#"{"raise": "RuntimeError", "message": "The NVIDIA driver on your system is too old (found version 11040)."}"#,
            82,
        ),
        ("import torch", r#"{"raise_signal": 9}"#, 82),
        ("import torch", r#"{"raise": "ImportError"}"#, 84),
        ("forward float32", r#"{"difference": 1.0}"#, 84),
        ("forward float32", r#"{"raise_signal": 11}"#, 84),
    ] {
        let scene = in_turn(place, &format!("[{behaviour}]"));
        let found = scene.check(&["--stage", "smoke", "--wait", "5s"]);
        assert_eq!((found.exit(), tries(&scene)), (exit, 1), "{behaviour}: {found}");
    }
    // One failure that stays makes waiting for the other useless; one that is forgiven is none.
    let two = r#"{"init": [{}], "matmul float32": [{"raise": "RuntimeError", "message": "CUDA out of memory"}],
                  "forward float32": [{"difference": 1.0}], "state": "{dir}/state"}"#;
    let scene = Scene::acting(two);
    let found = scene.check(&["--wait", "5s"]);
    assert_eq!((found.exit(), tries(&scene)), (82, 1), "{found}");
    let scene = in_turn("init", &format!("[{BUSY}]"));
    let found = scene.check(&["--wait", "5s", "--warn", "smoke-device"]);
    assert_eq!((found.exit(), tries(&scene)), (0, 1), "{found}");
}

#[test]
fn when_the_time_is_over_the_last_failure_counts() {
    let scene = in_turn(
        "init",
        &format!(r#"[{BUSY}, {{"raise": "RuntimeError", "message": "CUDA out of memory"}}]"#),
    );
    let ran = scene.run(&["--wait", "3s"]);
    assert_eq!(ran.exit(), 82, "{ran}");
    assert!(tries(&scene) > 1, "{ran}");
    ran.says(
        "smoke-device",
        "fail",
        ["CUDA out of memory", "", "memory is taken", ""],
    );
    assert_eq!(ran.output.stdout, b"");
    let scene = in_turn("init", &format!(r#"[{BUSY}, {{"hang": "sleep"}}]"#));
    let ran = scene.run(&["--wait", "10s", "--smoke-timeout", "1s"]);
    assert_eq!((ran.exit(), tries(&scene)), (85, 2), "{ran}");
    scene.world.assert_nothing_left();
}

#[test]
fn without_wait_there_is_one_try() {
    let scene = in_turn("init", &format!("[{BUSY}, {{}}]"));
    assert_eq!(scene.run(&[]).exit(), 82);
    assert_eq!(tries(&scene), 1);
}

#[test]
fn the_driver_may_take_its_time_as_well() {
    // It comes up after seven seconds of pauses. The imports are long over by then, and the smoke's deadline begins.
    let scene = Scene::acting(r#"{"forward float32": {"mark": "{dir}/done"}, "init": {"demand": "{dir}/up"}}"#).driver(
        r#"{"calls": {"cuInit": [{"returns": 802}, {"returns": 802}, {"returns": 802}, {"mark": "{dir}/up"}]}, "state": "{dir}/driver"}"#,
    );
    let ran = scene.run(&["--wait", "60s", "--smoke-timeout", "6s"]);
    assert_eq!(ran.exit(), 0, "{ran}");
    assert!(scene.world.path("done").exists());
}

#[test]
fn the_stage_alone_waits_for_the_driver_too() {
    let driver =
        r#"{"calls": {"cuInit": [{"returns": 802}, {"returns": 802}, {}]}, "state": "{dir}/driver"}"#;
    let scene = Scene::new().driver(driver);
    let found = scene.check(&["--stage", "smoke", "--wait", "60s"]);
    assert_eq!((found.exit(), found.codes("fail")), (0, vec![]), "{found}");
    assert!(found.to_string().contains("spconv forward OK"), "{found}");
    let scene = Scene::new().driver(driver);
    assert_eq!(scene.check(&["--stage", "smoke"]).exit(), 82);
    // What does not mend itself is not waited for.
    let scene =
        Scene::new().driver(r#"{"calls": {"cuInit": [{"returns": 803}, {}]}, "state": "{dir}/driver"}"#);
    let found = scene.check(&["--stage", "smoke", "--wait", "5s"]);
    assert_eq!(
        (found.exit(), found.codes("fail")),
        (82, vec!["smoke-device"]),
        "{found}"
    );
}
