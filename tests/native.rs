//! `--smoke native` through the binary: the helper lets the fake driver's GPUs compute, and load the kernels of spconv's
//! published wheel and of libraries built here.
#![cfg(feature = "entrypoint")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::fakes;
use crate::support::image::{Image, add_kernels, c_library, demo_manifest, entrypoint};
use crate::support::testing::{Entry, container, library};

const SPCONV: &str = "spconv/core_cc.cpython-311-x86_64-linux-gnu.so";

/// An image, a manifest and a machine.
struct Scene {
    image: Image,
    manifest: Value,
}

/// What a run said.
struct Proven {
    exit: i32,
    report: Value,
    stderr: String,
}

impl Scene {
    fn spconv() -> Self {
        Self {
            image: Image::real(),
            manifest: demo_manifest(),
        }
    }

    /// One package with one library, of these fat binaries.
    fn own(fatbins: &[&[Entry]]) -> Self {
        let image = Image::empty();
        let file = image.root().join("built.so");
        let fatbins: Vec<_> = fatbins.iter().map(|entries| container(entries)).collect();
        fs::write(&file, library(&fatbins)).unwrap();
        image.put("own/ops.so", &file);
        image.wheel("own", "1.0", "cp311-cp311-linux_x86_64");
        Self {
            image,
            manifest: json!({"schema": 1, "name": "t", "packages": {"own": "*"}}),
        }
    }

    fn command(&self, verb: &str, script: &Value, options: &[&str]) -> Command {
        let root = self.image.root();
        let (machine, stack) = (root.join("machine.json"), self.image.manifest(&self.manifest));
        fs::write(&machine, script.to_string()).unwrap();
        let mut command = entrypoint();
        command.arg(verb).args(options).arg("--termination-log");
        command.arg(root.join("termination"));
        command
            .arg("--stack")
            .arg(stack)
            .arg("--python")
            .arg(self.image.env());
        // The code in the working folder counts for a receipt.
        command.current_dir(root);
        command
            .env("LD_LIBRARY_PATH", fakes::fake_driver_dir())
            .env("FAKE_GPU_SCRIPT", machine);
        command
    }

    fn check(&self, script: Value, options: &[&str]) -> Proven {
        let options = [&["--report", "-"], options].concat();
        let output = self.command("check", &script, &options).output().unwrap();
        Proven {
            exit: output.status.code().unwrap_or(-1),
            report: serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr))),
            stderr: text(&output),
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Proven {
    fn smoke(&self) -> Vec<&Value> {
        let findings = self.report["findings"].as_array().unwrap();
        findings.iter().filter(|f| f["stage"] == "smoke").collect()
    }

    /// The one finding of the smoke that failed.
    fn failure(&self) -> &Value {
        let failed: Vec<&Value> = self
            .smoke()
            .into_iter()
            .filter(|f| f["status"] == "fail")
            .collect();
        assert_eq!(failed.len(), 1, "{:#}", self.report["findings"]);
        failed[0]
    }

    fn native(&self) -> &Value {
        &self.report["facts"]["smoke"]["native"]
    }

    fn fails(&self, exit: i32, code: &str, parts: &[&str]) {
        let failure = self.failure();
        assert_eq!(
            (self.exit, failure["code"].as_str()),
            (exit, Some(code)),
            "{failure}"
        );
        for part in parts {
            assert!(failure.to_string().contains(part), "{part}: {failure}");
        }
    }
}

const NATIVE: [&str; 2] = ["--smoke", "native"];
const ALONE: [&str; 4] = ["--stage", "smoke", "--smoke", "native"];

#[test]
fn spconv_s_own_kernels_load_and_the_gpu_computes() {
    let proven = Scene::spconv().check(json!({}), &NATIVE);
    assert_eq!(proven.exit, 0, "{:#}", proven.report["findings"]);
    let native = proven.native();
    assert_eq!(native["end"], "done");
    assert_eq!(native["libraries"][0]["usable"], 363);
    // None of its SASS is compressed, so that all of it is loaded.
    assert_eq!(native["loads"][0]["loaded"], 363);
    assert_eq!(proven.report["smoke"]["mode"], "native");
    assert_eq!(proven.report["smoke"]["native"], "sample");
    assert_eq!(proven.report["smoke"]["status"], "passed");
    let said: Vec<&str> = proven
        .smoke()
        .iter()
        .filter_map(|f| f["message"].as_str())
        .collect();
    assert!(said.iter().any(|s| s.contains("computes: 4 MiB")), "{said:?}");
    assert!(
        said.iter()
            .any(|s| s.contains("the driver loads 363 fatbins for 9.0")),
        "{said:?}"
    );
}

#[test]
fn a_service_starts_behind_it_and_the_line_says_what_was_proven() {
    let scene = Scene::spconv();
    let mut command = scene.command("run", &json!({}), &NATIVE);
    let output = command.args(["--", "sh", "-c", "echo served"]).output().unwrap();
    let stderr = text(&output);
    assert_eq!(output.stdout, b"served\n", "{stderr}");
    assert!(stderr.contains("smoke: native on 1 GPU"), "{stderr}");
    assert!(stderr.contains("GPU computes, 363 fatbins load"), "{stderr}");
}

#[test]
fn where_the_manifest_has_no_smoke_run_says_that_native_exists() {
    let scene = Scene::own(&[&[Entry::sass(90, true)]]);
    let mut command = scene.command("run", &json!({}), &[]);
    let output = command.args(["--", "true"]).output().unwrap();
    assert_eq!(
        text(&output).matches("--smoke native").count(),
        1,
        "{}",
        text(&output)
    );
    let mut command = scene.command("run", &json!({}), &["--smoke", "off"]);
    let output = command.args(["--", "true"]).output().unwrap();
    assert!(!text(&output).contains("--smoke native"), "{}", text(&output));
}

#[test]
fn a_gpu_that_computes_wrongly_is_taken_out_of_service() {
    let proven = Scene::spconv().check(json!({"devices": [{"computes_wrongly": true}]}), &NATIVE);
    proven.fails(
        82,
        "smoke-device",
        &[
            "this GPU computes wrongly",
            "of 1048576 values",
            "drain the node",
            "GPU-",
        ],
    );
    // Nothing more is asked of it.
    assert_eq!(proven.native()["loads"], Value::Null);
}

#[test]
fn each_visible_gpu_is_proven_where_all_are_asked_for() {
    let machine =
        || json!({"devices": [{"repeat": 2}, {"computes_wrongly": true, "name": "NVIDIA L4", "cc": "8.9"}]});
    let scene = Scene::spconv();
    let first = scene.check(machine(), &NATIVE);
    assert_eq!(first.exit, 0, "{:#}", first.report["findings"]);
    assert_eq!(first.native()["devices"].as_array().unwrap().len(), 1);
    let all = scene.check(machine(), &["--smoke", "native", "--smoke-devices", "all"]);
    all.fails(
        82,
        "smoke-device",
        &["GPU 2 (NVIDIA L4): this GPU computes wrongly"],
    );
    let native = all.native();
    assert_eq!(native["devices"].as_array().unwrap().len(), 3);
    // Two capabilities, so that the library is listed for each; the one that computes wrongly loads nothing.
    assert_eq!(native["libraries"].as_array().unwrap().len(), 2);
    assert_eq!(native["loads"].as_array().unwrap().len(), 2);
}

#[test]
fn a_damaged_cubin_is_the_image_s_fault_and_told_with_its_place() {
    let scene = Scene::spconv();
    let mut bytes = fs::read(scene.image.site().join(SPCONV)).unwrap();
    // A cubin for 9.0: machine 190 is CUDA, and the low byte of its flags the architecture.
    let is_of_hopper =
        |at: &usize| bytes[*at..].starts_with(b"\x7fELF") && bytes[at + 18] == 190 && bytes[at + 48] == 90;
    let cubins: Vec<usize> = (0..bytes.len() - 64).step_by(8).filter(is_of_hopper).collect();
    assert_eq!(cubins.len(), 411);
    let place = cubins[200];
    let damaged = scene.image.root().join("damaged.so");
    bytes[place] = 0;
    fs::write(&damaged, bytes).unwrap();
    scene.image.put(SPCONV, &damaged);
    let proven = scene.check(json!({}), &ALONE);
    proven.fails(
        81,
        "kernel-load",
        &["core_cc", "offset 0x", "its kernels could not be loaded"],
    );
}

#[test]
fn code_for_another_architecture_is_another_node_s_business() {
    let scene = Scene::own(&[&[Entry::sass(80, true)]]);
    scene.check(json!({}), &ALONE).fails(
        83,
        "kernel-load",
        &["no code for compute capability 9.0", "209", "own (ops.so)"],
    );
    // The architecture's own check comes first where it is made.
    let all = scene.check(json!({}), &NATIVE);
    assert_eq!(all.exit, 83);
}

#[test]
fn ptx_that_is_newer_than_the_driver_is_told() {
    let scene = Scene::own(&[&[Entry::ptx(80, ".version 9.9\n.target sm_80\n.entry k").isa(9, 9)]]);
    scene
        .check(json!({}), &ALONE)
        .fails(83, "kernel-load", &["newer than this driver", "222"]);
}

#[test]
fn what_the_driver_refuses_has_its_party() {
    let scene = Scene::own(&[&[Entry::sass(90, true)]]);
    for (call, behaviour, exit, code, parts) in [
        (
            "cuDevicePrimaryCtxRetain",
            json!({"returns": 2}),
            82,
            "smoke-device",
            &["out of memory"][..],
        ),
        (
            "cuDevicePrimaryCtxRetain",
            json!({"returns": 46}),
            82,
            "smoke-device",
            &["busy"],
        ),
        (
            "cuMemAlloc_v2",
            json!({"returns": 2}),
            82,
            "smoke-device",
            &["cuMemAlloc_v2"],
        ),
        (
            "cuCtxSetCurrent",
            json!({"returns": 201}),
            82,
            "smoke-device",
            &["201"],
        ),
        (
            "cuStreamCreate",
            json!({"returns": 999}),
            82,
            "smoke-device",
            &["999"],
        ),
        (
            "cuEventCreate",
            json!({"returns": 304}),
            82,
            "smoke-device",
            &["304"],
        ),
        (
            "cuEventRecord",
            json!({"returns": 999}),
            82,
            "smoke-device",
            &["cuEventRecord"],
        ),
        (
            "cuStreamWaitEvent",
            json!({"returns": 999}),
            82,
            "smoke-device",
            &["cuStreamWaitEvent"],
        ),
        (
            "cuMemcpyHtoDAsync_v2",
            json!({"returns": 999}),
            82,
            "smoke-device",
            &["cuMemcpyHtoDAsync_v2"],
        ),
        (
            "cuMemcpyDtoHAsync_v2",
            json!({"returns": 999}),
            82,
            "smoke-device",
            &["cuMemcpyDtoHAsync_v2"],
        ),
        (
            "cuModuleGetFunction",
            json!({"returns": 500}),
            82,
            "smoke-device",
            &["cuModuleGetFunction"],
        ),
        (
            "cuLaunchKernel",
            json!({"returns": 719}),
            82,
            "smoke-device",
            &["719"],
        ),
        (
            "cuStreamSynchronize",
            json!({"returns": 214}),
            82,
            "smoke-device",
            &["ECC"],
        ),
        (
            "cuMemFree_v2",
            json!({"returns": 999}),
            82,
            "smoke-device",
            &["cuMemFree_v2"],
        ),
        (
            "cuFuncLoad",
            json!({"returns": 200}),
            81,
            "kernel-load",
            &["cuFuncLoad", "damaged"],
        ),
        (
            "cuFuncLoad",
            json!({"returns": 2}),
            82,
            "kernel-load",
            &["memory"],
        ),
        (
            "cuModuleGetFunctionCount",
            json!({"returns": 999}),
            82,
            "kernel-load",
            &["999"],
        ),
        (
            "cuModuleEnumerateFunctions",
            json!({"returns": 200}),
            81,
            "kernel-load",
            &["200"],
        ),
        (
            "cuFuncGetAttribute",
            json!({"returns": 200}),
            81,
            "kernel-load",
            &["cuFuncGetAttribute"],
        ),
        (
            "cuLaunchKernel",
            json!({"signal": 11}),
            82,
            "smoke-device",
            &["SIGSEGV", "cuLaunchKernel"],
        ),
        (
            "cuFuncLoad",
            json!({"signal": 7}),
            81,
            "kernel-load",
            &["SIGBUS", "own/ops.so"],
        ),
        (
            "cuStreamSynchronize",
            json!({"exit": 3}),
            82,
            "smoke-device",
            &["exit status 3"],
        ),
        (
            "cuModuleUnload",
            json!({"hang": true}),
            85,
            "smoke-timeout",
            &["own/ops.so"],
        ),
        (
            "cuDevicePrimaryCtxRetain",
            json!({"hang": true}),
            85,
            "smoke-timeout",
            &["cuDevicePrimaryCtxRetain"],
        ),
    ] {
        let script = json!({"calls": {call: behaviour}});
        let options = [&NATIVE[..], &["--device-timeout", "2s"]].concat();
        let proven = scene.check(script, &options);
        let failure = proven.failure();
        assert_eq!(
            (proven.exit, failure["code"].as_str()),
            (exit, Some(code)),
            "{call}: {failure}"
        );
        for part in parts {
            assert!(failure.to_string().contains(part), "{call}: {part}: {failure}");
        }
    }
}

/// A setting that services have for good reason, and a container that lacks the compiler: their compiled kernels run.
#[test]
fn a_driver_that_compiles_no_ptx_still_loads_compiled_kernels() {
    let scene = Scene::own(&[&[Entry::sass(90, true)]]);
    for (code, status) in [(223, "unknown"), (221, "warn")] {
        let proven = scene.check(json!({"ptx_error": code}), &NATIVE);
        assert_eq!(proven.exit, 0, "{:#}", proven.report["findings"]);
        let smoke = proven.smoke();
        let of_device = smoke.iter().find(|f| f["code"] == "smoke-device").unwrap();
        assert_eq!(of_device["status"], status, "{of_device}");
        assert!(
            of_device.to_string().contains("not proven that it computes"),
            "{of_device}"
        );
        assert_eq!(proven.native()["loads"][0]["loaded"], 1);
    }
}

#[test]
fn a_driver_before_cuda_12_4_loads_without_listing() {
    let scene = Scene::own(&[&[Entry::sass(90, true)]]);
    let folder = scene.image.root().join("driver");
    fs::create_dir(&folder).unwrap();
    let nvml = "libnvidia-ml.so.1";
    fs::copy(fakes::fake_driver_dir().join(nvml), folder.join(nvml)).unwrap();
    fs::write(
        folder.join("libcuda.so.1"),
        fakes::without("libcuda.so.1", "cuModuleGetFunctionCount"),
    )
    .unwrap();
    let options = [&["--report", "-"], &NATIVE[..]].concat();
    let mut command = scene.command("check", &json!({}), &options);
    let output = command.env("LD_LIBRARY_PATH", &folder).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{:#}", report["findings"]);
    let load = &report["facts"]["smoke"]["native"]["loads"][0];
    assert_eq!((&load["loaded"], &load["kernels"]), (&json!(1), &json!(0)));
}

#[test]
fn of_many_compressed_fatbins_a_sample_is_loaded_and_all_by_request() {
    let entry = || vec![Entry::packed_sass(90)];
    let fatbins: Vec<Vec<Entry>> = (0..100).map(|_| entry()).collect();
    let slices: Vec<&[Entry]> = fatbins.iter().map(Vec::as_slice).collect();
    let scene = Scene::own(&slices);
    let sample = scene.check(json!({}), &NATIVE);
    assert_eq!(
        sample.native()["loads"][0]["loaded"],
        32,
        "{:#}",
        sample.report["findings"]
    );
    let said = sample.smoke().iter().map(|f| f.to_string()).collect::<String>();
    assert!(said.contains("32 of 100 fatbins for 9.0, a sample"), "{said}");
    let all = scene.check(json!({}), &["--smoke", "native=all"]);
    assert_eq!(all.native()["loads"][0]["loaded"], 100);
    assert_eq!(all.report["smoke"]["native"], "all");
}

#[test]
fn the_manifest_can_ask_for_it_and_own_commands_wait_for_it() {
    let mut scene = Scene::own(&[&[Entry::sass(90, true)]]);
    scene.manifest["smoke"] = json!(["native", {"name": "own", "argv": ["true"], "gpu": true}]);
    let proven = scene.check(json!({}), &[]);
    assert_eq!(proven.exit, 0, "{:#}", proven.report["findings"]);
    assert_eq!(proven.report["smoke"]["mode"], "separate");
    assert_eq!(proven.native()["end"], "done");
    assert_eq!(proven.report["facts"]["smoke"]["commands"][0]["end"], "done");
    let wrong = scene.check(json!({"devices": [{"computes_wrongly": true}]}), &[]);
    wrong.fails(82, "smoke-device", &["computes wrongly"]);
    let command = &wrong.report["facts"]["smoke"]["commands"][0];
    assert_eq!(command["reason"], "the native smoke test failed", "{command}");
    // Alone it leaves the commands out.
    let alone = scene.check(json!({}), &NATIVE);
    assert_eq!(alone.report["facts"]["smoke"]["commands"], Value::Null);
    let off = scene.check(json!({}), &["--smoke", "off"]);
    assert_eq!(off.native(), &Value::Null);
    assert_eq!(off.report["smoke"]["status"], "not-run");
}

#[test]
fn without_a_gpu_it_is_left_out_with_the_reason() {
    let scene = Scene::own(&[&[Entry::sass(90, true)]]);
    let machine = || json!({"calls": {"cuInit": {"returns": 100}}});
    let optional = scene.check(machine(), &["--smoke", "native", "--gpu", "optional"]);
    assert_eq!(optional.exit, 0, "{:#}", optional.report["findings"]);
    assert_eq!(optional.native()["end"], "not-run");
    assert_eq!(optional.report["smoke"]["status"], "not-run");
    let off = scene.check(machine(), &["--smoke", "native", "--gpu", "off"]);
    assert_eq!((off.exit, &off.native()["reason"]), (0, &json!("--gpu off")));
    for options in [&NATIVE[..], &ALONE] {
        let required = scene.check(machine(), options);
        assert_eq!(required.exit, 82, "{options:?}");
    }
}

#[test]
fn a_busy_gpu_is_tried_again_under_wait() {
    let scene = Scene::own(&[&[Entry::sass(90, true)]]);
    let state = scene.image.root().join("state");
    let script = json!({
        "calls": {"cuDevicePrimaryCtxRetain": [{"returns": 46}, {}]},
        "state": state,
    });
    let proven = scene.check(script, &["--smoke", "native", "--wait", "20s"]);
    assert_eq!(proven.exit, 0, "{:#}", proven.report["findings"]);
    assert!(proven.stderr.contains("waiting up to"), "{}", proven.stderr);
}

#[test]
fn a_receipt_never_stands_for_a_stronger_proof() {
    let entries: Vec<Vec<Entry>> = (0..80).map(|_| vec![Entry::packed_sass(90)]).collect();
    let slices: Vec<&[Entry]> = entries.iter().map(Vec::as_slice).collect();
    let mut scene = Scene::own(&slices);
    scene.manifest["smoke"] = json!([{"name": "own", "argv": ["true"], "gpu": true}]);
    let receipt = scene.image.root().join("receipt.json");
    let start = |smoke: &str| {
        let options = ["--smoke", smoke, "--receipt", receipt.to_str().unwrap()];
        let mut command = scene.command("run", &json!({}), &options);
        let output = command.args(["--", "true"]).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{:?}: {}",
            output.status,
            text(&output)
        );
        text(&output)
    };
    let used = |said: &str| said.contains("smoke as proven");
    assert!(!used(&start("native")));
    assert!(used(&start("native")), "the same proof is taken");
    let more = start("native=all");
    assert!(!used(&more) && more.contains("loaded a sample"), "{more}");
    assert!(used(&start("native")), "a stronger one stands for a weaker");
    let other = start("separate");
    assert!(
        !used(&other) && other.contains("the native smoke test alone"),
        "{other}"
    );
    let native = start("native");
    assert!(
        !used(&native) && native.contains("no native smoke test"),
        "{native}"
    );
    assert!(!used(&start("native,separate")));
    for smoke in ["separate", "native", "native,separate"] {
        assert!(used(&start(smoke)), "{smoke}");
    }
}

#[test]
fn a_library_that_shrinks_meanwhile_is_told() {
    let scene = Scene::own(&[&[Entry::sass(90, true)]]);
    let file = scene.image.site().join("own/ops.so");
    let whole = fs::read(&file).unwrap();
    // The image stage reads it whole; the driver is asked for long enough to take half of it away.
    let script = json!({"calls": {"cuInit": {"delay_ms": 1500}}});
    let options = [&["--report", "-"], &NATIVE[..]].concat();
    let mut command = scene.command("check", &script, &options);
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(800));
    truncate(&file, whole.len() as u64 / 4);
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(81), "{:#}", report["findings"]);
    assert!(
        report.to_string().contains("it ends before the fatbin at"),
        "{:#}",
        report["findings"]
    );
}

fn truncate(file: &Path, length: u64) {
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_len(length).unwrap();
}

/// An image without Python: a program, and a library that it needs, both with kernels.
struct App {
    image: Image,
    folder: PathBuf,
}

impl App {
    fn new(arch: u32) -> Self {
        let image = Image::empty();
        let folder = image.root().join("app");
        let kernels = [container(&[Entry::sass(arch, true)])];
        fs::create_dir_all(folder.join("bin")).unwrap();
        let lib = folder.join("lib");
        fs::create_dir_all(&lib).unwrap();
        c_library(&lib, "libbase", "int base(void) { return 1; }");
        let ops = c_library(&lib, "libops", "int ops(void) { return 2; }");
        let source = image.root().join("main.c");
        fs::write(
            &source,
            "int ops(void); int base(void); int main(void) { return ops() + base() - 3; }",
        )
        .unwrap();
        let program = folder.join("bin/server");
        let status = Command::new("cc")
            .args(["-o", program.to_str().unwrap(), source.to_str().unwrap()])
            .arg("-L")
            .arg(&lib)
            .args(["-l:libops.so", "-l:libbase.so"])
            .arg("-Wl,-rpath,$ORIGIN/../lib")
            .status()
            .unwrap();
        assert!(status.success());
        add_kernels(&ops, &kernels);
        add_kernels(&program, &kernels);
        Self { image, folder }
    }

    fn program(&self) -> String {
        self.folder.join("bin/server").to_str().unwrap().to_string()
    }

    fn scene(self, archs: &str) -> Scene {
        let lib = self.folder.join("lib/*.so");
        let manifest = json!({
            "schema": 1, "name": "app", "archs": archs,
            "libraries": [self.program(), lib.to_str().unwrap()], "smoke": ["native"],
        });
        Scene {
            image: self.image,
            manifest,
        }
    }
}

/// The command of a scene without the environment that it names.
fn without_python(scene: &Scene, verb: &str, script: Value, options: &[&str]) -> Command {
    let root = scene.image.root();
    let (machine, stack) = (root.join("machine.json"), scene.image.manifest(&scene.manifest));
    fs::write(&machine, script.to_string()).unwrap();
    let mut command = entrypoint();
    command
        .arg(verb)
        .args(options)
        .arg("--termination-log")
        .arg(root.join("termination"));
    command.arg("--stack").arg(stack).current_dir(root);
    command
        .env("LD_LIBRARY_PATH", fakes::fake_driver_dir())
        .env("FAKE_GPU_SCRIPT", machine);
    command
}

fn report(mut command: Command) -> (i32, Value) {
    let output = command.args(["--report", "-"]).output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (
        output.status.code().unwrap_or(-1),
        report.unwrap_or_else(|e| panic!("{e}: {}", text(&output))),
    )
}

fn problems(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|f| f["status"] == "fail")
        .map(|f| {
            format!(
                "{}: {}",
                f["code"].as_str().unwrap(),
                f["message"].as_str().unwrap()
            )
        })
        .collect()
}

#[test]
fn libraries_outside_of_python_are_judged_and_loaded() {
    let scene = App::new(90).scene("9.0");
    let (exit, found) = report(without_python(&scene, "check", json!({}), &[]));
    assert_eq!(exit, 0, "{:#}", found["findings"]);
    let native = &found["facts"]["smoke"]["native"];
    let loaded: Vec<&Value> = native["loads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["loaded"])
        .collect();
    assert_eq!(
        loaded,
        [1, 1],
        "the program and libops.so; libbase.so has no kernels"
    );
    assert_eq!(
        found["facts"]["image"]["named_libraries"][1]["paths"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(found["facts"]["image"]["python"]["interpreter"], Value::Null);
    // The loader was asked about the program, which needs both libraries.
    let mapped = found["facts"]["image"]["loaded"].to_string();
    assert!(mapped.contains("libbase.so"), "{mapped}");
}

#[test]
fn what_is_wrong_with_a_named_library_fails_the_build() {
    let scene = App::new(80).scene("8.0;9.0");
    let (exit, found) = report(without_python(&scene, "check", json!({}), &["--stage", "image"]));
    assert_eq!(exit, 81, "{:#}", found["findings"]);
    let told = problems(&found).join("\n");
    assert!(
        told.contains("kernels-missing") && told.contains("has no kernels for 9.0"),
        "{told}"
    );
    // A GPU that none of it serves is another node's business.
    let mut other = App::new(80).scene("8.0");
    other.manifest.as_object_mut().unwrap().remove("archs");
    let (exit, found) = report(without_python(&other, "check", json!({}), &["--stage", "device"]));
    assert_eq!(exit, 83, "{:#}", found["findings"]);
    let (exit, found) = report(without_python(&other, "check", json!({}), &["--stage", "smoke"]));
    assert_eq!(exit, 83, "{:#}", found["findings"]);

    let scene = App::new(90).scene("9.0");
    let lib = scene.image.root().join("app/lib");
    fs::rename(lib.join("libbase.so"), lib.join("libbase.old")).unwrap();
    let (exit, found) = report(without_python(&scene, "check", json!({}), &["--stage", "image"]));
    assert_eq!(exit, 81, "{:#}", found["findings"]);
    let told = problems(&found).join("\n");
    assert!(
        told.contains("library-missing") && told.contains("does not find"),
        "{told}"
    );
    fs::remove_dir_all(&lib).unwrap();
    let (_, found) = report(without_python(&scene, "check", json!({}), &["--stage", "image"]));
    let told = problems(&found).join("\n");
    assert!(told.contains("file-missing: no file matches"), "{told}");
    fs::create_dir(&lib).unwrap();
    fs::write(lib.join("libops.so"), "no library").unwrap();
    let (exit, found) = report(without_python(&scene, "check", json!({}), &["--stage", "image"]));
    assert_eq!(exit, 81, "{:#}", found["findings"]);
    let told = problems(&found).join("\n");
    assert!(told.contains("libops.so"), "{told}");
}

#[test]
fn capture_writes_a_program_with_its_libraries_and_none_judges_them() {
    let app = App::new(90);
    let program = app.program();
    let scene = app.scene("9.0");
    let mut capture = entrypoint();
    capture.args(["stack", "capture", "--", &program]);
    let output = capture.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let captured: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(captured["smoke"], json!(["native"]));
    let named: Vec<&str> = captured["libraries"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(named.len(), 2, "{captured:#}");
    assert!(
        named[0].ends_with("bin/server") && named[1].ends_with("lib/libops.so"),
        "{named:?}"
    );
    assert_eq!(captured["python"], Value::Null);
    let scene = Scene {
        manifest: captured,
        ..scene
    };
    let (exit, found) = report(without_python(&scene, "check", json!({}), &[]));
    assert_eq!(exit, 0, "{:#}", found["findings"]);
    let mut none = entrypoint();
    none.args([
        "check", "--stack", "none", "--archs", "8.0", "--stage", "image", "--report", "-", "--", &program,
    ]);
    let output = none.output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(81), "{:#}", found["findings"]);
    // Behind wrappers and a start script it is the same program.
    let script = scene.image.root().join("start.sh");
    fs::write(
        &script,
        format!("#!/bin/sh\nset -e\nexport A=1\nexec {program} \"$@\"\n"),
    )
    .unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap().to_string();
    for words in [
        vec!["env", "A=1", &program],
        vec![&script, "x"],
        vec!["sh", "-c", &format!("exec {program}")],
    ] {
        let mut none = entrypoint();
        none.args([
            "check", "--stack", "none", "--archs", "8.0", "--stage", "image", "--",
        ])
        .args(&words);
        assert_eq!(none.output().unwrap().status.code(), Some(81), "{words:?}");
    }
    assert!(
        problems(&found).join(" ").contains("has no kernels for 8.0"),
        "{:#}",
        found["findings"]
    );
}

#[test]
fn a_receipt_rests_on_named_libraries() {
    let scene = App::new(90).scene("9.0");
    let receipt = scene.image.root().join("receipt.json");
    let start = || {
        let options = ["--receipt", receipt.to_str().unwrap()];
        let mut command = without_python(&scene, "run", json!({}), &options);
        let output = command.args(["--", "true"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        text(&output)
    };
    start();
    let again = start();
    assert!(again.contains("image, GPUs and smoke as proven"), "{again}");
    // A library without kernels, so that no fact of it is kept; and a new one that the pattern names.
    let lib = scene.image.root().join("app/lib");
    c_library(
        &lib,
        "libbase",
        "int base(void) { return 1; } int more(void) { return 2; }",
    );
    let changed = start();
    assert!(changed.contains("image not taken from it"), "{changed}");
    start();
    c_library(&lib, "libnew", "int new_one(void) { return 1; }");
    let more = start();
    assert!(more.contains("image not taken from it"), "{more}");
}

/// Reports of native proofs that are as unlike as can be.
pub fn reports() -> Vec<Value> {
    let scene = Scene::own(&[
        &[Entry::sass(90, true)],
        &[Entry::ptx(80, ".version 6.0\n.target sm_80\n.entry k")],
    ]);
    let options = [&NATIVE[..], &["--device-timeout", "2s"]].concat();
    let calls = [
        ("cuStreamSynchronize", json!({"returns": 214})),
        ("cuFuncLoad", json!({"returns": 200})),
        ("cuFuncLoad", json!({"signal": 11})),
        ("cuFuncLoad", json!({"print": "chatter", "exit": 3})),
        ("cuFuncLoad", json!({"hang": true})),
        // Only a device without an answer is garbled, or what is no protocol.
        ("cuStreamSynchronize", json!({"scribble": "no protocol\n"})),
    ];
    let machines = calls.map(|(call, behaviour)| json!({"calls": {call: behaviour}}));
    let wrong = json!({"devices": [{"computes_wrongly": true}]});
    let mut all: Vec<Value> = machines
        .into_iter()
        .chain([json!({}), wrong])
        .map(|machine| scene.check(machine, &options).report)
        .collect();
    all.push(
        scene
            .check(json!({}), &["--smoke", "native", "--gpu", "off"])
            .report,
    );
    // Damaged, so that its fatbins are not found.
    let file = scene.image.site().join("own/ops.so");
    let whole = fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    let magic = 0xba55_ed50_u32.to_le_bytes();
    let second = damaged.windows(4).rposition(|window| window == magic).unwrap();
    damaged[second] = 0;
    fs::write(&file, damaged).unwrap();
    all.push(scene.check(json!({}), &ALONE).report);
    fs::write(&file, &whole).unwrap();
    let script = json!({"calls": {"cuInit": {"delay_ms": 1500}}});
    let options = [&["--report", "-"], &NATIVE[..]].concat();
    let mut command = scene.command("check", &script, &options);
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(800));
    truncate(&file, whole.len() as u64 / 4);
    all.push(serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap());
    all
}

/// Compiles a program; the arguments are those of the C compiler.
fn compile(source: &str, to: &Path, options: &[&str]) {
    let input = to.with_extension("c");
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::write(&input, source).unwrap();
    let status = Command::new("cc")
        .arg("-o")
        .arg(to)
        .arg(&input)
        .args(options)
        .status()
        .unwrap();
    assert!(status.success(), "{options:?}");
    fs::remove_file(input).unwrap();
}

#[test]
fn each_program_has_a_run_of_the_loader_to_itself() {
    let app = App::new(90);
    let bin = app.folder.join("bin");
    let lib = app.folder.join("lib");
    let lib = lib.to_str().unwrap();
    // The same library, which only the first program's RUNPATH leads to.
    let source = "int ops(void); int main(void) { return ops() - 2; }";
    compile(source, &bin.join("lost"), &["-L", lib, "-l:libops.so"]);
    compile("int main(void) { return 0; }", &bin.join("static"), &["-static"]);
    compile(
        "int main(void) { return 0; }",
        &bin.join("static-pie"),
        &["-static-pie"],
    );
    let pattern = bin.join("*").to_str().unwrap().to_string();
    let mut scene = app.scene("9.0");
    scene.manifest["libraries"] = json!([pattern]);
    let (exit, found) = report(without_python(&scene, "check", json!({}), &["--stage", "image"]));
    assert_eq!(exit, 81, "{:#}", found["findings"]);
    let told = problems(&found).join("\n");
    assert!(
        told.contains("does not find libops.so, which") && told.contains("bin/lost needs"),
        "{told}"
    );
    assert!(!told.contains("static"), "{told}");
    fs::remove_file(scene.image.root().join("app/bin/lost")).unwrap();
    let (exit, found) = report(without_python(&scene, "check", json!({}), &["--stage", "image"]));
    assert_eq!(exit, 0, "{:#}", found["findings"]);
    let unknown = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["status"] == "unknown");
    assert_eq!(unknown.count(), 0, "{:#}", found["findings"]);
}

#[test]
fn a_library_that_is_one_directory_away_is_named() {
    let app = App::new(90);
    let (ops, lib) = (app.folder.join("lib/libops.so"), app.folder.join("lib"));
    compile(
        "int base(void); int more(void) { return base(); }",
        &lib.join("libmore.so"),
        &["-shared", "-fPIC", "-L", lib.to_str().unwrap(), "-l:libbase.so"],
    );
    let mut scene = app.scene("9.0");
    scene.manifest["libraries"] = json!([lib.join("libmore.so"), lib.join("libbase.so"), ops]);
    let (_, found) = report(without_python(&scene, "check", json!({}), &["--stage", "image"]));
    let findings = found["findings"].as_array().unwrap();
    let missing = findings
        .iter()
        .find(|f| f["code"] == "library-missing" && f["status"] == "fail");
    // It is preloaded itself, so that the name is there; alone it would be missing.
    assert!(
        missing.is_none_or(|f| f["hint"].as_str().unwrap().contains("It is in ")),
        "{missing:?}"
    );
    scene.manifest["libraries"] = json!([lib]);
    let (exit, found) = report(without_python(&scene, "check", json!({}), &["--stage", "image"]));
    assert_eq!(exit, 81);
    assert!(
        found
            .to_string()
            .contains("It is a directory: name the files in it, such as"),
        "{found:#}"
    );
    fs::write(lib.join("start.sh"), "#!/bin/sh\n").unwrap();
    scene.manifest["libraries"] = json!([lib.join("start.sh")]);
    let (exit, found) = report(without_python(&scene, "check", json!({}), &["--stage", "image"]));
    assert_eq!(exit, 81, "{:#}", found["findings"]);
    assert!(
        found.to_string().contains("not a script that starts it"),
        "{:#}",
        found["findings"]
    );
}

#[test]
fn no_file_stands_in_for_what_another_misses() {
    let app = App::new(90);
    let lib = app.folder.join("lib");
    let folder = lib.to_str().unwrap();
    // As CMake links it, with a SONAME; and a program that forgot the way to it.
    let shared = ["-shared", "-fPIC", "-Wl,-soname,libnear.so"];
    compile(
        "int near_by(void) { return 0; }",
        &lib.join("libnear.so"),
        &shared,
    );
    let program = app.folder.join("bin/lost");
    compile(
        "int near_by(void); int main(void) { return near_by(); }",
        &program,
        &["-L", folder, "-l:libnear.so"],
    );
    let mut scene = app.scene("9.0");
    scene.manifest["libraries"] = json!([lib.join("libnear.so"), program]);
    let check = |scene: &Scene| report(without_python(scene, "check", json!({}), &["--stage", "image"]));
    let (exit, found) = check(&scene);
    assert_eq!(exit, 81, "{:#}", found["findings"]);
    let told = found["findings"].to_string();
    assert!(
        told.contains("does not find libnear.so") && told.contains("It is in "),
        "{told}"
    );
    // A plug-in finds what the program that opens it has loaded, whichever of them that is.
    fs::remove_file(&program).unwrap();
    compile(
        "int near_by(void); int main(void) { return near_by(); }",
        &program,
        &[
            "-L",
            folder,
            "-l:libnear.so",
            "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib",
        ],
    );
    let plugin = scene.image.root().join("app/plug/libplug.so");
    compile(
        "int near_by(void); int plug(void) { return near_by(); }",
        &plugin,
        &["-shared", "-fPIC", "-L", folder, "-l:libnear.so"],
    );
    compile(
        "int main(void) { return 0; }",
        &scene.image.root().join("app/bin/client"),
        &[],
    );
    scene.manifest["libraries"] = json!([scene.image.root().join("app/bin/client"), program, plugin]);
    let (exit, found) = check(&scene);
    assert_eq!(exit, 0, "{:#}", found["findings"]);
    // One that is cut off ends the loader, and hides nothing of the others.
    let whole = fs::read(&plugin).unwrap();
    fs::write(plugin.with_file_name("libcut.so"), &whole[..whole.len() / 2]).unwrap();
    scene.manifest["libraries"] = json!([plugin, plugin.with_file_name("libcut.so")]);
    let (exit, found) = check(&scene);
    let told = problems(&found).join("\n");
    assert_eq!(exit, 81, "{:#}", found["findings"]);
    assert!(
        told.contains("libcut.so") && told.contains("does not find libnear.so"),
        "{told}"
    );
}

#[test]
fn a_program_for_a_loader_that_is_not_there_fails() {
    let app = App::new(90);
    let program = app.folder.join("bin/musl");
    let loader = "-Wl,--dynamic-linker=/lib/ld-musl-nowhere.so.1";
    compile("int main(void) { return 0; }", &program, &[loader]);
    let mut scene = app.scene("9.0");
    scene.manifest["libraries"] = json!([program]);
    let (exit, found) = report(without_python(&scene, "check", json!({}), &["--stage", "image"]));
    assert_eq!(exit, 81, "{:#}", found["findings"]);
    assert!(
        problems(&found)
            .join(" ")
            .contains("ld-musl-nowhere.so.1, does not exist"),
        "{found:#}"
    );
}

/// The driver answers before the loader and the libraries have: what they say counts all the same.
#[test]
fn the_driver_floor_waits_for_the_libraries() {
    let app = App::new(90);
    let lib = app.folder.join("lib");
    let source =
        "#include <unistd.h>\nint cudaRuntimeGetVersion(int *v) { usleep(700000); *v = 13050; return 0; }";
    compile(
        source,
        &lib.join("libcudart.so.13"),
        &["-shared", "-fPIC", "-Wl,-soname,libcudart.so.13"],
    );
    let program = app.folder.join("bin/needs");
    compile(
        "int cudaRuntimeGetVersion(int *); int main(void) { int v; return cudaRuntimeGetVersion(&v); }",
        &program,
        &[
            "-L",
            lib.to_str().unwrap(),
            "-l:libcudart.so.13",
            "-Wl,-rpath,$ORIGIN/../lib",
        ],
    );
    let mut scene = app.scene("9.0");
    scene.manifest["libraries"] = json!([program]);
    let old = json!({"driver_api": 12040, "driver_release": "550.54.15"});
    let (exit, found) = report(without_python(&scene, "check", old, &["--smoke", "off"]));
    assert_eq!(exit, 82, "{:#}", found["findings"]);
    assert!(
        problems(&found).join(" ").contains("driver-floor"),
        "{:#}",
        found["findings"]
    );
}
