//! `stack capture` through the binary: what it writes passes on every GPU that the image serves, and what contradicts
//! itself is not written down as if it were right.
#![cfg(feature = "entrypoint")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Output;

use serde_json::{Value, json};

use crate::support::fakes::fake_driver_dir;
use crate::support::image::{CUDART, Checked, Image, entrypoint};
use crate::support::probe::launcher;
use crate::support::run::ENTRYPOINT;
use crate::support::testing::{Entry, container, library};

const TAG: &str = "cp311-cp311-manylinux_2_28_x86_64";

/// That one of the libraries is for Hopper alone.
const NOTE: &str = "kernels-missing info";

/// What a capture came to.
struct Captured {
    exit: i32,
    text: String,
    stderr: String,
}

impl Captured {
    fn of(output: Output) -> Self {
        Self {
            exit: output.status.code().unwrap(),
            text: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.exit, code, "{}\n{}", self.stderr, self.text);
        self
    }

    #[track_caller]
    fn says(&self, part: &str) -> &Self {
        assert!(self.stderr.contains(part), "{part}: {}", self.stderr);
        self
    }

    fn manifest(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.text, self.stderr))
    }
}

fn capture(image: &Image, options: &[&str]) -> Captured {
    let mut command = entrypoint();
    command.args(["stack", "capture", "--python"]).arg(image.env());
    Captured::of(command.args(options).current_dir(image.root()).output().unwrap())
}

/// A library of kernels for these architectures in a package that is installed.
fn package(image: &Image, name: &str, file: &str, sass: &[u32]) {
    let entries: Vec<Entry> = sass.iter().map(|&arch| Entry::sass(arch, true)).collect();
    let module = name.replace('-', "_");
    if !image.site().join(format!("{module}-1.0.dist-info")).exists() {
        image.wheel(name, "1.0", TAG);
        image.write(&format!("{module}/__init__.py"), "x = 1\n");
    }
    let built = image.root().join("built.so");
    fs::write(&built, library(&[container(&entries)])).unwrap();
    image.put(&format!("{module}/{file}"), &built);
    fs::remove_file(built).unwrap();
    image.write(
        &format!("{module}-1.0.dist-info/RECORD"),
        &format!("{module}/__init__.py,sha256=x,6\n"),
    );
}

/// CUDA 12.4 with a package that has a library for all GPUs and one for Hopper alone, and a Python.
fn image() -> Image {
    let image = Image::with_cuda("12.4", "12.4.127");
    package(&image, "own-ops", "_C.so", &[80, 90]);
    package(&image, "own-ops", "_hopper.so", &[90]);
    fs::create_dir_all(image.env().join("bin")).unwrap();
    symlink("/usr/bin/python3", image.env().join("bin/python3")).unwrap();
    image
}

fn on_gpu(image: &Image, manifest: &Value, capability: &str, driver: u32) -> Checked {
    let mut command = entrypoint();
    command
        .args(["check", "--smoke", "off", "--stack"])
        .arg(image.manifest(manifest));
    command.arg("--python").arg(image.env());
    let gpu = json!({"driver_api": driver, "devices": [{"name": "GPU", "cc": capability}]});
    let script = image.root().join("gpu.json");
    fs::write(&script, gpu.to_string()).unwrap();
    command
        .env("FAKE_GPU_SCRIPT", script)
        .env("LD_LIBRARY_PATH", fake_driver_dir());
    image.run_check(command)
}

#[test]
fn what_is_captured_starts_on_each_gpu_that_the_image_serves() {
    let image = image();
    let captured = capture(&image, &["--name", "svc-1"]);
    let manifest = captured.exits(0).manifest();
    assert_eq!(manifest["name"], "svc-1");
    assert_eq!(manifest["$schema"], "./stack.schema.json");
    assert_eq!(manifest["cuda"]["driver"], ">=12.0");
    assert_eq!(manifest["archs"], "8.0;8.6;8.9;9.0");
    // Captured in one place, it holds in another one: no path of this machine stands in it.
    let smoke = json!([{"name": "own-ops", "argv": ["python", "-c", "import own_ops"], "gpu": true}]);
    assert_eq!(manifest["smoke"], smoke);
    assert_eq!(image.check(&manifest).exit, 0);
    for (capability, driver, exit) in [
        ("8.0", 13000, 0),
        ("8.6", 12040, 0),
        ("8.9", 12000, 0),
        ("9.0", 13000, 0),
        ("7.5", 13000, 83),
        ("12.0", 13000, 83),
        ("9.0", 11080, 82),
    ] {
        let checked = on_gpu(&image, &manifest, capability, driver);
        assert_eq!(checked.exit, exit, "{capability} {driver}: {}", checked.table);
        if exit == 83 {
            checked.says("own-ops");
        }
    }
}

/// onnxruntime-gpu falls back to the CPU where a library of its provider is not found, and a check only warns.
#[test]
fn warnings_and_what_is_left_out_are_told() {
    let image = image();
    for name in ["jax", "jaxlib", "numpy"] {
        image.wheel(name, "0.10.2", TAG);
    }
    let captured = capture(&image, &[]);
    captured
        .exits(0)
        .says("cuda-entrypoint: warning: package-cuda-tag: jax runs on the CPU without an error")
        .says("  hint: If jax is to use the GPU, in the Dockerfile: pip install 'jax[cuda12]==0.10.2'.\n")
        .says("note: `packages` omits 1 package that is not part of the CUDA stack: numpy\n");
    assert_eq!(captured.manifest()["packages"]["jax"], "==0.10.2");
}

#[test]
fn what_contradicts_itself_is_no_pair_of_pins() {
    let image = image();
    image.wheel("torch-other", "0.21.0", TAG);
    let metadata =
        "Metadata-Version: 2.1\nName: torch-other\nVersion: 0.21.0\nRequires-Dist: own-ops (==2.0)\n";
    image.write("torch_other-0.21.0.dist-info/METADATA", metadata);
    let captured = capture(&image, &[]);
    captured
        .exits(81)
        .says("requires-dist: torch-other 0.21.0 requires own-ops==2.0, and own-ops is 1.0")
        .says(r#""accept": [{"code": "requires-dist", "package": "own-ops", "reason": "#);
    // The manifest says it too.
    image
        .check(&captured.manifest())
        .is(81, &["requires-dist fail", NOTE]);
    for accept in ["--allow", "--warn"] {
        let accepted = capture(&image, &[accept, "requires-dist"]);
        assert_eq!(accepted.exits(0).manifest()["packages"]["own-ops"], "==1.0");
    }
}

#[test]
fn torch_for_the_cpu_beside_packages_for_cuda_is_told() {
    let image = image();
    image.wheel("torch", "2.5.0+cpu", TAG);
    image.write("torch/version.py", "__version__ = '2.5.0+cpu'\ncuda = None\n");
    capture(&image, &[])
        .exits(81)
        .says("package-cuda-tag: torch 2.5.0+cpu is the CPU build");
    let bare = Image::empty();
    bare.wheel("torch", "2.5.0+cpu", TAG);
    bare.write("torch/version.py", "__version__ = '2.5.0+cpu'\ncuda = None\n");
    let captured = capture(&bare, &[]);
    captured.exits(81).says("torch 2.5.0+cpu is not built for CUDA");
    assert_eq!(captured.text, "");
}

/// Of TensorFlow's CUDA libraries no object says that they are needed: it opens them, and goes on with the CPU.
#[test]
fn tensorflow_without_the_libraries_that_it_opens_is_told() {
    let image = Image::empty();
    package(&image, "tensorflow", "python/ops.so", &[80, 90]);
    let metadata = "Metadata-Version: 2.4\nName: tensorflow\nVersion: 1.0\nProvides-Extra: and-cuda\n\
         Requires-Dist: nvidia-cuda-runtime-cu12<13.0,>=12.5.82; extra == \"and-cuda\"\n\
         Requires-Dist: nvidia-cudnn-cu12<10.0,>=9.3.0.75; extra == \"and-cuda\"\n";
    image.write("tensorflow-1.0.dist-info/METADATA", metadata);
    let captured = capture(&image, &[]);
    captured
        .exits(81)
        .says("library-missing: tensorflow 1.0 runs on the CPU without an error")
        .says("does not find libcudart.so.12, libcudnn.so.9\n")
        .says("pip install 'tensorflow[and-cuda]==1.0'");
    let manifest = json!({"schema": 1, "name": "t", "packages": captured.manifest()["packages"]});
    let checked = image.check(&manifest);
    checked.is(81, &["library-missing fail"]);
    assert_eq!(checked.problem("library-missing")["subject"], "libcudart.so.12");
    let mut accepting = manifest.clone();
    accepting["accept"] =
        json!([{"code": "library-missing", "library": "libcudart.so.12", "reason": "for the CPU"}]);
    image.check(&accepting).is(0, &["library-missing info"]);
    // One beside it, as a wheel brings it, and the other one of the image's own.
    let system = image.root().join("system");
    fs::create_dir(&system).unwrap();
    fs::write(system.join("libcudnn.so.9"), "").unwrap();
    image.write("nvidia/cuda_runtime/lib/libcudart.so.12", "");
    let checked = image.check(&manifest);
    checked.is(81, &["library-missing fail"]);
    assert_eq!(
        checked.problem("library-missing")["observed"],
        "not found: libcudnn.so.9"
    );
    let found = image.check_with(&manifest, |command| {
        command.env("LD_LIBRARY_PATH", &system);
    });
    found.is(0, &[]);
    // In a wheel is in vain where the library that opens it does not look there, as that of tensorflow 2.21.0.
    image.write("nvidia/cudnn/lib/libcudnn.so.9", "");
    image.check(&manifest).is(0, &[]);
    let framework = image.root().join("framework.so");
    let searches = |folders: &str| {
        let runpath = format!("-Wl,-rpath,{folders}");
        let built = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-x", "c", "/dev/null", &runpath, "-o"])
            .arg(&framework)
            .status();
        assert!(built.unwrap().success());
        image.put("tensorflow/libtensorflow_framework.so.2", &framework);
    };
    searches("$ORIGIN/../nvidia/cuda_runtime/lib");
    let checked = image.check(&manifest);
    checked.is(81, &["library-missing fail"]);
    let finding = checked.problem("library-missing");
    assert_eq!(finding["subject"], "libcudnn.so.9");
    let hint = finding["hint"].as_str().unwrap();
    let (_, folder) = hint.split_once("ENV LD_LIBRARY_PATH=").expect(hint);
    let folder = folder.split(',').next().unwrap();
    assert!(folder.ends_with("nvidia/cudnn/lib"), "{folder}");
    let found = image.check_with(&manifest, |command| {
        command.env("LD_LIBRARY_PATH", folder);
    });
    found.is(0, &[]);
    searches("$ORIGIN/../nvidia/cuda_runtime/lib:$ORIGIN/../nvidia/cudnn/lib");
    image.check(&manifest).is(0, &[]);
}

#[test]
fn a_helper_that_cannot_run_leaves_no_manifest() {
    let image = image();
    let folder = image.root().display().to_string();
    let nowhere = format!("{folder}/nowhere");
    for helper in ["/bin/false", &nowhere] {
        let captured = capture(&image, &["--helper-path", helper]);
        captured.exits(82).says("helper-crashed").says("--helper-path");
        assert_eq!(captured.text, "", "{helper}");
    }
    let mut command = std::process::Command::new("sh");
    let line = format!(
        "ulimit -f 0; '{ENTRYPOINT}' stack capture --python '{}'",
        image.env().display()
    );
    let captured = Captured::of(command.args(["-c", &line]).output().unwrap());
    captured.exits(82).says("ulimit -f");
    assert_eq!(captured.text, "");
}

/// It is neither the image's nor the Python's fault.
#[test]
fn whatever_the_limit_on_descriptors_a_manifest_is_whole_or_the_limit_is_named() {
    let image = image();
    let whole = capture(&image, &[]).exits(0).manifest();
    let mut written = Vec::new();
    for limit in 3..24 {
        let mut command = std::process::Command::new(launcher());
        command.args([
            "--files",
            &limit.to_string(),
            "--",
            ENTRYPOINT,
            "stack",
            "capture",
            "--python",
        ]);
        let captured = Captured::of(command.arg(image.env()).output().unwrap());
        written.push(captured.exit == 0);
        if captured.exit == 0 {
            assert_eq!(captured.manifest(), whole, "{limit}");
            continue;
        }
        assert!(matches!(captured.exit, 70 | 82), "{limit}: {}", captured.stderr);
        assert_eq!(captured.text, "", "{limit}");
        let names = ["limit on open files", "limits on descriptors"];
        assert!(
            names.iter().any(|name| captured.stderr.contains(name)),
            "{limit}: {}",
            captured.stderr
        );
    }
    assert!(written.last().unwrap() & !written[16 - 8], "{written:?}");
}

#[test]
fn a_library_that_cannot_be_read_leaves_no_manifest_without_cuda() {
    let image = image();
    let broken = image.root().join("broken.so");
    fs::write(&broken, "no library\n").unwrap();
    image.put(CUDART, &broken);
    capture(&image, &[]).exits(81).says("cudart-version");
    fs::set_permissions(broken, fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn a_name_that_no_manifest_can_have_is_refused() {
    for name in ["", "a b", "-x", "ü", "a/b"] {
        let captured = capture(&Image::empty(), &[&format!("--name={name}")]);
        captured.exits(64).says("--name");
    }
}

/// NGC's torch lies in the system Python's dist-packages or in a folder without wheels of NVIDIA's.
#[test]
fn versions_of_other_builders_are_pinned_as_they_are() {
    for version in ["2.6.0a0+ecf3bae40a.nv25.01", "2.5.1.post303"] {
        let image = image();
        image.wheel("torch", version, TAG);
        image.write(
            "torch/version.py",
            &format!("__version__ = '{version}'\ncuda = '12.4'\n"),
        );
        fs::create_dir_all(image.env().join("conda-meta")).unwrap();
        let manifest = capture(&image, &[]).exits(0).manifest();
        assert_eq!(manifest["smoke"][0], "torch");
        image.check(&manifest).is(0, &[NOTE]);
        // And another build of it is another one.
        let mut other = manifest.clone();
        other["packages"]["torch"] = "==2.6.0".into();
        image.check(&other).is(81, &["package-version fail", NOTE]);
    }
}
