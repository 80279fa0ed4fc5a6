//! `--stack none` through the binary: what needs no manifest is judged, in healthy environments and in broken ones; and
//! the line that says that the embedded manifest judged an image of another kind.
#![cfg(feature = "entrypoint")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::cuda;
use crate::support::fakes::fake_driver_dir;
use crate::support::image::{Checked, Image, c_library_with_kernels, entrypoint};
use crate::support::run::ENTRYPOINT;
use crate::support::testing::{Entry, container, library};

const TAG: &str = "cp311-cp311-manylinux_2_28_x86_64";

/// A torch for CUDA 12.4 by its metadata, with the CUDA libraries of its wheels, and a package with kernels.
pub fn image() -> Image {
    let image = Image::with_cuda("12.4", "12.4.127");
    torch(&image, "2.5.0", "2.5.0+cu124", "'12.4'");
    package(&image, "own-ops", &[80, 90]);
    image
}

fn torch(image: &Image, version: &str, own: &str, cuda: &str) {
    image.wheel("torch", version, TAG);
    image.write("torch/__init__.py", "");
    image.write(
        "torch/version.py",
        &format!("__version__ = '{own}'\ncuda = {cuda}\n"),
    );
}

fn package(image: &Image, name: &str, sass: &[u32]) {
    let entries: Vec<Entry> = sass.iter().map(|&arch| Entry::sass(arch, true)).collect();
    let module = name.replace('-', "_");
    image.wheel(name, "1.0", TAG);
    image.write(&format!("{module}/__init__.py"), "x = 1\n");
    let built = image.root().join("built.so");
    fs::write(&built, library(&[container(&entries)])).unwrap();
    image.put(&format!("{module}/_C.so"), &built);
    fs::remove_file(built).unwrap();
    let record = format!("{module}/__init__.py,sha256=x,6\n{module}/_C.so,sha256=x,6\n");
    image.write(&format!("{module}-1.0.dist-info/RECORD"), &record);
}

fn requires(image: &Image, name: &str, version: &str, line: &str) {
    image.wheel(name, version, TAG);
    image.write(
        &format!("{}-{version}.dist-info/METADATA", name.replace('-', "_")),
        &format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: {line}\n"),
    );
}

fn check(image: &Image, options: &[&str]) -> Checked {
    let mut command = entrypoint();
    command
        .args(["check", "--stack", "none", "--python"])
        .arg(image.env());
    command.args(options);
    image.run_check(command)
}

fn of_image(image: &Image, options: &[&str]) -> Checked {
    check(image, &[&["--stage", "image"], options].concat())
}

/// The driver of the tests with one GPU.
fn with_gpu(command: &mut Command, image: &Image, capability: &str, driver: u32) {
    let gpu = json!({"driver_api": driver, "devices": [{"name": "GPU", "cc": capability}]});
    let script = image.root().join("gpu.json");
    fs::write(&script, gpu.to_string()).unwrap();
    command
        .env("FAKE_GPU_SCRIPT", script)
        .env("LD_LIBRARY_PATH", fake_driver_dir());
}

#[test]
fn a_healthy_image_passes_and_says_what_was_judged() {
    let image = image();
    let checked = of_image(&image, &[]);
    checked.is(0, &[]);
    assert_eq!(checked.report["stack"], json!({"name": "none", "source": "none"}));
    for said in [
        "✓ torch is 2.5.0",
        "✓ own-ops is 1.0",
        "packages are built for CUDA 12.4",
        "✓ libcudart: ",
        "this image needs driver >= 550.54.14",
    ] {
        checked.says(said);
    }
    let verdict = checked.table.trim_end().rsplit('\n').next().unwrap();
    assert!(verdict.starts_with("pass: no manifest, "), "{verdict}");
}

#[test]
fn the_variable_says_the_same() {
    let image = image();
    let mut command = entrypoint();
    command
        .args(["check", "--stage", "image", "--python"])
        .arg(image.env())
        .env("CUDA_ENTRYPOINT_STACK", "none");
    let checked = image.run_check(command);
    assert_eq!(checked.report["stack"]["source"], "none");
    checked.is(0, &[]);
}

/// The wheels of spconv, cumm and CUDA as they are published: pip refuses the pair, and all else is right.
#[test]
fn real_wheels_are_held_against_each_other() {
    let image = Image::real();
    let checked = of_image(&image, &[]);
    assert_eq!(checked.exit, 81, "{}", checked.table);
    checked.says("✗ spconv-cu124 2.3.8 requires cumm-cu124>=0.7.11, <0.8.0, and cumm-cu124 is 0.8.2");
    assert_eq!(of_image(&image, &["--warn", "requires-dist"]).exit, 0);
    let listed = of_image(
        &image,
        &["--warn", "requires-dist", "--archs", "7.5;8.0;8.6;8.9;9.0"],
    );
    assert_eq!(listed.exit, 0, "{}", listed.table);
    let newer = of_image(&image, &["--warn", "requires-dist", "--archs", "9.0;12.0"]);
    assert_eq!(newer.exit, 0, "PTX serves it: {}", newer.table);
    newer.says("kernels-ptx-only");
}

#[test]
fn a_real_build_for_another_cuda_fails() {
    let image = Image::real();
    image.wheel("spconv-cu121", "2.3.8", TAG);
    let checked = of_image(&image, &["--warn", "requires-dist"]);
    assert_eq!(checked.exit, 81, "{}", checked.table);
    assert_eq!(checked.problem("package-duplicate")["status"], "fail");
    // Another release of a library under the same name is what a version would have to say, and there is none.
    let image = image_with_other_nvrtc();
    assert_eq!(of_image(&image, &[]).exit, 0);
}

fn image_with_other_nvrtc() -> Image {
    let image = image();
    image.put("own_ops/libnvrtc.so.12", &cuda::nvrtc("12.6"));
    image
}

#[test]
fn what_is_broken_fails_with_the_code_of_its_finding() {
    type Fault = (&'static str, fn(&Image));
    let faults: [Fault; 7] = [
        ("requires-dist", |image| {
            requires(image, "torchvision", "0.21.0", "torch (==2.6.0)");
        }),
        ("package-cuda-tag", |image| {
            image.wheel("torchaudio", "2.5.0+cu118", TAG);
        }),
        ("package-cuda-tag", |image| torch(image, "2.5.0", "2.5.0", "None")),
        ("package-torch-tag", |image| {
            image.wheel("torch-scatter", "2.1.2+pt26cu124", TAG);
        }),
        ("package-duplicate", |image| {
            image.wheel("spconv-cu124", "2.3.8", TAG);
            image.wheel("spconv-cu121", "2.3.8", TAG);
        }),
        ("package-incomplete", |image| {
            image.write(
                "torch-2.5.0.dist-info/RECORD",
                "torch/lib/libtorch.so,sha256=x,1\n",
            );
        }),
        ("editable-trap", |image| {
            image.wheel("spconv-cu124", "2.3.8", TAG);
            image.write("spconv/__init__.py", "");
            image.write("setup.py", "");
        }),
    ];
    for (code, damage) in faults {
        let image = image();
        damage(&image);
        let checked = of_image(&image, &[]);
        assert_eq!(checked.exit, 81, "{code}: {}", checked.table);
        let failed = |f: &&Value| f["code"] == code && f["status"] == "fail";
        assert!(
            checked.findings().any(|f| failed(&f)),
            "{code}: {}",
            checked.table
        );
    }
}

/// The variables that keep an import from compiling are the environment's, where no manifest sets them.
#[test]
fn the_environment_says_whether_an_import_compiles() {
    let image = image();
    image.wheel("spconv-cu124", "2.3.8", TAG);
    image.write("spconv/__init__.py", "");
    image.write("setup.py", "");
    let mut command = entrypoint();
    command
        .args(["check", "--stage", "image", "--stack", "none", "--python"])
        .arg(image.env());
    command
        .env("SPCONV_DISABLE_JIT", "1")
        .env("CUMM_DISABLE_JIT", "1");
    image.run_check(command).is(0, &["editable-trap warn"]);
}

#[test]
fn kernels_are_held_against_the_list_that_is_given_and_the_gpu_that_is_there() {
    let image = image();
    assert_eq!(of_image(&image, &["--archs", "8.0;8.6;9.0"]).exit, 0);
    let checked = of_image(&image, &["--archs", "7.5;9.0"]);
    assert_eq!(checked.exit, 81, "{}", checked.table);
    assert_eq!(checked.problem("kernels-missing")["subject"], "own_ops/_C.so");
    for (capability, driver, exit, code) in [
        ("8.0", 13000, 0, ""),
        ("9.0", 12000, 0, ""),
        ("7.5", 13000, 83, "kernels-unusable"),
        ("12.0", 13000, 83, "kernels-unusable"),
        ("9.0", 11080, 82, "driver-floor"),
    ] {
        let mut command = entrypoint();
        command
            .args(["check", "--stack", "none", "--python"])
            .arg(image.env());
        with_gpu(&mut command, &image, capability, driver);
        let checked = image.run_check(command);
        assert_eq!(checked.exit, exit, "{capability} {driver}: {}", checked.table);
        if exit != 0 {
            let failed = |f: &&Value| f["code"] == code && f["status"] == "fail";
            assert!(checked.findings().any(|f| failed(&f)), "{}", checked.table);
        }
        assert_eq!(checked.report["smoke"]["reason"], "--stack none has no smoke");
    }
    let checked = check(&image, &[]);
    assert_eq!(checked.exit, 82, "{}", checked.table);
    assert_eq!(checked.problem("driver-missing")["status"], "fail");
}

#[test]
fn a_python_that_is_named_is_missed_and_another_is_not() {
    let image = Image::empty();
    let checked = of_image(&image, &[]);
    checked.is(0, &["package-missing skip"]);
    checked.says("no package of a CUDA stack is installed in");
    let mut command = entrypoint();
    command.args([
        "check", "--stage", "image", "--stack", "none", "--python", "/nowhere",
    ]);
    image.run_check(command).is(81, &["python-missing fail"]);
    let mut command = entrypoint();
    command.args([
        "check", "--stage", "image", "--stack", "none", "--", "hatch", "run", "serve",
    ]);
    image.run_check(command).is(0, &["python-unknown warn"]);
}

#[test]
fn run_becomes_the_service_and_says_that_there_was_no_manifest() {
    let image = image();
    let run = |options: &[&str]| {
        let mut command = Command::new(ENTRYPOINT);
        command.args(["run", "--gpu", "off", "--stack", "none", "--python"]);
        command
            .arg(image.env())
            .args(options)
            .args(["--", "sh", "-c", "exit 7"]);
        let output = command.output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (exit, stderr) = run(&[]);
    assert_eq!(exit, 7, "{stderr}");
    assert!(stderr.contains("; no manifest; "), "{stderr}");
    assert_eq!(run(&["--archs", "7.5"]).0, 81);
}

#[test]
fn a_receipt_of_one_stack_is_none_of_another() {
    let image = image();
    let receipt = image.root().join("receipt.json");
    let receipt = receipt.to_str().unwrap();
    let used = |checked: &Checked| checked.report["receipt"]["used"].as_array().unwrap().len();
    assert_eq!(used(&of_image(&image, &["--receipt", receipt])), 0);
    assert_eq!(used(&of_image(&image, &["--receipt", receipt])), 1);
    // The same words as a manifest.
    let manifests = [
        json!({"schema": 1, "name": "none"}),
        json!({"schema": 1, "name": "none", "cuda": {"runtime": "*", "nvrtc": "*"}}),
    ];
    for manifest in manifests {
        let other = image.check_with(&manifest, |command| {
            command.args(["--receipt", receipt]);
        });
        let refused = &other.report["receipt"]["refused"][0]["reason"];
        assert_eq!(
            refused, "the manifest is another",
            "{:#}",
            other.report["receipt"]
        );
        assert_eq!(used(&of_image(&image, &["--receipt", receipt])), 0);
    }
    // What is installed is read anew, whatever a receipt says.
    requires(&image, "torchvision", "0.21.0", "torch (==2.6.0)");
    assert_eq!(of_image(&image, &["--receipt", receipt]).exit, 81);
}

#[test]
fn show_says_that_there_is_no_manifest() {
    let show = |options: &[&str]| {
        let output = entrypoint()
            .args(["stack", "show", "--stack", "none"])
            .args(options)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (table, stderr) = show(&["--archs", "9.0"]);
    assert!(
        table.contains("source     none, archs from --archs\narchs      9.0\n"),
        "{table}"
    );
    assert!(
        stderr.contains("with --stack none there is no manifest"),
        "{stderr}"
    );
    let (document, _) = show(&["--json"]);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document, json!({"schema": 1, "name": "none"}));
}

/// A capture is of what is there, whichever manifest is in force.
#[test]
fn capture_writes_a_manifest_all_the_same() {
    let image = image();
    fs::create_dir_all(image.env().join("bin")).unwrap();
    symlink("/usr/bin/python3", image.env().join("bin/python3")).unwrap();
    let mut command = entrypoint();
    command.args(["stack", "capture", "--python"]).arg(image.env());
    command.env("CUDA_ENTRYPOINT_STACK", "none");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let manifest: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(manifest["packages"]["torch"], "==2.5.0");
}

/// The example of a C++ program: the loader finds a libcudart, and nothing is asked of a Python.
#[test]
fn an_image_of_a_program_needs_no_python() {
    let image = Image::empty();
    let folder = image.root().join("lib");
    fs::create_dir(&folder).unwrap();
    fs::copy(cuda::cudart("12.4"), folder.join("libcudart.so.12")).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/examples/cpp/stack.json");
    let check = |stack: &Path| {
        let mut command = entrypoint();
        command.args(["check", "--stage", "image", "--stack"]).arg(stack);
        command.env("LD_LIBRARY_PATH", &folder);
        image.run_check(command)
    };
    // Its smoke runs a program of the image.
    let app = image.root().join("my-app");
    let program = app.join("bin/my-app");
    let text = fs::read_to_string(&example).unwrap();
    let manifest = text.replace("/opt/my-app", app.to_str().unwrap());
    assert_ne!(text, manifest);
    let own = image.root().join("own.json");
    fs::write(&own, manifest).unwrap();
    assert!(check(&own).exit == 81 && check(&example).exit == 81);
    fs::create_dir_all(app.join("bin")).unwrap();
    fs::create_dir_all(app.join("lib")).unwrap();
    fs::copy("/bin/true", &program).unwrap();
    let entries = [Entry::sass(80, true), Entry::sass(90, true)];
    c_library_with_kernels(
        &app.join("lib"),
        "ops",
        "int f(void) { return 0; }",
        &[container(&entries)],
    );
    for stack in [Path::new("none"), &own] {
        let checked = check(stack);
        assert_eq!(checked.exit, 0, "{}", checked.table);
        checked.says("is CUDA 12.4");
        checked.says("this image needs driver >= ");
    }
}

/// A file that is called so is named with its folder.
#[test]
fn a_file_may_be_called_none() {
    let image = image();
    fs::write(image.root().join("none"), r#"{"schema": 1, "name": "mine"}"#).unwrap();
    let mut command = entrypoint();
    command.args(["check", "--stage", "image", "--stack", "./none"]);
    assert_eq!(image.run_check(command).report["stack"]["name"], "mine");
}

/// What a check says first of an image of another kind.
pub const FIRST_LINE: &str = "cuda-entrypoint: this image has no manifest and is not pointcept-cu124, the embedded one; \
                          `cuda-entrypoint stack capture` writes a manifest of it, `--stack none` checks it without one";

#[test]
fn the_first_line_says_that_the_embedded_manifest_judged_another_image() {
    let image = image();
    let words = |command: &mut Command| {
        let output = command
            .arg(image.env())
            .current_dir(image.root())
            .output()
            .unwrap();
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (table, _) = words(entrypoint().args(["check", "--stage", "image", "--python"]));
    assert_eq!(table.lines().next(), Some(FIRST_LINE));
    let run = ["run", "--gpu", "off", "--smoke", "off"];
    let service = ["--", "true", "--python"];
    let (_, stderr) = words(
        entrypoint()
            .args(run)
            .arg("--python")
            .arg(image.env())
            .args(service),
    );
    assert_eq!(stderr.lines().next(), Some(FIRST_LINE), "{stderr}");
    let json = ["--format", "json", "--python"];
    let (_, stderr) = words(entrypoint().args(run).args(json).arg(image.env()).args(service));
    let first: Value = serde_json::from_str(stderr.lines().next().unwrap()).unwrap();
    assert!(
        first["message"]
            .as_str()
            .unwrap()
            .starts_with("this image has no manifest"),
        "{stderr}"
    );
    // An image with a manifest of its own, and one that is judged without any.
    let own = image.check(&json!({"schema": 1, "name": "x", "packages": {"a": "*", "b": "*"}}));
    assert!(
        own.exit == 81 && !own.table.contains("this image"),
        "{}",
        own.table
    );
    assert!(!of_image(&image, &[]).table.contains("this image has no manifest"));
}

/// An image of the embedded stack from which one part has gone is broken, not another.
#[test]
fn the_first_line_is_not_said_of_an_image_of_the_embedded_stack() {
    let shown = entrypoint().args(["stack", "show", "--json"]).output().unwrap();
    let manifest: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let image = Image::with_cuda("12.4", "12.4.127");
    for (name, rule) in manifest["packages"].as_object().unwrap() {
        let version = rule.as_str().unwrap_or("*").trim_start_matches(['=', '*']);
        match name.as_str() {
            "torch" => torch(&image, "2.5.0", "2.5.0+cu124", "'12.4'"),
            "mmcv" | "nvidia-cuda-runtime-cu12" | "nvidia-cuda-nvrtc-cu12" => {}
            name => image.wheel(name, if version.is_empty() { "1.0" } else { version }, TAG),
        }
    }
    let mut command = entrypoint();
    command
        .args(["check", "--stage", "image", "--python"])
        .arg(image.env());
    let checked = image.run_check(command);
    assert_eq!(checked.exit, 81, "{}", checked.table);
    checked.says("mmcv is not installed");
    assert!(
        !checked.table.contains("this image has no manifest"),
        "{}",
        checked.table
    );
}

/// Where a blank is in the path of the manifest's file, nothing changes.
#[test]
fn the_folder_may_have_a_blank() {
    let image = image();
    let folder: PathBuf = image.root().join("a folder with blanks");
    fs::create_dir(&folder).unwrap();
    let moved = folder.join("env");
    fs::rename(image.env(), &moved).unwrap();
    let mut command = entrypoint();
    command
        .args(["check", "--stage", "image", "--stack", "none", "--python"])
        .arg(&moved);
    assert_eq!(image.run_check(command).exit, 0);
}
