//! Copies of libcudart and libnvrtc: judged by what they answer, wherever they lie and whatever they are called.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;

use crate::support::cuda;
use crate::support::image::{CUDART, Checked, Image, NVRTC, c_library, cuda_124, entrypoint};
use crate::support::run::copy_program;
use crate::support::surroundings;

/// Names that auditwheel and torchvision's build give to their copies.
const SPCONVS: &str = "spconv_cu124.libs/libcudart-8774224f.so.12.4.127";
const TORCHVISIONS: &str = "torchvision.libs/libcudart.41118559.so.12";

fn good() -> Image {
    Image::with_cuda("12.4", "12.4.127")
}

/// CUDA 12.4 in its place, and as spconv and torchvision carry it.
fn with_copies() -> Image {
    let image = good();
    image.put(SPCONVS, &cuda::cudart("12.4"));
    image.put(TORCHVISIONS, &cuda::cudart("12.4"));
    image
}

#[test]
fn cuda_12_4_passes() {
    good()
        .check(&cuda_124())
        .is(0, &[])
        .says(&format!("✓ libcudart: {CUDART} is CUDA 12.4\n"))
        .says(&format!("✓ libnvrtc: {NVRTC} is CUDA 12.4\n"))
        .says("pass: stack test (");
}

/// The core: folder, file name and metadata all say 12.4, and the library says what it is.
#[test]
fn another_cuda_under_the_name_of_12_4_is_refused() {
    for version in ["12.1", "12.6"] {
        let image = good();
        image.put(CUDART, &cuda::cudart(version));
        image.put(NVRTC, &cuda::nvrtc(version));
        let builtins = format!("nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.{version}");
        image.put(&builtins, &cuda::nvrtc_builtins(version));
        let mut manifest = cuda_124();
        manifest["packages"] = json!({
            "nvidia-cuda-runtime-cu12": "==12.4.127", "nvidia-cuda-nvrtc-cu12": "==12.4.127"
        });
        let checked = image.check(&manifest);
        checked
            .is(81, &["cudart-version fail", "nvrtc-version fail"])
            .says("✓ nvidia-cuda-runtime-cu12 is 12.4.127\n")
            .says(&format!(
                "{CUDART} says that it is CUDA {version}, and the manifest asks for 12.4 [cudart-version]\n    \
                 observed: CUDA {version}\n    required: CUDA 12.4\n    hint:     In the Dockerfile: pip install --force-reinstall \
                 --no-deps 'nvidia-cuda-runtime-cu12==12.4.*'.\n"
            ))
            .says(&format!("{NVRTC} says that it is CUDA {version}"))
            .says("fail: cudart-version (exit 81); for details, run: cuda-entrypoint explain cudart-version");
        assert_eq!(
            checked.problem("cudart-version")["observed"],
            format!("CUDA {version}")
        );
        assert!(
            checked.termination.starts_with("cudart-version (exit 81): "),
            "{}",
            checked.termination
        );
    }
}

/// The wheels of the other CUDA as pip installs them.
#[test]
fn another_cuda_under_its_own_name_is_refused() {
    for (version, release) in [("12.1", "12.1.105"), ("12.6", "12.6.77")] {
        let image = Image::with_cuda(version, release);
        image
            .check(&cuda_124())
            .is(81, &["cudart-version fail", "nvrtc-version fail"]);
        let mut manifest = cuda_124();
        manifest["cuda"] = json!({"runtime": version, "nvrtc": version});
        image.check(&manifest).is(0, &[]);
    }
}

#[test]
fn only_what_the_manifest_asks_for_is_judged() {
    let image = good();
    image.put(NVRTC, &cuda::nvrtc("12.6"));
    let mut manifest = cuda_124();
    manifest["cuda"] = json!({"runtime": "12.4"});
    image.check(&manifest).is(0, &[]);
    manifest["cuda"] = json!({"nvrtc": "12.4"});
    image.check(&manifest).is(81, &["nvrtc-version fail"]);
    manifest["cuda"] = json!({"nvrtc": ">=12.4,<13"});
    image.check(&manifest).is(0, &[]);
}

#[test]
fn copies_under_other_names_are_found_and_asked() {
    with_copies().check(&cuda_124()).is(0, &[]).says(&format!(
        "✓ libcudart: 3 copies are CUDA 12.4\n    {CUDART}\n    {SPCONVS}\n    {TORCHVISIONS}\n"
    ));
}

#[test]
fn one_wrong_copy_of_several_is_named() {
    for (wrong, version, owner) in [
        (SPCONVS, "12.1", "spconv_cu124"),
        (TORCHVISIONS, "12.6", "torchvision"),
    ] {
        let image = with_copies();
        image.put(wrong, &cuda::cudart(version));
        let checked = image.check(&cuda_124());
        checked
            .is(81, &["cudart-version fail"])
            .says("✓ libcudart: 2 copies are CUDA 12.4\n")
            .says(&format!(
                "install the build of {owner} that is made for CUDA 12.4."
            ));
        let finding = checked.problem("cudart-version");
        assert_eq!(finding["subject"], image.path(wrong));
        assert_eq!(finding["observed"], format!("CUDA {version}"));
    }
}

#[test]
fn links_count_as_what_they_lead_to_and_once() {
    let image = good();
    let folder = image.site().join("nvidia/cuda_runtime/lib");
    symlink("libcudart.so.12", folder.join("libcudart.so")).unwrap();
    // A link that leads nowhere is passed over by the loader as well.
    symlink("gone", folder.join("libcudart.so.12.4.127")).unwrap();
    image.check(&cuda_124()).is(0, &[]);
    let facts = &image.check(&cuda_124()).report["facts"]["image"]["libraries"];
    assert_eq!(facts.as_array().unwrap().len(), 2, "{facts:#}");

    fs::remove_file(folder.join("libcudart.so.12")).unwrap();
    symlink(cuda::cudart("12.1"), folder.join("libcudart.so.12")).unwrap();
    image
        .check(&cuda_124())
        .is(81, &["cudart-version fail"])
        .says("says that it is CUDA 12.1");
}

/// What each of these is called says nothing; the loader's own sentence does.
#[test]
fn what_is_no_library_is_refused_in_the_loaders_words() {
    let real = fs::read(cuda::cudart("12.4")).unwrap();
    let mut other_machine = real.clone();
    other_machine[18] = 0xb7; // e_machine: EM_AARCH64
    let mut other_class = real.clone();
    other_class[4] = 1; // EI_CLASS: ELFCLASS32
    for (what, bytes, sentence) in [
        (
            "text",
            "not a library, although it is long enough to hold an ELF header: "
                .repeat(9)
                .into(),
            "invalid ELF header",
        ),
        ("nothing", Vec::new(), "file too short"),
        ("a head", real[..40].to_vec(), "file too short"),
        (
            "aarch64",
            other_machine,
            "No such file or directory; the file is there, and made for aarch64, not x86-64",
        ),
        ("32 bits", other_class, "wrong ELF class: ELFCLASS32"),
    ] {
        let image = good();
        image.remove(CUDART);
        fs::write(image.site().join(CUDART), bytes).unwrap();
        let checked = image.check(&cuda_124());
        checked.is(81, &["cudart-version fail"]);
        let finding = checked.problem("cudart-version");
        assert_eq!(finding["subject"], image.path(CUDART), "{what}");
        for field in ["observed", "message"] {
            let text = finding[field].as_str().unwrap();
            assert!(text.contains(sentence), "{what}: {text}");
        }
        checked.says(&format!("{CUDART} does not say its version: "));
    }
}

/// A download that broke off: the loader maps it and dies of it.
#[test]
fn half_a_library_is_refused() {
    let real = fs::read(cuda::cudart("12.4")).unwrap();
    let image = good();
    image.remove(CUDART);
    fs::write(image.site().join(CUDART), &real[..real.len() / 2]).unwrap();
    let checked = image.check(&cuda_124());
    assert_eq!(checked.exit, 81, "{}", checked.table);
    assert_eq!(checked.problem("cudart-version")["subject"], image.path(CUDART));
}

#[test]
fn a_folder_or_a_pipe_in_place_of_a_library_is_refused() {
    let image = good();
    image.remove(CUDART);
    fs::create_dir(image.site().join(CUDART)).unwrap();
    image
        .check(&cuda_124())
        .is(81, &["cudart-version fail"])
        .says("cannot load this: not a regular file");
    image.remove(CUDART);
    nix::unistd::mkfifo(&image.site().join(CUDART), nix::sys::stat::Mode::S_IRWXU).unwrap();
    image
        .check(&cuda_124())
        .is(81, &["cudart-version fail"])
        .says("cannot load this: not a regular file");
}

#[test]
fn a_library_that_is_not_cudart_is_refused() {
    let image = good();
    for (name, source, sentence) in [
        (
            "other",
            "int f(void) { return 0; }",
            "does not export this function",
        ),
        (
            "error",
            "int cudaRuntimeGetVersion(int *v) { return 3; }",
            "cudaRuntimeGetVersion returned 3",
        ),
        (
            "nonsense",
            "int cudaRuntimeGetVersion(int *v) { *v = 7; return 0; }",
            "reported the version number 7, which no CUDA release has",
        ),
    ] {
        image.put(CUDART, &c_library(image.root(), name, source));
        image
            .check(&cuda_124())
            .is(81, &["cudart-version fail"])
            .says(sentence);
    }
}

/// As CUDA 11's does on every machine without a driver.
#[test]
fn a_library_that_wants_a_driver_is_left_open() {
    let image = good();
    let source = "int cudaRuntimeGetVersion(int *v) { return 35; }";
    image.put(CUDART, &c_library(image.root(), "old", source));
    let checked = image.check(&cuda_124());
    checked
        .is(0, &["cudart-version unknown"])
        .says("reports its version only where a driver is installed: cudaRuntimeGetVersion returned 35");
    assert_eq!(
        checked.problem("cudart-version")["observed"],
        "cudaRuntimeGetVersion returned 35"
    );
}

#[test]
fn a_library_that_crashes_is_named_and_the_others_are_left_open() {
    let image = with_copies();
    let crash = "__attribute__((constructor)) static void f(void) { __builtin_trap(); }";
    image.put(CUDART, &c_library(image.root(), "crash", crash));
    let checked = image.check(&cuda_124());
    checked
        .is(
            81,
            &["cudart-version fail", "cudart-version skip", "nvrtc-version skip"],
        )
        .says(&format!(
            "{CUDART}: loading it crashed with SIGILL [cudart-version]"
        ));
    assert_eq!(checked.problem("cudart-version")["subject"], image.path(CUDART));
    let facts = &checked.report["facts"]["image"]["helper"];
    assert_eq!(facts["step"], format!("dlopen {}", image.path(CUDART)));
}

#[test]
fn a_library_that_hangs_meets_the_deadline() {
    let image = good();
    let hang = "#include <unistd.h>\n__attribute__((constructor)) static void f(void) { for (;;) pause(); }";
    image.put(CUDART, &c_library(image.root(), "hang", hang));
    let checked = image.check_with(&cuda_124(), |command| {
        command.args(["--device-timeout", "1s"]);
    });
    checked
        .is(
            85,
            &["helper-timeout fail", "cudart-version skip", "nvrtc-version skip"],
        )
        .says(&format!(
            "hung in dlopen {}/{CUDART}",
            "env/lib/python3.11/site-packages"
        ))
        .says("no answer within 1000 ms")
        .says("fail: helper-timeout (exit 85)");
    assert!(
        checked.termination.starts_with("helper-timeout (exit 85): "),
        "{}",
        checked.termination
    );
}

#[test]
fn a_library_that_the_service_may_not_read_is_refused() {
    let image = good();
    let open_to_all = |path: &std::path::Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    // Where root runs the tests, somebody else has to run the binary, and target/ may be closed to them.
    let elsewhere = tempfile::tempdir().unwrap();
    open_to_all(elsewhere.path());
    let copied = Command::new("cp")
        .arg("-a")
        .arg(image.env())
        .arg(elsewhere.path())
        .status()
        .unwrap();
    assert!(copied.success());
    // In the copy alone, which others than root cannot make of a file that they may not read.
    let library = elsewhere
        .path()
        .join(format!("env/lib/python3.11/site-packages/{CUDART}"));
    fs::set_permissions(&library, fs::Permissions::from_mode(0o000)).unwrap();
    let binary = elsewhere.path().join("cuda-entrypoint");
    copy_program(env!("CARGO_BIN_EXE_cuda-entrypoint"), &binary);
    open_to_all(&binary);
    let results = elsewhere.path().join("results");
    fs::create_dir(&results).unwrap();
    fs::set_permissions(&results, fs::Permissions::from_mode(0o777)).unwrap();
    let (report, message) = (results.join("report.json"), results.join("termination"));
    let stack = elsewhere.path().join("stack.json");
    fs::write(&stack, cuda_124().to_string()).unwrap();

    let mut command = Command::new(&binary);
    surroundings::keep(command.env_clear())
        .current_dir("/")
        .args(["check", "--stage", "image", "--stack"]);
    command
        .arg(&stack)
        .arg("--python")
        .arg(elsewhere.path().join("env"));
    command
        .arg("--report")
        .arg(&report)
        .arg("--termination-log")
        .arg(&message);
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    Checked::of(command.output().unwrap(), &report, &message, elsewhere.path())
        .is(81, &["file-unreadable fail", "cudart-version unknown"])
        .says("cannot open shared object file: Permission denied")
        .says("chmod a+rX");
}

/// An environment without wheels of CUDA, as on nvidia/cuda base images with a CPU-agnostic application.
#[test]
fn without_wheels_the_system_copy_counts() {
    let image = Image::empty();
    let system = image.root().join("system");
    fs::create_dir(&system).unwrap();
    let put = |version: &str| {
        for (name, from) in [
            ("libcudart.so.12", cuda::cudart(version)),
            ("libnvrtc.so.12", cuda::nvrtc(version)),
        ] {
            let _ = fs::remove_file(system.join(name));
            symlink(from, system.join(name)).unwrap();
        }
    };
    let check = || {
        image.check_with(&cuda_124(), |command| {
            command.env("LD_LIBRARY_PATH", &system);
        })
    };
    put("12.4");
    let checked = check();
    checked
        .is(0, &[])
        .says("✓ libcudart: libcudart.so.12 (")
        .says(") is CUDA 12.4");
    assert_eq!(
        checked.report["facts"]["image"]["libraries"][0]["origin"],
        "loader"
    );
    put("12.1");
    check()
        .is(81, &["cudart-version fail", "nvrtc-version fail"])
        .says("says that it is CUDA 12.1")
        .says("put the right copy first on LD_LIBRARY_PATH");
}

#[test]
fn a_system_copy_that_nothing_loads_does_not_count() {
    let image = good();
    let system = image.root().join("system");
    fs::create_dir(&system).unwrap();
    symlink(cuda::cudart("12.1"), system.join("libcudart.so.12")).unwrap();
    symlink(cuda::nvrtc("12.1"), system.join("libnvrtc.so.12")).unwrap();
    let checked = image.check_with(&cuda_124(), |command| {
        command.env("LD_LIBRARY_PATH", &system);
    });
    checked.is(0, &[]);
}

/// CUDA 14 does not exist, so that no machine has a copy.
#[test]
fn no_copy_anywhere_is_missing() {
    let mut manifest = cuda_124();
    manifest["cuda"] = json!({"runtime": "14.0", "nvrtc": "14.0"});
    Image::empty()
        .check(&manifest)
        .is(81, &["library-missing fail", "library-missing fail"])
        .says(
            "✗ libcudart was not found: libcudart.so.14: cannot open shared object file: No such file \
             or directory [library-missing]\n",
        )
        .says("hint:     In the Dockerfile: pip install --force-reinstall --no-deps 'nvidia-cuda-runtime==14.0.*', or base the image on a runtime image of CUDA 14.0.");
}

#[test]
fn where_nothing_is_asked_of_cuda_nothing_is_loaded() {
    let image = good();
    let crash = "__attribute__((constructor)) static void f(void) { __builtin_trap(); }";
    image.put(CUDART, &c_library(image.root(), "crash", crash));
    let manifest = json!({"schema": 1, "name": "test", "packages": {"nvidia-cuda-runtime-cu12": "*"}});
    let checked = image.check(&manifest);
    checked.is(0, &[]);
    assert_eq!(checked.report["facts"]["image"]["helper"]["end"], "not-run");
    assert_eq!(checked.report["facts"]["image"]["libraries"], json!([]));
}

/// An image without any Python is judged as well: C++ services load CUDA too.
#[test]
fn without_python_the_loader_is_asked() {
    let image = Image::empty();
    let system = image.root().join("system");
    fs::create_dir(&system).unwrap();
    symlink(cuda::cudart("12.4"), system.join("libcudart.so.12")).unwrap();
    let mut manifest = cuda_124();
    manifest["cuda"] = json!({"runtime": "12.4"});
    let mut command = entrypoint();
    command.args(["check", "--stage", "image", "--python", "/nowhere", "--stack"]);
    command
        .arg(image.manifest(&manifest))
        .env("LD_LIBRARY_PATH", &system);
    image.run_check(command).is(0, &[]).says("is CUDA 12.4");
}

/// torch 2.5.0, which pins cuDNN 9.1.0.70, and that wheel with a cuDNN that says that it is `number`.
fn with_cudnn(number: u32) -> (Image, serde_json::Value) {
    let image = Image::empty();
    image.wheel("torch", "2.5.0", "cp311-cp311-linux_x86_64");
    image.wheel("nvidia-cudnn-cu12", "9.1.0.70", "py3-none-manylinux2014_x86_64");
    image.write(
        "torch-2.5.0.dist-info/METADATA",
        "Name: torch\nVersion: 2.5.0\nRequires-Dist: nvidia-cudnn-cu12 ==9.1.0.70 ; platform_system == \"Linux\"\n",
    );
    // As the real one: a shim that asks its sub-library, and aborts where there is none.
    let shim = "#include <dlfcn.h>\n#include <stdlib.h>\n\
                size_t cudnnGetVersion(void) {\n\
                    void *graph = dlopen(\"libcudnn_graph.so.9\", RTLD_NOW);\n\
                    if (!graph) abort();\n\
                    return ((size_t (*)(void)) dlsym(graph, \"cudnnGetVersion\"))();\n\
                }";
    let folder = image.site().join("nvidia/cudnn/lib");
    link(
        &folder.join("libcudnn.so.9"),
        shim,
        &["-Wl,-rpath,$ORIGIN", "-ldl"],
    );
    graph(&folder, number);
    let manifest = json!({"schema": 1, "name": "test", "packages": {"torch": "==2.5.0"}});
    (image, manifest)
}

/// The sub-library that answers, in a folder.
fn graph(folder: &std::path::Path, number: u32) {
    let source = format!("#include <stddef.h>\nsize_t cudnnGetVersion(void) {{ return {number}; }}");
    link(&folder.join(GRAPH), &source, &["-Wl,-soname,libcudnn_graph.so.9"]);
}

const GRAPH: &str = "libcudnn_graph.so.9";
const CUDNN: &str = "nvidia/cudnn/lib/libcudnn.so.9";

fn link(output: &std::path::Path, source: &str, flags: &[&str]) {
    fs::create_dir_all(output.parent().unwrap()).unwrap();
    let input = output.with_extension("c");
    fs::write(&input, source).unwrap();
    let mut command = Command::new("cc");
    command
        .args(["-shared", "-fPIC", "-o"])
        .arg(output)
        .arg(&input)
        .args(flags);
    assert!(command.status().unwrap().success(), "{command:?}");
    fs::remove_file(input).unwrap();
}

#[test]
fn cudnn_is_the_release_that_torch_pins() {
    let (image, manifest) = with_cudnn(90_100);
    image
        .check(&manifest)
        .is(0, &[])
        .says(&format!("✓ libcudnn: {CUDNN} is cuDNN 9.1.0\n"));
    let (image, manifest) = with_cudnn(90_300);
    let checked = image.check(&manifest);
    checked
        .is(81, &["cudnn-version fail"])
        .says(&format!(
            "{CUDNN} says that it is cuDNN 9.3.0, and torch 2.5.0 asks for nvidia-cudnn-cu12==9.1.0.70 [cudnn-version]\n"
        ))
        .says("hint:     In the Dockerfile: pip install --force-reinstall --no-deps 'nvidia-cudnn-cu12==9.1.0.70'.\n");
    // Nobody has said which one it must be.
    let mut silent = manifest.clone();
    silent["packages"] = json!({"nvidia-cudnn-cu12": "*"});
    image.check(&silent).is(0, &[]);
    silent["packages"] = json!({"nvidia-cudnn-cu12": "==9.1.0.70"});
    image
        .check(&silent)
        .is(81, &["cudnn-version fail"])
        .says("and the manifest asks for nvidia-cudnn-cu12==9.1.0.70 [cudnn-version]\n");
}

#[test]
fn a_sub_library_of_cudnn_in_front_is_named() {
    let (image, manifest) = with_cudnn(90_100);
    let front = image.root().join("front");
    let checked = |receipt: bool| {
        image.check_with(&manifest, |command| {
            command.env("LD_LIBRARY_PATH", &front);
            if receipt {
                command.arg("--receipt").arg(image.root().join("receipt.json"));
            }
        })
    };
    fs::create_dir(&front).unwrap();
    checked(true).is(0, &[]).says("image written");
    checked(true).is(0, &[]).says("image as proven ");
    // By another of the names that it is looked for under, and then by the one that leads to it.
    fs::write(front.join("libcudnn_graph.so.9.1.0"), "").unwrap();
    let anew = checked(true);
    anew.is(0, &[]);
    assert!(
        anew.stderr.contains("libcudnn_graph.so.9.1.0 is new"),
        "{}",
        anew.stderr
    );
    graph(&front, 90_300);
    let stray = front.join(GRAPH);
    for receipt in [true, false] {
        let checked = checked(receipt);
        checked
            .is(81, &["cudnn-version fail"])
            .says(&format!(
                "{CUDNN} loads front/{GRAPH}, which says that it is cuDNN 9.3.0"
            ))
            .says("hint:     Take front out of LD_LIBRARY_PATH");
        let answer = &checked.report["facts"]["image"]["libraries"][0]["answer"];
        assert_eq!(answer["release"], "9.3.0");
        assert_eq!(answer["sublibrary"], stray.to_str().unwrap());
    }
}

#[test]
fn a_cudnn_without_its_sub_library_leaves_the_others_judged() {
    let (image, mut manifest) = with_cudnn(90_100);
    image.put(CUDART, &cuda::cudart("12.4"));
    manifest["cuda"] = json!({"runtime": "12.4"});
    fs::remove_file(image.site().join("nvidia/cudnn/lib").join(GRAPH)).unwrap();
    image
        .check(&manifest)
        .is(81, &["cudnn-version fail"])
        .says(&format!("✓ libcudart: {CUDART} is CUDA 12.4\n"))
        .says(&format!(
            "{CUDNN}: loading it crashed with SIGABRT [cudnn-version]"
        ));
}

/// NVRTC opens them when it compiles, and says "error 7" then.
#[test]
fn nvrtc_without_the_builtins_of_its_release_is_refused() {
    let image = Image::with_cuda("12.4", "12.4.127");
    let mut manifest = cuda_124();
    manifest["packages"] = json!({"nvidia-cuda-nvrtc-cu12": "*"});
    image.check(&manifest).is(0, &[]);
    image.remove("nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.4");
    let checked = image.check(&manifest);
    checked
        .is(81, &["library-missing fail"])
        .says("no libnvrtc-builtins");
    image.put(
        "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.6",
        &cuda::nvrtc_builtins("12.6"),
    );
    let checked = image.check(&manifest);
    checked
        .is(81, &["library-missing fail"])
        .says("opens libnvrtc-builtins.so.12.4");
}
