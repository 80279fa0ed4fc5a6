use super::super::tests::{captured, module};
use crate::facts::ModuleKernels;
use crate::facts::kernels::Target;
use crate::facts::read::FromJson;

fn library(package: &str, file: &str, sass: &[&str], ptx: &[&str]) -> ModuleKernels {
    let targets = |texts: &[&str]| {
        let target = |text: &&str| Target::from_json(serde_json::Value::from(*text)).unwrap();
        texts.iter().map(|text| (target(text), 2)).collect()
    };
    let plain = module(package, &[]);
    ModuleKernels {
        path: plain.path.replace("ops.so", file),
        sass: targets(sass),
        ptx: targets(ptx),
        ..plain
    }
}

/// The list of an image with these libraries, and what is said of it.
fn of(libraries: &[ModuleKernels]) -> (Option<String>, Vec<String>) {
    let captured = captured(|i| i.kernels = libraries.to_vec());
    let notes = captured
        .notes()
        .filter(|note| note.starts_with("archs"))
        .collect();
    (captured.stack.archs.map(|list| list.to_string()), notes)
}

#[track_caller]
fn is(libraries: &[ModuleKernels], list: &str) {
    assert_eq!(of(libraries).0.as_deref(), Some(list));
}

#[test]
fn alternatives_of_a_package_limit_nothing() {
    // vllm: libraries for single GPUs beside one for all.
    is(
        &[
            library("vllm", "_C.so", &["8.0", "9.0", "10.0", "12.0"], &[]),
            library("vllm", "_fa3.so", &["9.0a"], &[]),
            library("vllm", "_qutlass.so", &["10.0f"], &[]),
        ],
        "8.0;8.6;8.9;9.0;10.0;10.3;12.0;12.1",
    );
    // Libraries for newer GPUs alone: what such a package does on older ones it does without them.
    is(
        &[
            library("torch", "libtorch_cuda.so", &["8.0", "9.0", "10.0"], &[]),
            library("kda", "hopper.so", &["9.0a"], &[]),
            library("kda", "blackwell.so", &["10.0f"], &[]),
        ],
        "8.0;8.6;8.9;9.0;10.0;10.3",
    );
}

#[test]
fn a_package_that_cannot_serve_limits_and_is_named() {
    let (list, notes) = of(&[
        library("torch", "libtorch_cuda.so", &["7.0", "8.0", "9.0", "10.0"], &[]),
        library("own", "ops.so", &["8.0", "9.0a"], &[]),
    ]);
    assert_eq!(list.as_deref(), Some("8.0;8.6;8.9;9.0"));
    assert_eq!(
        notes,
        ["archs does not list 7.0, 7.5, 10.0, 10.3, for which own has no code"]
    );
    // torch needs each of its libraries.
    is(
        &[
            library("torch", "libtorch_cuda.so", &["8.0", "9.0"], &[]),
            library("torch", "libtorch_cuda_linalg.so", &["9.0"], &[]),
        ],
        "9.0",
    );
    let (list, notes) = of(&[
        library("torch", "libtorch_cuda.so", &["8.0"], &[]),
        library("own", "ops.so", &["9.0"], &[]),
    ]);
    assert_eq!(list, None);
    assert!(
        notes.iter().any(|n| n.starts_with("archs is left out")),
        "{notes:?}"
    );
}

#[test]
fn ptx_serves_what_is_newer_and_says_so() {
    // tensorflow: SASS to 9.0, and PTX of it.
    is(
        &[library("tensorflow", "cc.so", &["7.0", "8.0", "9.0"], &["9.0"])],
        "7.0;7.5;8.0;8.6;8.9;9.0;10.0+PTX;10.3+PTX;12.0+PTX;12.1+PTX",
    );
    // The newest GPU has SASS, and those after it PTX.
    is(
        &[library("jax", "x.so", &["9.0", "10.0", "12.0"], &["12.0"])],
        "9.0;10.0;10.3;12.0;12.1+PTX",
    );
    // One package alone has it: nothing is said of GPUs that are newer.
    is(
        &[
            library("torch", "libtorch_cuda.so", &["9.0", "12.0"], &[]),
            library("own", "x.so", &["9.0"], &["9.0"]),
        ],
        "9.0;12.0+PTX;12.1+PTX",
    );
}

#[test]
fn older_and_newer_gpus_than_those_of_today_are_listed_where_they_are_served() {
    is(
        &[library(
            "torch",
            "libtorch_cuda.so",
            &["3.7", "5.0", "6.0", "7.0"],
            &[],
        )],
        "3.7;5.0;5.2;6.0;6.1;7.0;7.5",
    );
    is(
        &[library(
            "torch",
            "libtorch_cuda.so",
            &["12.0", "13.0", "13.0a"],
            &[],
        )],
        "12.0;12.1;13.0",
    );
    // An `a` variant serves its own GPU alone, and boards of no x86-64 machine are not listed, nor do others run
    // their code.
    is(
        &[library(
            "torch",
            "libtorch_cuda.so",
            &["8.7", "9.0a", "12.0a"],
            &[],
        )],
        "9.0;12.0",
    );
}

#[test]
fn nothing_with_kernels_lists_nothing() {
    let (list, notes) = of(&[]);
    assert_eq!(list, None);
    assert_eq!(notes, ["archs is left out: no library holds kernels"]);
}
