//! What installed metadata says of the other packages: requirements, extras, variants, and the torch and CUDA that a wheel's
//! version names.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::image::{Image, c_library};

const TAG: &str = "cp311-cp311-linux_x86_64";

/// An environment with these packages: name, version, requirements.
fn image(packages: &[(&str, &str, &[&str])]) -> Image {
    let image = Image::empty();
    for (name, version, requires) in packages {
        image.wheel(name, version, TAG);
        let lines: String = requires.iter().map(|r| format!("Requires-Dist: {r}\n")).collect();
        let metadata = format!("{}-{version}.dist-info/METADATA", name.replace('-', "_"));
        image.write(
            &metadata,
            &format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}\n"),
        );
    }
    image
}

fn manifest(packages: Value) -> Value {
    json!({"schema": 1, "name": "test", "packages": packages})
}

/// torch 2.15.0 for CUDA 13 as PyPI has it.
const TORCH: (&str, &str, &[&str]) = (
    "torch",
    "2.15.0",
    &["cuda-toolkit[cublas,cufft]==13.2.2; platform_system == \"Linux\""],
);
const TOOLKIT: (&str, &str, &[&str]) = (
    "cuda-toolkit",
    "13.2.2",
    &[
        "nvidia-cublas==13.4.1.3.*; (sys_platform == 'linux' or sys_platform == 'win32') and extra == 'cublas'",
        "nvidia-cufft==12.2.0.57.*; sys_platform == 'linux' and extra == 'cufft'",
        "nvidia-npp==13.1.0.59.*; sys_platform == 'linux' and extra == 'npp'",
    ],
);

#[test]
fn requirements_behind_extras_are_held() {
    let torch = manifest(json!({"torch": "*"}));
    let cufft = ("nvidia-cufft", "12.2.0.57", &[][..]);
    image(&[TORCH, TOOLKIT, ("nvidia-cublas", "13.4.1.3", &[]), cufft])
        .check(&torch)
        .is(0, &[])
        .says("✓ torch finds all 3 packages that it requires");
    image(&[TORCH, TOOLKIT, ("nvidia-cublas", "13.1.2.11", &[]), cufft])
        .check(&torch)
        .is(81, &["requires-dist fail"])
        .says(
            "✗ torch 2.15.0 requires nvidia-cublas==13.4.1.3.*, and nvidia-cublas is 13.1.2.11 (torch 2.15.0 -> \
             cuda-toolkit[cublas] -> nvidia-cublas==13.4.1.3.*) [requires-dist]\n",
        )
        .says("hint:     In the Dockerfile: pip install 'nvidia-cublas==13.4.1.3.*'.");
    image(&[TORCH, TOOLKIT, ("nvidia-cublas", "13.4.1.3", &[])])
        .check(&torch)
        .is(81, &["requires-dist fail"])
        .says("which is not installed (torch 2.15.0 -> cuda-toolkit[cufft] -> nvidia-cufft==12.2.0.57.*)");
}

#[test]
fn extras_that_ask_for_each_other_end() {
    image(&[
        ("torch", "1.0", &["b[x]"]),
        (
            "b",
            "1.0",
            &[
                "torch[y]; extra == 'x'",
                "b[z,x]; extra == 'x'",
                "c>1; extra == 'z'",
            ],
        ),
        ("c", "1.0", &[]),
    ])
    .check(&manifest(json!({"torch": "*"})))
    .is(81, &["requires-dist fail"])
    .says("(torch 1.0 -> b[x] -> b[z] -> c>1)");
}

#[test]
fn the_markers_of_a_wheel_s_variant_are_evaluated() {
    let torch = manifest(json!({"torch": "*"}));
    let requires: &[&str] = &[
        "nvidia-cublas>=13; 'nvidia :: cuda_major :: 13' in variant_properties",
        "rocm; 'amd' in variant_namespaces",
    ];
    let built = |variant: Option<&str>| {
        let image = image(&[("torch", "2.15.0", requires), ("nvidia-cublas", "12.9", &[])]);
        if let Some(text) = variant {
            image.write("torch-2.15.0.dist-info/variant.json", text);
        }
        image.check(&torch)
    };
    let cuda = r#"{"variants": {"cu13": {"nvidia": {"cuda_major": ["13"]}}}}"#;
    built(Some(cuda))
        .is(81, &["requires-dist fail"])
        .says("torch 2.15.0 requires nvidia-cublas>=13, and nvidia-cublas is 12.9");
    built(None).is(0, &[]);
    built(Some("{")).is(0, &["requires-dist unknown", "requires-dist unknown"]);
}

/// `pip install -U torch` below what was built for the old one.
#[test]
fn packages_for_another_torch_are_refused_where_the_manifest_names_torch_alone() {
    let torch = manifest(json!({"torch": "==2.5.0"}));
    image(&[
        ("torch", "2.5.0", &[]),
        ("torchvision", "0.21.0", &["numpy", "torch (==2.6.0)"]),
    ])
    .check(&torch)
    .is(81, &["requires-dist fail"])
    .says("✗ torchvision 0.21.0 requires torch==2.6.0, and torch is 2.5.0 [requires-dist]\n")
    .says("pip install torchvision 'torch==2.5.0'");
}

/// A library that has the name of torch's constructor of errors.
fn c10(folder: &Path, argument: &str) -> PathBuf {
    let name = format!("_ZN3c105ErrorC2ENS_14SourceLocationE{argument}");
    c_library(
        folder,
        "c10",
        &format!("void error(void) __asm__(\"{name}\");\nvoid error(void) {{}}\n"),
    )
}

#[test]
fn the_torch_and_the_abi_that_a_version_names_are_held_against_torch_s() {
    let new = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE";
    let torch = manifest(json!({"torch": "*"}));
    for (version, argument, found, words) in [
        (
            "2.7.4+cu12torch2.5cxx11abiFALSE",
            "Ss",
            None,
            "✓ packages: 1 package is built for torch 2.5 (flash-attn 2.7.4+",
        ),
        (
            "2.7.4+cu12torch2.5cxx11abiTRUE",
            new,
            None,
            "✓ packages: 1 package is built for torch 2.5 (flash-attn 2.7.4+",
        ),
        (
            "2.7.4+cu12torch2.5cxx11abiTRUE",
            "Ss",
            Some("package-torch-tag fail"),
            "flash_attn-2.7.4+cu12torch2.5cxx11abiFALSE-cp311-cp311-linux_x86_64.whl",
        ),
        (
            "2.7.4+cu12torch2.6cxx11abiTRUE",
            new,
            Some("package-torch-tag fail"),
            "✗ flash-attn 2.7.4+cu12torch2.6cxx11abiTRUE is built for torch 2.6 and the C++11 ABI (cxx11abiTRUE), and torch \
             is 2.5.0",
        ),
        (
            "2.7.4+cu12torch2.5cxx11abiTRUE",
            "x",
            Some("package-torch-tag unknown"),
            "torch/lib/libc10.so does not tell its C++ ABI",
        ),
    ] {
        let image = image(&[("torch", "2.5.0", &[]), ("flash-attn", version, &[])]);
        image.put("torch/lib/libc10.so", &c10(image.root(), argument));
        let problems: Vec<&str> = found.into_iter().collect();
        let exit = if found == Some("package-torch-tag fail") {
            81
        } else {
            0
        };
        image.check(&torch).is(exit, &problems).says(words);
    }
    image(&[("torch", "2.5.0", &[]), ("torch-scatter", "2.1.2+pt26cu124", &[])])
        .check(&torch)
        .is(81, &["package-torch-tag fail"])
        .says("torch-scatter==2.1.2 -f https://data.pyg.org/whl/torch-2.5.0+");
}

/// cupy, DALI and faiss bring their own CUDA, which torch does not see.
#[test]
fn packages_with_their_own_cuda_are_information() {
    let mut manifest = manifest(json!({"torch": "*", "cupy-cuda12x": "==13.6.0"}));
    manifest["cuda"] = json!({"runtime": "13.2"});
    let wheels = [
        ("torch", "2.15.0+cu132", &[][..]),
        ("cupy-cuda12x", "13.6.0", &[]),
        ("nvidia-dali-cuda120", "1.53.0", &[]),
    ];
    let checked = image(&wheels).check(&manifest);
    assert_eq!(checked.problem("package-cuda-tag")["status"], "info");
    checked.says("i 2 packages are built for another CUDA than 13.2, and bring what they need of it");
    let mut linked = wheels;
    linked[2].2 = &["torch"];
    let checked = image(&linked).check(&manifest);
    assert_eq!(checked.problem("package-cuda-tag")["status"], "fail");
}
