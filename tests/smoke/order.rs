//! What runs beside what, what waits for what, and what a failure ends. By files that one part makes and another waits
//! for: nothing here depends on how long anything takes.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;

use crate::support::scene::Scene;

/// Imports that never end, once they have begun.
const HANGS: &str =
    r#"{"import torch": {"mark": "{dir}/begun", "hang": "sleep"}, "init": {"mark": "{dir}/gpu"}}"#;

/// A `libcudart.so.12` in the environment whose answer waits for the file `gate`, and makes the file `answered`.
fn with_runtime(scene: &Scene, version: u32, gate: &str) {
    let folder = scene.site().join("nvidia/cuda_runtime/lib");
    fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| scene.world.path(name).display().to_string();
    let source = format!(
        r#"#include <fcntl.h>
           #include <unistd.h>
           int cudaRuntimeGetVersion(int *version) {{
             while ("{gate}"[0] && access("{}", F_OK)) usleep(2000);
             usleep(300000);
             close(open("{}", O_CREAT | O_WRONLY, 0600));
             *version = {version};
             return 0;
           }}"#,
        path(gate),
        path("answered"),
    );
    let source = scene.world.write("cudart.c", source);
    let library = folder.join("libcudart.so.12");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-Wl,-soname,libcudart.so.12", "-o"])
        .arg(library)
        .arg(source);
    assert!(cc.status().unwrap().success());
    symlink("libcudart.so.12", folder.join("libcudart.so")).unwrap();
}

fn wanting_runtime(scene: Scene) -> Scene {
    scene.manifest(json!({"schema": 1, "name": "t", "cuda": {"runtime": "12.4"}, "smoke": ["torch"]}))
}

#[test]
fn imports_begin_before_the_driver_has_answered() {
    // It answers once the import has begun, and never if that waits for it.
    let scene = Scene::acting(r#"{"import torch": {"mark": "{dir}/begun"}}"#)
        .driver(r#"{"calls": {"cuInit": {"await": "{dir}/begun"}}}"#);
    scene.prove(0, &[]);
}

#[test]
fn nothing_touches_the_gpu_before_the_driver_has_answered() {
    let scene = Scene::acting(r#"{"init": {"demand": "{dir}/answered", "mark": "{dir}/gpu"}}"#)
        .driver(r#"{"calls": {"cuDeviceGetCount": {"delay_ms": 1000, "mark": "{dir}/answered"}}}"#);
    let ran = scene.run(&[]);
    assert_eq!(ran.exit(), 0, "{ran}");
    assert!(scene.world.path("gpu").exists());
}

#[test]
fn nothing_touches_the_gpu_before_the_image_is_known_to_be_right() {
    let scene = Scene::acting(r#"{"init": {"demand": "{dir}/answered", "mark": "{dir}/gpu"}}"#);
    with_runtime(&scene, 12040, "");
    let ran = wanting_runtime(scene).run(&[]);
    assert_eq!(ran.exit(), 0, "{ran}");
}

#[test]
fn commands_wait_for_the_driver_and_for_each_other() {
    let waits = |name: &str, needs: &str, makes: &str| {
        let script = format!("test -e {needs} && echo > {makes}");
        json!({"name": name, "argv": ["sh", "-c", script]})
    };
    let scene = Scene::acting(
        r#"{"import torch": {"mark": "{dir}/begun"}, "matmul float16": {"mark": "{dir}/last"}}"#,
    )
    .driver(r#"{"calls": {"cuDeviceGetCount": {"delay_ms": 300, "mark": "{dir}/answered"}}}"#)
    // The manifest's order is that of the commands; what comes with this program goes first wherever it stands.
    .smoke(json!([
        waits("one", "last", "1"),
        "torch",
        waits("two", "1", "2"),
        waits("three", "2", "3")
    ]));
    scene.prove(0, &[]);
    let alone = Scene::new()
        .driver(r#"{"calls": {"cuDeviceGetCount": {"delay_ms": 300, "mark": "{dir}/answered"}}}"#)
        .smoke(json!([waits("alone", "answered", "x")]));
    alone.prove(0, &[]);
}

#[test]
fn a_failed_image_ends_the_smoke_at_once() {
    let scene = Scene::acting(HANGS);
    with_runtime(&scene, 12010, "begun");
    let scene = wanting_runtime(scene);
    let ran = scene.run(&["--smoke-timeout", "1h"]);
    assert_eq!(ran.exit(), 81, "{ran}");
    scene.world.assert_nothing_left();
    assert!(scene.world.path("begun").exists() && !scene.world.path("gpu").exists());
    assert_eq!(ran.codes("fail"), ["cudart-version"], "{ran}");
    let skipped = ran.problem("smoke-forward");
    assert_eq!(skipped["message"], "not run: the image stage failed");
    assert_eq!(ran.report["smoke"]["status"], "not-run");
    assert!(ran.report["facts"].get("smoke").is_none());
    // And one that is fast gets nowhere near the GPU.
    let scene = Scene::acting(r#"{"import torch": {"mark": "{dir}/begun"}, "init": {"mark": "{dir}/gpu"}}"#);
    with_runtime(&scene, 12010, "begun");
    let scene = wanting_runtime(scene);
    assert_eq!(scene.run(&[]).exit(), 81);
    assert!(!scene.world.path("gpu").exists());
    // A fact of a smoke that was ended is taken for nothing else.
    assert_eq!(ran.report["facts"]["device"]["devices"], json!([]));
}

#[test]
fn a_failed_device_ends_the_smoke_at_once() {
    for (driver, exit, code) in [
        (
            r#"{"calls": {"cuInit": {"await": "{dir}/begun", "returns": 100}}}"#,
            82,
            "gpu-missing",
        ),
        (
            r#"{"calls": {"cuInit": {"await": "{dir}/begun", "signal": 11}}}"#,
            82,
            "helper-crashed",
        ),
        (
            r#"{"devices": [{"cc": "12.0"}], "calls": {"cuInit": {"await": "{dir}/begun"}}}"#,
            83,
            "arch-unsupported",
        ),
    ] {
        let scene = Scene::acting(HANGS).driver(driver).manifest(
            json!({"schema": 1, "name": "t", "archs": "9.0", "smoke": ["torch", {"name": "own", "argv": ["touch", "own"]}]}),
        );
        let ran = scene.run(&["--smoke-timeout", "1h"]);
        assert_eq!(ran.exit(), exit, "{ran}");
        scene.world.assert_nothing_left();
        assert_eq!(ran.codes("fail"), [code], "{ran}");
        let stage = if exit == 83 { "arch" } else { "device" };
        let skipped = ran.problem("smoke-forward");
        assert_eq!(skipped["subject"], "torch, own");
        assert_eq!(skipped["message"], format!("not run: the {stage} stage failed"));
        assert!(scene.world.path("begun").exists());
        assert!(!scene.world.path("gpu").exists() && !scene.world.path("own").exists());
    }
}

#[test]
fn under_check_nothing_is_cancelled() {
    let missing = json!({"schema": 1, "name": "t", "packages": {"nowhere": "*"}, "smoke": ["torch"]});
    let scene = Scene::new().manifest(missing.clone());
    let found = scene.check(&[]);
    assert_eq!(found.exit(), 81, "{found}");
    assert_eq!(found.codes("fail"), ["package-missing"]);
    assert_eq!(found.report["smoke"]["status"], "passed");
    assert!(found.to_string().contains("torch OK"), "{found}");
    // A smoke that fails as well does not take the image's place.
    let scene = Scene::acting(r#"{"matmul float32": {"difference": 1.0}}"#).manifest(missing);
    let found = scene.check(&[]);
    assert_eq!(
        (found.exit(), found.codes("fail")),
        (81, vec!["package-missing", "smoke-wrong"]),
        "{found}"
    );
    // Without a GPU what needs none is still proven.
    let scene = Scene::new().driver(r#"{"devices": []}"#);
    let found = scene.check(&[]);
    assert_eq!(
        (found.exit(), found.codes("fail")),
        (82, vec!["gpu-missing"]),
        "{found}"
    );
    assert!(found.to_string().contains("spconv imports (2.3.8)"), "{found}");
    assert!(
        found.to_string().contains("no usable GPU (gpu-missing)"),
        "{found}"
    );
    // A GPU of the wrong kind is one all the same.
    let scene = Scene::new()
        .driver(r#"{"devices": [{"cc": "12.0"}]}"#)
        .manifest(json!({"schema": 1, "name": "t", "archs": "9.0", "smoke": ["spconv"]}));
    let found = scene.check(&[]);
    assert_eq!(
        (found.exit(), found.codes("fail")),
        (83, vec!["arch-unsupported"]),
        "{found}"
    );
    assert!(found.to_string().contains("spconv forward OK"), "{found}");
}
