//! What the image's loader would map, asked of the real one: small modules made with `cc`, NVIDIA's own libcudart.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cuda;
use crate::support::run::copy_program;
use serde_json::{Value, json};
use tempfile::TempDir;

mod extensions;

const CUDART: &str = "libcudart.so.12";

/// A virtual environment of this machine's Python, with what a test puts into it.
struct Image {
    root: TempDir,
    site: PathBuf,
    packages: Vec<&'static str>,
    accept: Value,
}

/// What one run said.
struct Said {
    report: Value,
}

impl Image {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let code =
            "import os, sys; print(os.path.realpath(sys.executable)); print('%d.%d' % sys.version_info[:2])";
        let output = Command::new("python3").args(["-c", code]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let [python, version] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        let venv = root.path().join("venv");
        let site = venv.join(format!("lib/python{version}/site-packages"));
        fs::create_dir_all(venv.join("bin")).unwrap();
        fs::create_dir_all(&site).unwrap();
        symlink(python, venv.join("bin/python3")).unwrap();
        let home = Path::new(python).parent().unwrap().display();
        let config = format!("home = {home}\ninclude-system-site-packages = false\nversion = {version}\n");
        fs::write(venv.join("pyvenv.cfg"), config).unwrap();
        Self {
            root,
            site,
            packages: Vec::new(),
            accept: json!([]),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Installs one of the packages whose modules are known, as far as metadata goes.
    fn install(&mut self, name: &'static str) {
        let info = self
            .site
            .join(format!("{}-1.0.dist-info", name.replace('-', "_")));
        fs::create_dir_all(&info).unwrap();
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
        fs::write(info.join("METADATA"), metadata).unwrap();
        self.packages.push(name);
    }

    /// The wheel's libcudart of this CUDA version, where NVIDIA's wheel has it.
    fn nvidia(&self, version: &str) -> PathBuf {
        let path = self.site.join("nvidia/cuda_runtime/lib").join(CUDART);
        put(&cuda::cudart(version), &path);
        path
    }

    /// torch-scatter with a module that needs libcudart; `flags` say where it looks.
    fn scatter(&mut self, flags: &[&str]) -> PathBuf {
        self.install("torch-scatter");
        let module = self.site.join("torch_scatter/_scatter_cuda.so");
        link(&module, &cuda::cudart("12.4"), flags);
        module
    }

    fn check(&self, env: &[(&str, &OsStr)]) -> Said {
        let packages: Value = self
            .packages
            .iter()
            .map(|name| (name.to_string(), json!("*")))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let stack = json!({
            "schema": 1, "name": "t", "cuda": {"runtime": "12.4"}, "packages": packages, "accept": self.accept
        });
        let stack_file = self.path("stack.json");
        fs::write(&stack_file, stack.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cuda-entrypoint"));
        command.args(["check", "--stage", "image", "--report", "-", "--stack"]);
        command.arg(&stack_file).arg("--python").arg(self.path("venv"));
        command.arg("--termination-log").arg(self.path("termination"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let ours = ["CUDA_", "NVIDIA_", "LD_", "PYTHON"];
            if ours.iter().any(|start| text.starts_with(start)) {
                command.env_remove(&name);
            }
        }
        command.envs(env.iter().copied());
        let output = command.output().unwrap();
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        Said { report }
    }

    fn check_with_library_path(&self, folder: &Path) -> Said {
        self.check(&[("LD_LIBRARY_PATH", folder.as_os_str())])
    }
}

impl Said {
    fn findings(&self, code: &str) -> Vec<&Value> {
        let all = self.report["findings"].as_array().unwrap();
        all.iter().filter(|f| f["code"] == code).collect()
    }

    /// Statuses and subjects.
    fn of(&self, code: &str) -> Vec<(&str, &str)> {
        self.findings(code)
            .into_iter()
            .map(|f| (f["status"].as_str().unwrap(), f["subject"].as_str().unwrap()))
            .collect()
    }

    fn message(&self, code: &str) -> &str {
        self.findings(code)[0]["message"].as_str().unwrap()
    }

    fn loaded(&self, name: &str) -> &Value {
        let all = self.report["facts"]["image"]["loaded"].as_array().unwrap();
        all.iter()
            .find(|o| o["name"] == name)
            .unwrap_or_else(|| panic!("{name} is not in {all:#?}"))
    }
}

fn put(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    copy_program(from, to);
}

fn cc(out: &Path, source: &str, arguments: &[&OsStr]) {
    fs::create_dir_all(out.parent().unwrap()).unwrap();
    let file = out.with_extension("c");
    fs::write(&file, source).unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-o"]).arg(out).arg(&file);
    let status = command.args(arguments).status().unwrap();
    assert!(status.success(), "{command:?}");
    fs::remove_file(file).unwrap();
}

/// A module that needs this library and looks for it where `flags` say.
fn link(module: &Path, library: &Path, flags: &[&str]) {
    let mut arguments = vec![OsStr::new("-Wl,--no-as-needed"), library.as_os_str()];
    arguments.extend(flags.iter().map(OsStr::new));
    cc(module, "int module(void) { return 0; }\n", &arguments);
}

const TO_NVIDIA: &str = "-Wl,-rpath,$ORIGIN/../nvidia/cuda_runtime/lib";
const RUNPATH: [&str; 2] = [TO_NVIDIA, "-Wl,--enable-new-dtags"];
const RPATH: [&str; 2] = [TO_NVIDIA, "-Wl,--disable-new-dtags"];

#[test]
fn wheels_that_find_their_own_pass() {
    for (flags, by) in [(RUNPATH, "runpath"), (RPATH, "rpath")] {
        let mut image = Image::new();
        let module = image.scatter(&flags);
        image.nvidia("12.4");
        let said = image.check(&[]);
        assert_eq!(said.report["exit_code"], 0, "{:#}", said.report["findings"]);
        assert_eq!(said.of("library-missing"), [("pass", "loader")]);
        assert_eq!(said.of("library-shadowed"), [("pass", "loader")]);
        assert_eq!(said.of("stub-driver"), [("pass", "libcuda.so.1")]);
        let cudart = said.loaded(CUDART);
        assert_eq!(cudart["found_by"]["by"], by);
        assert_eq!(cudart["found_by"]["of"], module.to_str().unwrap());
        assert_eq!(cudart["needed_by"], json!([module]));
    }
}

#[test]
fn library_path_beats_a_runpath_and_its_copy_is_judged() {
    let mut image = Image::new();
    image.scatter(&RUNPATH);
    let wheel = image.nvidia("12.4");
    let other = image.path("toolkit/lib64/libcudart.so.12");
    put(&cuda::cudart("12.1"), &other);
    let folder = other.parent().unwrap();
    let said = image.check_with_library_path(folder);
    assert_eq!(said.of("library-shadowed"), [("warn", CUDART)]);
    let finding = said.findings("library-shadowed")[0];
    assert_eq!(finding["observed"], other.to_str().unwrap());
    let required = finding["required"].as_str().unwrap();
    assert_eq!(
        fs::canonicalize(required).unwrap(),
        fs::canonicalize(&wheel).unwrap()
    );
    let why = format!("LD_LIBRARY_PATH names {}", folder.display());
    assert!(said.message("library-shadowed").contains(&why), "{finding:#}");
    let expected = [("pass", "libcudart"), ("fail", other.to_str().unwrap())];
    assert_eq!(said.of("cudart-version"), expected);
    assert_eq!(said.findings("cudart-version")[1]["observed"], "CUDA 12.1");
    assert_eq!(said.report["exit_code"], 81);
}

/// The metadata of so many distributions takes longer than loader and helper, whose answers must not be lost when it comes.
#[test]
fn answers_count_whether_they_come_before_the_metadata_or_after() {
    let mut image = Image::new();
    image.scatter(&RUNPATH);
    image.nvidia("12.4");
    let other = image.path("toolkit/lib64/libcudart.so.12");
    put(&cuda::cudart("12.1"), &other);
    let check = |image: &Image| {
        let said = image.check_with_library_path(other.parent().unwrap());
        let mut facts = said.report["facts"]["image"].clone();
        let count = facts["distributions"].as_array().unwrap().len();
        facts["distributions"] = json!(null);
        facts["loader"]["ms"] = json!(null);
        facts["helper"]["ms"] = json!(null);
        (count, facts)
    };
    let (few, after) = check(&image);
    for number in 0..3000 {
        let info = image.site.join(format!("other_{number}-1.0.dist-info"));
        fs::create_dir(&info).unwrap();
        let metadata = format!("Metadata-Version: 2.1\nName: other-{number}\nVersion: 1.0\n");
        fs::write(info.join("METADATA"), metadata).unwrap();
    }
    let (many, before) = check(&image);
    assert_eq!((few, many), (1, 3001));
    assert_eq!(before, after);
    // The second one was asked for what the loader alone knew.
    let answers = before["libraries"].as_array().unwrap();
    let versions: Vec<&Value> = answers.iter().map(|l| &l["answer"]["version"]).collect();
    assert_eq!(versions, ["12.4", "12.1"]);
    assert!(!before["loaded"].as_array().unwrap().is_empty());
}

const NVJITLINK: &str = "libnvJitLink.so.12";

/// A library that exports these functions under this name.
fn library(path: &Path, functions: &[&str]) {
    let functions = functions
        .iter()
        .map(|name| format!("int {name}(void) {{ return 0; }}\n"));
    let soname = format!("-Wl,-soname,{}", path.file_name().unwrap().to_str().unwrap());
    cc(path, &functions.collect::<String>(), &[OsStr::new(&soname)]);
}

/// The wheel's nvJitLink, and a module of this source that needs it and finds it by its RUNPATH.
fn user_of_nvjitlink(image: &Image, module: &str, source: &str, more: &[&OsStr]) -> PathBuf {
    let wheel = image.site.join("nvidia/nvjitlink/lib").join(NVJITLINK);
    library(&wheel, &["added_12_4", "linked_12_4"]);
    let module = image.site.join(module);
    let mut arguments = vec![
        OsStr::new("-Wl,--no-as-needed"),
        wheel.as_os_str(),
        OsStr::new("-Wl,-rpath,$ORIGIN:$ORIGIN/../nvidia/nvjitlink/lib:$ORIGIN/../../nvidia/nvjitlink/lib"),
        OsStr::new("-Wl,--enable-new-dtags"),
    ];
    arguments.extend(more);
    cc(&module, source, &arguments);
    module
}

const SCATTER: &str = "torch_scatter/_scatter_cuda.so";
const CALLS_BOTH: &str =
    "int added_12_4(void), linked_12_4(void); int m(void) { return added_12_4() + linked_12_4(); }";

#[test]
fn a_library_in_front_that_lacks_a_needed_symbol_fails() {
    let mut image = Image::new();
    image.install("torch-scatter");
    image.nvidia("12.4");
    let module = user_of_nvjitlink(&image, SCATTER, CALLS_BOTH, &[]);
    let other = image.path("cuda-12.1/lib64/libnvJitLink.so.12");
    library(&other, &["linked_12_1"]);
    let folder = other.parent().unwrap();
    let said = image.check_with_library_path(folder);
    assert_eq!(said.of("library-shadowed"), [("fail", NVJITLINK)]);
    assert_eq!(said.report["exit_code"], 81);
    let message = said.message("library-shadowed");
    let why = format!(
        "{} lacks added_12_4 and 1 other symbol, which {} needs",
        other.display(),
        module.display()
    );
    assert!(message.contains(&why), "{message}");
    let hint = said.findings("library-shadowed")[0]["hint"].as_str().unwrap();
    let take = format!("Take {} out of LD_LIBRARY_PATH", folder.display());
    assert!(hint.starts_with(&take), "{hint}");
    let shadowed = &said.loaded(NVJITLINK)["shadowed"][0];
    assert_eq!(shadowed["missing_count"], 2);
    assert_eq!(shadowed["missing_symbol"], "added_12_4");
    assert_eq!(shadowed["missing_for"], module.to_str().unwrap());
    let said = image.check(&[]);
    assert_eq!(said.of("library-shadowed"), [("pass", "loader")]);
    assert_eq!(said.report["exit_code"], 0, "{:#}", said.report["findings"]);
}

#[test]
fn a_library_in_front_without_a_missing_symbol_is_a_warning() {
    let weak = "__attribute__((weak)) int added_12_4(void); int m(void) { return added_12_4 != 0; }";
    for (in_front, source) in [
        (&["added_12_4", "linked_12_4", "more"][..], CALLS_BOTH),
        (&["linked_12_1"], weak),
        (&["linked_12_1"], "int m(void) { return 0; }"),
    ] {
        let mut image = Image::new();
        image.install("torch-scatter");
        image.nvidia("12.4");
        user_of_nvjitlink(&image, SCATTER, source, &[]);
        let other = image.path("cuda/lib64/libnvJitLink.so.12");
        library(&other, in_front);
        let said = image.check_with_library_path(other.parent().unwrap());
        assert_eq!(said.of("library-shadowed"), [("warn", NVJITLINK)], "{source}");
        assert_eq!(said.report["exit_code"], 0, "{:#}", said.report["findings"]);
    }
}

#[test]
fn a_symbol_that_another_mapped_object_exports_is_not_missing() {
    let mut image = Image::new();
    image.install("torch-scatter");
    let another = image.site.join("torch_scatter/libanother.so");
    library(&another, &["added_12_4", "linked_12_4"]);
    user_of_nvjitlink(&image, SCATTER, CALLS_BOTH, &[another.as_os_str()]);
    let other = image.path("cuda/lib64/libnvJitLink.so.12");
    library(&other, &["linked_12_1"]);
    let said = image.check_with_library_path(other.parent().unwrap());
    assert_eq!(said.of("library-shadowed"), [("warn", NVJITLINK)]);
}

#[test]
fn a_copy_that_torch_loads_itself_is_not_missed() {
    let mut image = Image::new();
    image.install("torch");
    user_of_nvjitlink(&image, "torch/lib/libtorch_python.so", CALLS_BOTH, &[]);
    let other = image.path("cuda/lib64/libnvJitLink.so.12");
    library(&other, &["linked_12_1"]);
    for (line, status) in [
        ("_preload_cuda_deps(lib_folder, lib_name)", "fail"),
        (
            "_preload_cuda_deps(\"nvjitlink\", \"libnvJitLink.so.*[0-9]\")",
            "warn",
        ),
    ] {
        fs::write(
            image.site.join("torch/__init__.py"),
            format!("if True:\n    {line}\n"),
        )
        .unwrap();
        let said = image.check_with_library_path(other.parent().unwrap());
        assert_eq!(said.of("library-shadowed"), [(status, NVJITLINK)], "{line}");
    }
}

#[test]
fn another_copy_of_the_right_version_shadows_unless_it_is_the_same_file() {
    let mut image = Image::new();
    image.scatter(&RUNPATH);
    image.nvidia("12.4");
    let other = image.path("toolkit/lib64/libcudart.so.12");
    let mut contents = fs::read(cuda::cudart("12.4")).unwrap();
    contents.push(0);
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(&other, contents).unwrap();
    let said = image.check_with_library_path(other.parent().unwrap());
    assert_eq!(said.of("library-shadowed"), [("warn", CUDART)]);
    assert_eq!(said.of("cudart-version"), [("pass", "libcudart")]);
    // A base image's CUDA of the same release has the same file.
    fs::remove_file(&other).unwrap();
    put(&cuda::cudart("12.4"), &other);
    let said = image.check_with_library_path(other.parent().unwrap());
    assert_eq!(said.of("library-shadowed"), [("pass", "loader")]);
    // A link to the wheel's own file is no other copy.
    fs::remove_file(&other).unwrap();
    symlink(image.nvidia("12.4"), &other).unwrap();
    let said = image.check_with_library_path(other.parent().unwrap());
    assert_eq!(said.of("library-shadowed"), [("pass", "loader")]);
}

#[test]
fn library_path_does_not_beat_an_rpath() {
    let mut image = Image::new();
    image.scatter(&RPATH);
    image.nvidia("12.4");
    let other = image.path("toolkit/lib64/libcudart.so.12");
    put(&cuda::cudart("12.1"), &other);
    let said = image.check_with_library_path(other.parent().unwrap());
    assert_eq!(said.of("library-shadowed"), [("pass", "loader")]);
    assert_eq!(said.of("cudart-version"), [("pass", "libcudart")]);
    assert_eq!(said.loaded(CUDART)["found_by"]["by"], "rpath");
}

#[test]
fn a_copy_that_no_wheel_brought_is_judged() {
    let mut image = Image::new();
    let own = image.path("app/lib/libcudart.so.12");
    put(&cuda::cudart("12.1"), &own);
    let flag = format!("-Wl,-rpath,{}", own.parent().unwrap().display());
    image.scatter(&[&flag]);
    let said = image.check(&[]);
    assert!(
        said.of("cudart-version")
            .contains(&("fail", own.to_str().unwrap())),
        "{:#}",
        said.report["findings"]
    );
}

#[test]
fn a_soname_that_is_loaded_already_wins() {
    let mut image = Image::new();
    let bundled = image.site.join("torchvision.libs").join(CUDART);
    put(&cuda::cudart("12.1"), &bundled);
    image.install("torchvision");
    let first = image.site.join("torchvision/_C.so");
    link(&first, &bundled, &["-Wl,-rpath,$ORIGIN/../torchvision.libs"]);
    let second = image.scatter(&RPATH);
    image.nvidia("12.4");
    let said = image.check(&[]);
    assert_eq!(said.of("library-shadowed"), [("warn", CUDART)]);
    let message = said.message("library-shadowed");
    let order = format!("{} is loaded before {}", first.display(), second.display());
    assert!(message.contains(&order), "{message}");
    assert!(message.contains("torchvision.libs"), "{message}");
}

#[test]
fn a_library_that_is_nowhere_is_missing_by_the_module_that_needs_it() {
    let mut image = Image::new();
    let module = image.scatter(&RUNPATH);
    let said = image.check(&[]);
    let missing = said.findings("library-missing");
    let found = missing.iter().find(|f| f["subject"] == CUDART);
    let found = found.unwrap_or_else(|| panic!("{missing:#?}"));
    assert_eq!(found["status"], "fail");
    assert!(
        found["message"]
            .as_str()
            .unwrap()
            .contains(module.to_str().unwrap()),
        "{found:#}"
    );
    assert!(
        found["hint"]
            .as_str()
            .unwrap()
            .contains("pip install 'nvidia-cuda-runtime-cu12==12.*'"),
        "{found:#}"
    );
}

/// A libcuda that does nothing, under this file name, with the driver's SONAME.
fn libcuda(path: &Path) {
    cc(
        path,
        "int cuInit(unsigned x) { return 34; }\n",
        &[OsStr::new("-Wl,-soname,libcuda.so.1")],
    );
}

#[test]
fn the_driver_is_not_missed_and_its_stub_is_found() {
    let mut image = Image::new();
    let stub = image.path("cuda/lib64/stubs/libcuda.so");
    libcuda(&stub);
    image.install("torch-scatter");
    link(&image.site.join("torch_scatter/_scatter_cuda.so"), &stub, &[]);
    image.nvidia("12.4");
    let folder = stub.parent().unwrap();
    // libcuda.so.1 is needed and not there: the container's start brings it.
    assert_eq!(image.check(&[]).of("library-missing"), [("pass", "loader")]);
    // The toolkit's file has no name that anybody loads.
    let said = image.check_with_library_path(folder);
    assert_eq!(said.of("stub-driver"), [("info", stub.to_str().unwrap())]);
    let made = folder.join("libcuda.so.1");
    symlink("libcuda.so", &made).unwrap();
    let said = image.check_with_library_path(folder);
    assert_eq!(said.of("stub-driver"), [("fail", made.to_str().unwrap())]);
    assert!(said.message("stub-driver").contains("LD_LIBRARY_PATH names"));
    // In front of it a link elsewhere that leads there is as bad.
    let hidden = image.path("lib/libcuda.so.1");
    symlink(&stub, &hidden).unwrap();
    let said = image.check_with_library_path(hidden.parent().unwrap());
    assert_eq!(said.of("stub-driver"), [("fail", hidden.to_str().unwrap())]);
}

#[test]
fn a_compatibility_driver_is_information() {
    let mut image = Image::new();
    image.scatter(&RUNPATH);
    image.nvidia("12.4");
    let compat = image.path("cuda-12.4/compat/libcuda.so.1");
    libcuda(&compat);
    let said = image.check_with_library_path(compat.parent().unwrap());
    assert_eq!(said.of("stub-driver"), [("info", compat.to_str().unwrap())]);
    assert_eq!(said.report["exit_code"], 0);
}

#[test]
fn a_symbol_version_that_is_not_there_is_named() {
    let mut image = Image::new();
    image.install("torch-scatter");
    let script = |version: &str| {
        let path = image.path(&format!("{version}.map"));
        fs::write(&path, format!("{version} {{ global: f; }};\n")).unwrap();
        format!("-Wl,--version-script={}", path.display())
    };
    let build = |path: &Path, version: &str| {
        let flags = [script(version), "-Wl,-soname,libv.so.1".into()];
        let flags: Vec<&OsStr> = flags.iter().map(OsStr::new).collect();
        cc(path, "int f(void) { return 1; }\n", &flags);
    };
    let (new, old) = (image.path("new/libv.so.1"), image.path("old/libv.so.1"));
    build(&new, "V_2.38");
    build(&old, "V_2.17");
    let module = image.site.join("torch_scatter/_scatter_cuda.so");
    cc(
        &module,
        "int f(void); int g(void) { return f(); }\n",
        &[new.as_os_str()],
    );
    image.nvidia("12.4");
    let said = image.check_with_library_path(old.parent().unwrap());
    assert_eq!(said.of("library-missing"), [("fail", "libv.so.1")]);
    let message = said.message("library-missing");
    assert!(
        message.contains("needs V_2.38") && message.contains(module.to_str().unwrap()),
        "{message}"
    );
}

#[test]
fn files_that_are_no_libraries_are_refused_by_name() {
    let mut image = Image::new();
    let module = image.scatter(&RUNPATH);
    image.nvidia("12.4");
    let damaged = image.path("damaged/libcudart.so.12");
    fs::write(&damaged, "cut").unwrap();
    let said = image.check_with_library_path(damaged.parent().unwrap());
    assert_eq!(said.of("library-missing"), [("fail", damaged.to_str().unwrap())]);
    fs::write(&module, "cut").unwrap();
    let said = image.check(&[]);
    assert_eq!(said.of("library-missing"), [("fail", module.to_str().unwrap())]);
}

/// A library that leaves a file when any code of it runs.
fn loud(path: &Path, marker: &Path) {
    let source = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) static void run(void) {{ open(\"{}\", O_CREAT, 0600); }}\n",
        marker.display()
    );
    cc(path, &source, &[]);
}

#[test]
fn no_code_runs() {
    let mut image = Image::new();
    image.install("torch-scatter");
    image.nvidia("12.4");
    let marker = image.path("ran");
    let own = image.path("own.so");
    loud(&image.site.join("torch_scatter/_scatter_cuda.so"), &marker);
    loud(&own, &marker);
    let start = format!("open({:?}, 'w')\n", marker.to_str().unwrap());
    fs::write(image.site.join("sitecustomize.py"), &start).unwrap();
    // Debian's Python has a sitecustomize of its own, which comes first.
    fs::write(image.site.join("start.pth"), format!("import sys; {start}")).unwrap();
    let said = image.check(&[("LD_PRELOAD", own.as_os_str()), ("LD_BIND_NOW", OsStr::new("1"))]);
    assert_eq!(said.of("library-missing"), [("pass", "loader")]);
    assert!(!marker.exists());
    // Each of the three would have left it.
    let python = image.path("venv/bin/python3");
    let module = image.site.join("torch_scatter/_scatter_cuda.so");
    for preload in [Path::new(""), &own, &module] {
        let mut command = Command::new(&python);
        let status = command.args(["-c", ""]).env("LD_PRELOAD", preload).status();
        assert!(status.unwrap().success());
        fs::remove_file(&marker).unwrap();
    }
}

#[test]
fn interpreters_without_a_loader_are_not_asked() {
    let mut image = Image::new();
    image.scatter(&RUNPATH);
    image.nvidia("12.4");
    let python = image.path("venv/bin/python3");
    fs::remove_file(&python).unwrap();
    // This program is static.
    symlink(env!("CARGO_BIN_EXE_cuda-entrypoint"), &python).unwrap();
    let said = image.check(&[]);
    assert_eq!(said.of("library-missing"), [("skip", "loader")]);
    assert!(said.message("library-missing").contains("statically linked"));
    assert_eq!(said.report["exit_code"], 0, "{:#}", said.report["findings"]);
}

#[test]
fn set_user_id_interpreters_are_not_asked() {
    let mut image = Image::new();
    image.scatter(&RUNPATH);
    image.nvidia("12.4");
    let python = image.path("venv/bin/python3");
    let real = fs::canonicalize(&python).unwrap();
    fs::remove_file(&python).unwrap();
    copy_program(real, &python);
    fs::set_permissions(&python, fs::Permissions::from_mode(0o4755)).unwrap();
    let said = image.check(&[]);
    assert_eq!(said.of("library-missing"), [("skip", "loader")]);
    assert!(said.message("library-missing").contains("set-user-ID"));
}

#[test]
fn without_modules_of_the_stack_nobody_asks() {
    let mut image = Image::new();
    image.install("numpy");
    image.nvidia("12.4");
    let said = image.check(&[]);
    for code in ["library-missing", "library-shadowed", "stub-driver"] {
        assert_eq!(said.of(code), [], "{code}");
    }
    assert_eq!(said.report["facts"]["image"]["loader"]["end"], "not-run");
}
