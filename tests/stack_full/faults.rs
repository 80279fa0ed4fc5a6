//! One change at a time, made of what PyPI really has where that is another wheel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::copy::{Copy, manifest, manifest_without_variables};
use super::good::USUAL;
use crate::support::cuda;
use crate::support::folders;
use crate::support::image::c_library;

const CORE: &str = "spconv/core_cc.cpython-311-x86_64-linux-gnu.so";

/// The usual exception, with these in front of it and behind it in the report's order.
fn with_usual<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<&'a str> {
    [before, &USUAL, after].concat()
}

/// A wheel for Python 3.11 as PyPI has it.
fn wheel(package: &str, version: &str) -> PathBuf {
    cuda::wheel(package, version, Some("3.11"))
}

#[test]
fn torch_2_4_1() {
    let copy = Copy::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stack_full/torch-2.4.1");
    copy.remove("torch-2.5.0.dist-info");
    for (name, to) in [
        ("METADATA", "torch-2.4.1.dist-info/METADATA"),
        ("WHEEL", "torch-2.4.1.dist-info/WHEEL"),
        ("version.py", "torch/version.py"),
    ] {
        copy.write(to, fs::read(from.join(name)).unwrap());
    }
    let own = &["requires-dist fail"; 2][..];
    // What torch 2.4.1 was built with, and what was built with torch 2.5.0.
    let others = &["requires-dist fail"; 11][..];
    let found = [
        &["package-version fail", "package-cuda-tag fail"],
        own,
        others,
        &USUAL,
    ]
    .concat();
    copy.check(&manifest())
        .is(81, &found)
        .says(
            "✗ torch is 2.4.1 (2.4.1+cu121 in its own version.py), and the manifest asks for ==2.5.0+cu124 ",
        )
        .says("✗ torchvision 0.20.0 requires torch==2.5.0, and torch is 2.4.1 ");
}

#[test]
fn torchvision_of_another_torch() {
    let copy = Copy::new();
    copy.install(&wheel("torchvision", "0.19.1"));
    let before = [
        "package-version fail",
        "package-cuda-tag fail",
        "requires-dist fail",
    ];
    copy.check(&manifest())
        .is(81, &with_usual(&before, &["cudart-version fail"]))
        .says("✗ torchvision 0.19.1 requires torch==2.4.1, and torch is 2.5.0 ")
        .says("torchvision.libs/libcudart.7ec1eba6.so.12 says that it is CUDA 12.1, and the manifest asks for 12.4 ");
}

#[test]
fn a_second_spconv_for_another_cuda() {
    let copy = Copy::new();
    copy.install(&wheel("spconv-cu121", "2.3.8"));
    let before = [
        "package-cuda-tag fail",
        "package-duplicate fail",
        "file-owner fail",
    ];
    copy.check(&manifest())
        .is(81, &with_usual(&before, &["cudart-version fail"]))
        .says("✗ several builds of spconv are installed over each other: spconv-cu121 2.3.8, spconv-cu124 2.3.8 ");
}

#[test]
fn cumm_for_another_cuda() {
    let copy = Copy::new();
    copy.pip(&["uninstall", "--yes", "cumm-cu124"]);
    copy.install(&wheel("cumm-cu118", "0.8.2"));
    // CUDA 11's libcudart needs a driver to tell its version, and there is none.
    let found = [
        "package-missing fail",
        "package-cuda-tag fail",
        "requires-dist info",
        "cudart-version unknown",
        "nvrtc-version fail",
    ];
    copy.check(&manifest())
        .is(81, &found)
        .says("✗ cumm-cu124 is not installed; cumm-cu118 0.8.2 is installed instead ");
}

#[test]
fn a_header_that_is_gone() {
    let copy = Copy::new();
    copy.remove("cumm/include/tensorview/core/all.h");
    copy.check(&manifest())
        .is(81, &with_usual(&[], &["file-missing fail"]));
}

/// The variables of the manifest keep the import from compiling; without them it is a failure.
#[test]
fn a_stray_gitignore() {
    let copy = Copy::new();
    copy.write(".gitignore", "*.pyc\n");
    copy.check(&manifest_without_variables())
        .is(81, &with_usual(&[], &["editable-trap fail"]));
    copy.check(&manifest())
        .is(0, &with_usual(&[], &["editable-trap warn"]));
}

#[test]
fn what_an_import_compiled() {
    let copy = Copy::new();
    copy.write("cumm/build/core_cc/build.ninja", "");
    copy.check(&manifest())
        .is(81, &with_usual(&[], &["editable-trap fail"]));
}

/// The libcudart that a process of torch maps, asked of the process.
const MAPPED: &str = "import torch\nfor line in open('/proc/self/maps'):\n    name = line.split()[-1]\n    \
                      if name.endswith('/libcudart.so.12'):\n        print(name)\n        break";

/// torch's own libraries have an RPATH, which beats LD_LIBRARY_PATH: the copy ahead is not mapped, and nothing is wrong.
/// Where the wheel's copy is gone it is mapped, and judged.
#[test]
fn an_older_libcudart_ahead() {
    let copy = Copy::new();
    let folder = copy.root().join("cuda-12.1/lib64");
    let older = folder.join("libcudart.so.12");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(cuda::cudart("12.1"), &older).unwrap();
    copy.check_with(&manifest(), &folder).is(0, &USUAL);
    let own = copy.site().join("nvidia/cuda_runtime/lib/libcudart.so.12");
    assert_eq!(copy.python(MAPPED, &folder).as_deref(), Ok(own.to_str().unwrap()));

    copy.remove("nvidia/cuda_runtime/lib/libcudart.so.12");
    copy.check_with(&manifest(), &folder)
        .is(
            81,
            &with_usual(&["package-incomplete fail"], &["cudart-version fail"]),
        )
        .says("✗ cuda-12.1/lib64/libcudart.so.12 says that it is CUDA 12.1, and the manifest asks for 12.4 ");
    assert_eq!(
        copy.python(MAPPED, &folder).as_deref(),
        Ok(older.to_str().unwrap())
    );
}

/// libcusparse finds libnvJitLink by a RUNPATH, which LD_LIBRARY_PATH beats: what a toolkit's image sets breaks torch.
#[test]
fn an_older_nvjitlink_ahead_shadows_the_wheels() {
    let copy = Copy::new();
    let wheel = cuda::wheel("nvidia-nvjitlink-cu12", "12.1.105", None);
    let toolkit = copy.root().join("toolkit");
    let mut unpack = Command::new("python3");
    unpack.args(["-m", "zipfile", "-e"]).arg(wheel).arg(&toolkit);
    assert!(unpack.status().unwrap().success());
    let folder = toolkit.join("nvidia/nvjitlink/lib");
    copy.check_with(&manifest(), &folder)
        .is(81, &with_usual(&[], &["library-shadowed fail"]))
        .says("libnvJitLink.so.12 lacks __nvJitLinkAddData_12_4 and 7 other symbols, which ");
    let error = copy.python("import torch", &folder).unwrap_err();
    assert!(error.contains("libnvJitLink.so.12"), "{error}");
}

#[test]
fn a_stub_in_the_drivers_place() {
    let copy = Copy::new();
    let folder = copy.root().join("cuda/lib64/stubs");
    fs::create_dir_all(&folder).unwrap();
    let source = "int cuInit(unsigned flags) { return 34; }\n";
    let stub = c_library(copy.root(), "libcuda", source);
    fs::rename(stub, folder.join("libcuda.so")).unwrap();
    copy.check_with(&manifest(), &folder)
        .is(0, &with_usual(&[], &["stub-driver info"]));
    std::os::unix::fs::symlink("libcuda.so", folder.join("libcuda.so.1")).unwrap();
    copy.check_with(&manifest(), &folder)
        .is(81, &with_usual(&[], &["stub-driver fail"]));
}

#[test]
fn a_library_that_was_cut_off() {
    let copy = Copy::new();
    let whole = fs::read(copy.site().join(CORE)).unwrap();
    copy.write(CORE, &whole[..whole.len() / 2]);
    // The loader maps what the headers promise, and dies of it.
    let found = ["library-missing unknown", "kernels-missing fail"];
    copy.check(&manifest())
        .is(81, &with_usual(&["file-owner info"], &found))
        .says(&format!(
            "✗ the kernels in {CORE} cannot be determined: damaged ELF file: "
        ));
}

/// torch-scatter of PyPI, compiled on a machine without nvcc, in minutes and once.
fn cpu_scatter(copy: &Copy) -> PathBuf {
    let wheels = folders::wheels();
    let wheel = wheels.join("torch_scatter-2.1.2-cp311-cp311-linux_x86_64.whl");
    if !wheel.exists() {
        copy.pip(&["install", "wheel==0.45.1"]);
        let mut command = Command::new(copy.env().join("bin/python"));
        command.args([
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-build-isolation",
            "--no-deps",
        ]);
        command.args(["--no-cache-dir", "--wheel-dir"]).arg(&wheels);
        command
            .args(["--no-binary=:all:", "torch-scatter==2.1.2"])
            .env("FORCE_ONLY_CPU", "1");
        assert!(command.status().unwrap().success(), "{command:?}");
        copy.pip(&["uninstall", "--yes", "wheel"]);
    }
    wheel
}

/// Its build says nothing of it.
#[test]
fn torch_scatter_for_the_cpu_alone() {
    let copy = Copy::new();
    copy.install(&cpu_scatter(&copy));
    let mut manifest = manifest();
    manifest["packages"]["torch-scatter"] = "*".into();
    copy.check(&manifest)
        .is(81, &with_usual(&[], &["kernels-missing fail"]))
        .says("✗ torch-scatter is built for the CPU alone: none of its libraries holds CUDA code ");
}
