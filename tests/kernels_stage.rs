//! Kernels in the image and architecture stages, and `stack capture`, through the binary: on the published wheels of
//! spconv and cumm, and on libraries built here.
#![cfg(feature = "entrypoint")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::support::fakes;
use crate::support::image::{Checked, Image, demo_manifest, entrypoint};
use crate::support::testing::{Entry, container, library};

const SPCONV: &str = "spconv/core_cc.cpython-311-x86_64-linux-gnu.so";
const CUMM: &str = "cumm/core_cc.cpython-311-x86_64-linux-gnu.so";

/// The findings of the kernels alone: `code status subject`.
fn kernels(checked: &Checked) -> Vec<String> {
    let text = |f: &Value, key: &str| f[key].as_str().unwrap().to_string();
    checked
        .findings()
        .filter(|f| text(f, "code").starts_with("kernels-"))
        .map(|f| format!("{} {} {}", text(f, "code"), text(f, "status"), text(f, "subject")))
        .collect()
}

fn with_archs(image: &Image, archs: &str) -> Checked {
    image.check_with(&demo_manifest(), |command| {
        command.args(["--archs", archs]);
    })
}

/// Puts a library with a kernel for `arch` only below site-packages.
fn own_extension(image: &Image, name: &str, arch: u32) {
    let file = image.root().join("built.so");
    fs::write(&file, library(&[container(&[Entry::sass(arch, true)])])).unwrap();
    image.put(name, &file);
    fs::remove_file(file).unwrap();
}

#[test]
fn the_wheels_serve_the_list_of_the_demo() {
    let image = Image::real();
    let checked = image.check(&demo_manifest());
    assert_eq!(checked.exit, 0, "{}", checked.table);
    assert_eq!(kernels(&checked), ["kernels-missing pass CUDA extensions"]);
    checked.says("363 of 606 fatbins with kernels");
    let facts = checked.report["facts"]["image"]["kernels"].as_array().unwrap();
    let seen: Vec<_> = facts
        .iter()
        .map(|m| {
            (
                m["package"].as_str().unwrap(),
                m["fatbins"].as_u64(),
                m["with_kernels"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("cumm-cu124", Some(1), Some(0)),
            ("spconv-cu124", Some(606), Some(363))
        ]
    );
    assert_eq!(facts[1]["path"], image.path(SPCONV));
    assert_eq!(facts[1]["sass"]["8.9"], 363);
    assert_eq!(facts[1]["ptx"], json!({"9.0": 363}));
    assert_eq!(facts[1]["served"]["9.0"], json!({"sass": 363, "ptx": 0}));
}

#[test]
fn a_newer_architecture_is_served_by_ptx_alone() {
    let image = Image::real();
    let checked = with_archs(&image, "9.0 10.0");
    assert_eq!(checked.exit, 0, "{}", checked.table);
    assert_eq!(kernels(&checked), [format!("kernels-ptx-only warn {SPCONV}")]);
    checked.says("serves 10.0 by PTX alone");
    let meant = with_archs(&image, "9.0 10.0+PTX");
    assert!(
        kernels(&meant).contains(&format!("kernels-ptx-only info {SPCONV}")),
        "{}",
        meant.table
    );
}

#[test]
fn an_architecture_that_nothing_serves_is_a_failure() {
    let checked = with_archs(&Image::real(), "3.5 9.0");
    assert_eq!(checked.exit, 81, "{}", checked.table);
    assert_eq!(kernels(&checked), [format!("kernels-missing fail {SPCONV}")]);
    checked.says("has no kernels for 3.5: none of its 363 fatbins");
}

#[test]
fn a_truncated_library_is_told_with_its_place() {
    let image = Image::real();
    let whole = fs::read(image.site().join(CUMM)).unwrap();
    let half = image.root().join("half.so");
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    image.put(CUMM, &half);
    let checked = image.check(&demo_manifest());
    assert_eq!(checked.exit, 81, "{}", checked.table);
    assert!(
        kernels(&checked).contains(&format!("kernels-missing fail {CUMM}")),
        "{}",
        checked.table
    );
    let finding = checked.problem("kernels-missing");
    assert!(
        finding["observed"].as_str().unwrap().contains("at offset 0x"),
        "{finding}"
    );
    assert!(
        finding["hint"]
            .as_str()
            .unwrap()
            .contains("--force-reinstall --no-deps cumm-cu124"),
        "{finding}"
    );
}

#[test]
fn an_own_extension_warns_and_a_named_one_fails() {
    const OWN: &str = "pointops_cuda.cpython-311-x86_64-linux-gnu.so";
    let image = Image::real();
    own_extension(&image, OWN, 80);
    let checked = image.check(&demo_manifest());
    assert_eq!(checked.exit, 0, "{}", checked.table);
    assert!(
        kernels(&checked).contains(&format!("kernels-missing warn {OWN}")),
        "{}",
        checked.table
    );
    checked.says("has no kernels for 7.5, 9.0: its one fatbin with kernels cannot run there");
    image.wheel("pointops", "1.0", "cp311-cp311-linux_x86_64");
    let mut manifest = demo_manifest();
    manifest["packages"]["pointops"] = json!("*");
    let checked = image.check(&manifest);
    assert_eq!(checked.exit, 81, "{}", checked.table);
    assert!(
        kernels(&checked).contains(&format!("kernels-missing fail {OWN}")),
        "{}",
        checked.table
    );
}

#[test]
fn a_gpu_that_a_package_cannot_run_on_is_another_node_s_business() {
    let image = Image::empty();
    own_extension(&image, "own/ops.so", 80);
    image.wheel("own", "1.0", "cp311-cp311-linux_x86_64");
    let manifest = json!({"schema": 1, "name": "t", "packages": {"own": "*"}});
    let stack = image.manifest(&manifest);
    for (devices, exit, status) in [
        (r#"[{"name": "A", "cc": "9.0"}]"#, 83, "fail"),
        (r#"[{"name": "B", "cc": "8.6"}]"#, 0, "pass"),
    ] {
        let script = image.root().join("script.json");
        fs::write(&script, format!(r#"{{"devices": {devices}}}"#)).unwrap();
        for stage in ["device", "all"] {
            let mut command = entrypoint();
            command.args(["check", "--report", "-", "--stage", stage, "--termination-log"]);
            command.arg(image.root().join("termination"));
            command
                .arg("--stack")
                .arg(&stack)
                .arg("--python")
                .arg(image.env());
            command
                .env("LD_LIBRARY_PATH", fakes::fake_driver_dir())
                .env("FAKE_GPU_SCRIPT", &script);
            let output = command.output().unwrap();
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let findings = report["findings"].as_array().unwrap();
            let found = findings.iter().find(|f| f["code"] == "kernels-unusable");
            let found = found.unwrap_or_else(|| panic!("{stage}: {report:#}"));
            assert_eq!(found["status"], status, "{stage}: {found}");
            assert_eq!(output.status.code(), Some(exit), "{stage}: {report:#}");
        }
    }
}

/// `stack capture` of an environment.
fn capture(image: &Image, env: &Path) -> Output {
    let mut command = entrypoint();
    command.args(["stack", "capture", "--python"]).arg(env);
    command.current_dir(image.root()).output().unwrap()
}

#[test]
fn a_captured_stack_passes_unedited_where_it_was_captured() {
    let image = Image::real();
    let output = capture(&image, &image.env());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "schema": 1,
        "name": "captured",
        "cuda": {"runtime": "12.4", "nvrtc": "12.4", "driver": ">=12.4"},
        "archs": "7.0;7.5;8.0;8.6;8.9;9.0",
        "env": {"CUMM_DISABLE_JIT": "1", "SPCONV_DISABLE_JIT": "1"},
        "packages": {
            "cumm-cu124": "==0.8.2",
            "nvidia-cuda-nvrtc-cu12": "==12.4.127",
            "nvidia-cuda-runtime-cu12": "==12.4.127",
            "spconv-cu124": "==2.3.8",
        },
    });
    assert_eq!(manifest, expected);
    let checked = image.check(&manifest);
    assert_eq!(checked.exit, 0, "{}", checked.table);
    // And it is a manifest of this environment: another one fails.
    image.remove(SPCONV);
    own_extension(&image, SPCONV, 90);
    assert_eq!(image.check(&manifest).exit, 81);
}

#[test]
fn an_environment_without_cuda_has_nothing_to_capture() {
    let image = Image::empty();
    image.wheel("numpy", "1.26.4", "cp311-cp311-manylinux_2_17_x86_64");
    let nowhere: PathBuf = image.root().join("nowhere");
    for (env, part) in [
        (image.env(), "there is nothing of CUDA to capture in "),
        (nowhere, "no Python environment was found"),
    ] {
        let output = capture(&image, &env);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout),
            (Some(81), Vec::new()),
            "{stderr}"
        );
        assert!(stderr.contains(part) && stderr.contains("hint: "), "{stderr}");
    }
}
