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
    // The table has the sentence, the report what was seen.
    let seen = checked
        .findings()
        .find(|finding| finding["subject"] == "CUDA extensions");
    let seen = seen.unwrap()["observed"].as_str().unwrap();
    assert!(seen.contains("363 of 606 fatbins with kernels"), "{seen}");
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
    assert_eq!(
        facts[1]["ptx_isa"],
        json!([{"arch": "9.0", "version": "8.4", "fatbins": 363}])
    );
    assert_eq!(facts[1]["served"]["9.0"], json!({"sass": 363, "ptx": 0}));
}

#[test]
fn a_newer_architecture_is_served_by_ptx_alone() {
    let image = Image::real();
    let checked = with_archs(&image, "9.0 10.0");
    assert_eq!(checked.exit, 0, "{}", checked.table);
    assert_eq!(kernels(&checked), [format!("kernels-ptx-only warn {SPCONV}")]);
    checked.says("supports 10.0 by PTX alone, of version 8.4");
    checked.says("only a driver for CUDA 12.4 or newer can");
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

/// Puts a library of these fat binaries, one for each list of entries, below site-packages.
fn put_library(image: &Image, name: &str, fatbins: &[&[Entry]]) {
    let file = image.root().join("built.so");
    let fatbins: Vec<_> = fatbins.iter().map(|entries| container(entries)).collect();
    fs::write(&file, library(&fatbins)).unwrap();
    image.put(name, &file);
    fs::remove_file(file).unwrap();
}

fn sass(arch: u32) -> Entry {
    Entry::sass(arch, true)
}

/// An `a` variant.
fn sass_a(arch: u32) -> Entry {
    sass(arch).with(0x10_0000)
}

/// An `f` variant, as nvcc 12.9 and later write it.
fn sass_f(arch: u32) -> Entry {
    sass(arch).with(0x120_0000)
}

/// `check` of the device stage, or of all, on a GPU and a driver.
fn on_gpu(image: &Image, packages: &[&str], capability: &str, driver: u32, more: &[&str]) -> Checked {
    let packages: serde_json::Map<_, _> = packages.iter().map(|p| (p.to_string(), json!("*"))).collect();
    let stack = image.manifest(&json!({"schema": 1, "name": "t", "packages": packages}));
    let script = image.root().join("script.json");
    let release = format!("{driver}.1");
    let gpu = json!({"driver_api": driver, "driver_release": release, "devices": [{"name": "G", "cc": capability}]});
    fs::write(&script, gpu.to_string()).unwrap();
    let mut command = entrypoint();
    command.args(["check", "--stage", "device"]).args(more);
    command
        .arg("--stack")
        .arg(&stack)
        .arg("--python")
        .arg(image.env());
    command
        .env("LD_LIBRARY_PATH", fakes::fake_driver_dir())
        .env("FAKE_GPU_SCRIPT", &script);
    image.run_check(command)
}

/// The exit code, and the kernels' findings on a GPU: `status message`.
fn told_on(checked: &Checked) -> (i32, Vec<String>) {
    let text = |f: &Value, key: &str| f[key].as_str().unwrap().to_string();
    let found = checked
        .findings()
        .filter(|f| f["code"] == "kernels-unusable")
        .map(|f| format!("{} {}", text(f, "status"), text(f, "message")))
        .collect();
    (checked.exit, found)
}

#[test]
fn a_package_of_alternatives_runs_where_one_of_them_does() {
    let image = Image::empty();
    image.wheel("vllm", "1.0", "cp38-abi3-manylinux_2_28_x86_64");
    put_library(
        &image,
        "vllm/_C.abi3.so",
        &[
            &[sass(75), sass(80), sass(90), sass(100)],
            &[sass(80)],
            &[sass(80)],
        ],
    );
    put_library(
        &image,
        "vllm/fa/_fa3_C.abi3.so",
        &[&[sass_a(90)], &[sass_a(90)], &[sass_a(90)]],
    );
    put_library(&image, "vllm/_flashmla_C.abi3.so", &[&[sass_a(90), sass_f(100)]]);
    put_library(
        &image,
        "vllm/_qutlass_C.abi3.so",
        &[&[sass_f(100)], &[sass_f(120)]],
    );
    for (capability, exit, expected) in [
        ("7.0", 83, vec!["fail vllm has no kernels that this GPU can run"]),
        (
            "7.5",
            0,
            vec![
                "pass 1 package holds",
                "info 3 of 4 libraries have no code that runs on 7.5",
            ],
        ),
        (
            "8.6",
            0,
            vec![
                "pass 1 package holds",
                "info 3 of 4 libraries have no code that runs on 8.6",
            ],
        ),
        (
            "9.0",
            0,
            vec![
                "pass 1 package holds",
                "info 1 of 4 libraries has no code that runs on 9.0",
            ],
        ),
        // the family of 10.0f, and of 12.0f
        (
            "10.3",
            0,
            vec![
                "pass 1 package holds",
                "info 1 of 4 libraries has no code that runs on 10.3",
            ],
        ),
        (
            "12.1",
            0,
            vec![
                "pass 1 package holds",
                "warn 3 of 4 libraries have no code that runs on 12.1",
            ],
        ),
        ("11.0", 83, vec!["fail vllm has no kernels that this GPU can run"]),
    ] {
        let checked = on_gpu(&image, &["vllm"], capability, 13000, &[]);
        let (code, found) = told_on(&checked);
        assert_eq!(code, exit, "{capability}: {}", checked.table);
        assert_eq!(found.len(), expected.len(), "{capability}: {found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{capability}: {found}");
        }
    }
    // At build: one note for what single libraries lack, and a failure for what nothing serves.
    let manifest = json!({"schema": 1, "name": "t", "packages": {"vllm": "*"}});
    let with_archs = |archs: &str| {
        image.check_with(&manifest, |command| {
            command.args(["--archs", archs]);
        })
    };
    let good = with_archs("7.5;8.0;9.0;10.0");
    assert_eq!(good.exit, 0, "{}", good.table);
    assert_eq!(
        kernels(&good),
        [
            "kernels-missing pass CUDA extensions",
            "kernels-missing info vllm"
        ]
    );
    let bad = with_archs("7.0;9.0;11.0");
    assert_eq!(bad.exit, 81, "{}", bad.table);
    assert_eq!(
        kernels(&bad),
        ["kernels-missing fail vllm", "kernels-missing info vllm"]
    );
    bad.says("vllm has no kernels for 7.0, 11.0: none of its 4 libraries can run there");
}

#[test]
fn a_library_for_each_cuda_is_one_package() {
    let image = Image::empty();
    image.wheel("bitsandbytes", "0.50", "py3-none-manylinux_2_24_x86_64");
    let old = [sass(75), sass(80), sass(90)];
    let new = [sass(75), sass(80), sass(90), sass(100), sass(120)];
    for (cuda, entries) in [("118", &old[..]), ("121", &old), ("124", &old), ("128", &new)] {
        put_library(
            &image,
            &format!("bitsandbytes/libbitsandbytes_cuda{cuda}.so"),
            &[entries],
        );
    }
    for (capability, exit) in [
        ("7.5", 0),
        ("8.9", 0),
        ("9.0", 0),
        ("10.0", 0),
        ("12.0", 0),
        ("6.1", 83),
    ] {
        let checked = on_gpu(&image, &["bitsandbytes"], capability, 13000, &[]);
        let (code, found) = told_on(&checked);
        assert_eq!(code, exit, "{capability}: {}", checked.table);
        assert!(
            found.iter().all(|f| !f.starts_with("warn")),
            "{capability}: {found:#?}"
        );
    }
}

#[test]
fn a_helper_with_kernels_for_all_does_not_hide_an_extension_with_none() {
    let image = Image::empty();
    image.wheel("own", "1.0", "cp311-cp311-linux_x86_64");
    let all = [sass(75), sass(80), sass(90), sass(120)];
    put_library(&image, "own/_helper.so", &[&all]);
    put_library(&image, "own/_C.so", &[&[sass(80)], &[sass(80)]]);
    let checked = on_gpu(&image, &["own"], "9.0", 13000, &[]);
    let (code, found) = told_on(&checked);
    assert_eq!((code, found.len()), (0, 2), "{}", checked.table);
    assert!(
        found[1].starts_with("warn 1 of 2 libraries has no code that runs on 9.0"),
        "{found:#?}"
    );
    // A link's own fat binary has no kernels, however it is compressed: it serves nothing.
    put_library(&image, "own/_helper.so", &[&[Entry::sass(90, false)]]);
    let checked = on_gpu(&image, &["own"], "9.0", 13000, &[]);
    assert_eq!(checked.exit, 83, "{}", checked.table);
}

#[test]
fn what_has_no_name_of_its_own_is_the_distribution_s_that_recorded_it() {
    let image = Image::empty();
    image.wheel("sgl-kernel", "1.0", "cp310-abi3-manylinux2014_x86_64");
    image.write(
        "sgl_kernel-1.0.dist-info/RECORD",
        "lib/mscclpp.so,sha256=x,1\nsgl_kernel/ops.so,,\n",
    );
    put_library(&image, "lib/mscclpp.so", &[&[sass(80), sass(90)]]);
    let checked = on_gpu(&image, &["sgl-kernel"], "12.0", 13000, &[]);
    let (code, found) = told_on(&checked);
    assert_eq!((code, found.len()), (83, 1), "{}", checked.table);
    assert!(
        found[0].starts_with("fail sgl-kernel (mscclpp.so) has no kernels"),
        "{found:#?}"
    );
}

const PTX: &str = "\n.version 8.7\n.target sm_90\n.address_size 64\n.visible .entry k(){ret;}\n";

/// SASS 9.0 and PTX 9.0 of version 8.7, in an image's package `own`.
fn with_ptx_of_8_7() -> Image {
    let image = Image::empty();
    image.wheel("own", "1.0", "cp311-cp311-linux_x86_64");
    put_library(&image, "own/_C.so", &[&[sass(90), Entry::ptx(90, PTX)]]);
    image
}

#[test]
fn ptx_newer_than_the_driver_serves_nothing() {
    let image = with_ptx_of_8_7();
    for (capability, driver, exit) in [
        ("10.0", 12080, 0),
        ("12.0", 13000, 0),
        ("10.0", 12070, 83),
        ("10.0", 12040, 83),
        // SASS needs no driver that compiles.
        ("9.0", 12040, 0),
    ] {
        let checked = on_gpu(&image, &["own"], capability, driver, &[]);
        assert_eq!(checked.exit, exit, "{capability} {driver}: {}", checked.table);
    }
    let checked = on_gpu(&image, &["own"], "10.0", 12040, &[]);
    checked.says(
        "own (_C.so) has PTX alone for this GPU, of version 8.7 (CUDA 12.8); this driver (CUDA 12.4) compiles up to \
         8.4: its first kernel would fail with error 222",
    );
    checked.says("Update the node's driver to release 570.26 or newer for CUDA 12.8, or schedule");
    assert_eq!(
        checked.report["facts"]["image"]["kernels"][0]["ptx_isa"],
        json!([{"arch": "9.0", "version": "8.7", "fatbins": 1}])
    );
}

#[test]
fn a_receipt_of_the_image_is_judged_by_the_driver_that_is_there() {
    let image = with_ptx_of_8_7();
    let receipt = image.root().join("receipt.json");
    let receipt = receipt.to_str().unwrap();
    let manifest = json!({"schema": 1, "name": "t", "packages": {"own": "*"}});
    let built = image.check_with(&manifest, |command| {
        command.args(["--receipt", receipt, "--archs", "9.0;10.0+PTX"]);
    });
    assert_eq!(built.exit, 0, "{}", built.table);
    let archs = [
        "--archs",
        "9.0;10.0+PTX",
        "--receipt",
        receipt,
        "--smoke",
        "off",
        "--stage",
        "all",
    ];
    for (driver, exit) in [(12080, 0), (12040, 83), (13000, 0)] {
        let checked = on_gpu(&image, &["own"], "10.0", driver, &archs);
        assert_eq!(checked.exit, exit, "{driver}: {}", checked.table);
        assert_eq!(
            checked.report["facts"]["image"]["kernels"][0]["ptx_isa"][0]["version"],
            "8.7"
        );
    }
}

/// `stack capture` of an environment.
fn capture(image: &Image, env: &Path, options: &[&str]) -> Output {
    let mut command = entrypoint();
    command
        .args(["stack", "capture", "--python"])
        .arg(env)
        .args(options);
    command.current_dir(image.root()).output().unwrap()
}

#[test]
fn a_captured_stack_passes_where_it_was_captured_once_its_contradiction_is_accepted() {
    let image = Image::real();
    // pip refuses the pair, and it works.
    let output = capture(&image, &image.env(), &["--allow", "requires-dist"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let mut manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "$schema": "./stack.schema.json",
        "schema": 1,
        "name": "captured",
        "cuda": {"runtime": "12.4", "nvrtc": "12.4", "driver": ">=12.0"},
        "archs": "5.0;5.2;6.0;6.1;7.0;7.5;8.0;8.6;8.9;9.0;10.0+PTX;10.3+PTX;12.0+PTX;12.1+PTX",
        "env": {"CUMM_DISABLE_JIT": "1", "SPCONV_DISABLE_JIT": "1"},
        "packages": {
            "cumm-cu124": "==0.8.2",
            "nvidia-cuda-nvrtc-cu12": "==12.4.127",
            "nvidia-cuda-runtime-cu12": "==12.4.127",
            "spconv-cu124": "==2.3.8",
        },
    });
    assert_eq!(manifest, expected);
    manifest["accept"] = demo_manifest()["accept"].clone();
    let checked = image.check(&manifest);
    assert_eq!(checked.exit, 0, "{}", checked.table);
    // Unless it is accepted, a manifest of the pair does not pass.
    let refused = capture(&image, &image.env(), &[]);
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(81), "{stderr}");
    let part = r#""accept": [{"code": "requires-dist", "package": "cumm-cu124", "#;
    assert!(stderr.contains(part), "{stderr}");
    let loose: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(image.check(&loose).exit, 81);
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
        (image.env(), "no CUDA packages were found in "),
        (nowhere, "no Python environment was found"),
    ] {
        let output = capture(&image, &env, &[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), output.stdout),
            (Some(81), Vec::new()),
            "{stderr}"
        );
        assert!(stderr.contains(part) && stderr.contains("hint: "), "{stderr}");
    }
}
