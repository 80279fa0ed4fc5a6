use super::super::fixtures::{image, of, stack};
use super::*;
use crate::check::{Findings, Overrides, Status};
use crate::facts::{Facts, LoaderRun};

const MODULE: &str = "/sp/torch_scatter/_scatter_cuda.so";
const TORCH: &str = "/sp/torch/lib/libtorch_python.so";
const WHEEL: &str = "/sp/nvidia/cuda_runtime/lib/libcudart.so.12";

fn object(name: &str, path: Option<&str>) -> LoadedObject {
    LoadedObject {
        name: name.into(),
        path: path.map(Into::into),
        needed_by: vec![MODULE.into()],
        ..LoadedObject::default()
    }
}

fn found(name: &str, path: &str, found_by: FoundBy) -> LoadedObject {
    LoadedObject {
        found_by: Some(found_by),
        ..object(name, Some(path))
    }
}

fn shadowing(found_by: FoundBy, wanted_by: Option<&str>) -> LoadedObject {
    LoadedObject {
        shadowed: vec![ShadowedCopy {
            path: WHEEL.into(),
            wanted_by: wanted_by.map(Into::into),
            ..ShadowedCopy::default()
        }],
        ..found("libcudart.so.12", "/toolkit/libcudart.so.12", found_by)
    }
}

fn on_library_path() -> FoundBy {
    FoundBy::LibraryPath {
        folder: "/toolkit".into(),
    }
}

fn run(end: LoaderEnd) -> LoaderRun {
    LoaderRun {
        end,
        modules: vec![TORCH.into(), MODULE.into()],
        ms: 7.0,
        ..LoaderRun::default()
    }
}

fn listing() -> LoaderRun {
    run(LoaderEnd::Listed)
}

fn said(loader: LoaderRun, loaded: Vec<LoadedObject>) -> Vec<Finding> {
    let facts: Facts = image(|i| {
        i.loader = loader;
        i.loaded = loaded;
    });
    judge(&ImageContext::new(&stack(), &facts.image))
}

fn listed_as(loaded: Vec<LoadedObject>) -> Vec<Finding> {
    said(listing(), loaded)
}

#[track_caller]
fn message(findings: &[Finding], code: Code) -> &str {
    &findings.iter().find(|f| f.code == code).unwrap().message
}

#[test]
fn what_is_found_passes_and_says_so() {
    let findings = listed_as(vec![
        object(MODULE, Some(MODULE)),
        found("libc.so.6", "/lib/libc.so.6", FoundBy::System),
    ]);
    let codes = [Code::LibraryMissing, Code::LibraryShadowed, Code::StubDriver];
    assert_eq!(findings.iter().map(|f| f.code).collect::<Vec<_>>(), codes);
    assert!(findings.iter().all(|f| f.status == Status::Pass), "{findings:#?}");
    assert!(message(&findings, Code::LibraryMissing).contains("2 modules need: 2 files"));
}

#[test]
fn a_missing_library_is_said_once_with_who_needs_it() {
    let missing = object("libcudart.so.12", None);
    let findings = listed_as(vec![missing.clone(), missing]);
    assert_eq!(
        of(&findings, Code::LibraryMissing),
        [(Status::Fail, "libcudart.so.12")]
    );
    let text = message(&findings, Code::LibraryMissing);
    assert!(text.contains(&format!("which {MODULE} needs")), "{text}");
}

#[test]
fn what_another_module_brings_is_not_missing() {
    // The module looks in vain, and torch, which is imported before it, has its own way to the library.
    let findings = listed_as(vec![
        object("libcudart.so.12", None),
        found("libcudart.so.12", WHEEL, FoundBy::System),
    ]);
    assert_eq!(of(&findings, Code::LibraryMissing), [(Status::Pass, "loader")]);
}

#[test]
fn the_drivers_libraries_come_at_the_start() {
    let names = [
        "libcuda.so.1",
        "libnvidia-ml.so.1",
        "libnvcuvid.so.1",
        "libnvidia-encode.so.1",
    ];
    let findings = listed_as(names.map(|name| object(name, None)).to_vec());
    assert_eq!(of(&findings, Code::LibraryMissing), [(Status::Pass, "loader")]);
    for name in [
        "libcudart.so.12",
        "libcudnn.so.9",
        "libnvrtc.so.12",
        "libnvJitLink.so.12",
    ] {
        let findings = listed_as(vec![object(name, None)]);
        assert_eq!(of(&findings, Code::LibraryMissing), [(Status::Fail, name)]);
    }
}

#[test]
fn hints_name_who_brings_a_library() {
    for (name, hint) in [
        ("libcudnn.so.9", "pip install 'nvidia-cudnn-cu12==9.*'"),
        ("libc10_cuda.so", "Install torch"),
        ("libnvinfer.so.10", "pip install 'tensorrt-cu12==10.*'."),
        ("libGL.so.1", "apt-file search libGL.so.1"),
        ("libpython3.11.so.1.0", "the interpreter"),
    ] {
        let findings = listed_as(vec![object(name, None)]);
        assert!(findings[0].hint.contains(hint), "{name}: {}", findings[0].hint);
    }
    // Where no CUDA is known.
    assert!(supplier("libnvinfer.so.10").contains("pip install tensorrt-cu12"));
    assert!(!supplier("libcudf.so").contains("nvidia"));
}

#[test]
fn a_wheel_in_another_folder_is_torchs_own_business() {
    let mut unreached = LoadedObject {
        path: None,
        ..shadowing(FoundBy::System, None)
    };
    unreached.shadowed[0].torch_opens = true;
    let findings = listed_as(vec![unreached.clone()]);
    assert_eq!(
        of(&findings, Code::LibraryMissing),
        [(Status::Warn, "libcudart.so.12")]
    );
    // It shadows nothing where nothing is mapped.
    assert_eq!(of(&findings, Code::LibraryShadowed), [(Status::Pass, "loader")]);
    // Without torch, or with one that does not look for it.
    unreached.shadowed[0].torch_opens = false;
    let findings = listed_as(vec![unreached]);
    assert_eq!(
        of(&findings, Code::LibraryMissing),
        [(Status::Fail, "libcudart.so.12")]
    );
    assert!(findings[0].message.contains(WHEEL));
}

/// onnxruntime-gpu whose CUDA libraries lie in wheels that `preload_dlls` loads: the entry of the hint ends all of it.
#[test]
fn what_is_preloaded_is_accepted_by_the_entry_that_the_hint_names() {
    const SITE: &str = "/opt/venv/lib/python3.11/site-packages";
    let unreached = |name: &str| LoadedObject {
        name: name.into(),
        path: None,
        needed_by: vec![format!(
            "{SITE}/onnxruntime/capi/libonnxruntime_providers_cuda.so"
        )],
        ..shadowing(FoundBy::System, None)
    };
    let names = ["libcublasLt.so.12", "libcudnn.so.9"];
    let facts: Facts = image(|i| {
        i.distributions
            .push(super::super::fixtures::dist("onnxruntime-gpu", "1.20.0"));
        i.loader = listing();
        i.loaded = names.map(unreached).into();
    });
    let judged = || judge(&ImageContext::new(&stack(), &facts.image));
    let warned = names.map(|name| (Status::Warn, name));
    assert_eq!(of(&judged(), Code::LibraryMissing), warned);
    let findings = Findings::under(&Overrides::default(), &[], judged());
    let warnings: Vec<&Finding> = findings.iter().filter(|f| f.status == Status::Warn).collect();
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}")
    };
    let (_, entry) = warning.hint.split_once("in the manifest: ").unwrap();
    let entry = entry.trim_end_matches('.');
    let manifest = format!(r#"{{"schema": 1, "name": "t", {entry}}}"#);
    let accepting = crate::stack::Stack::parse(&manifest).unwrap();
    let findings = Findings::under(&Overrides::default(), &accepting.accept, judged());
    assert!(findings.iter().all(|f| f.status != Status::Warn), "{findings:?}");
    let accepted = findings.iter().filter(|f| !f.accepted.is_empty());
    assert_eq!(accepted.count(), names.len());
}

const SITE: &str = "/opt/venv/lib/python3.11/site-packages";

/// onnxruntime-gpu that looks for these libraries in vain, each with the wheels' copies of it.
fn onnxruntimes(libraries: &[(&str, &[&str])]) -> Vec<Finding> {
    let object = |(name, copies): &(&str, &[&str])| LoadedObject {
        name: name.to_string(),
        needed_by: vec![format!(
            "{SITE}/onnxruntime/capi/libonnxruntime_providers_cuda.so"
        )],
        shadowed: copies
            .iter()
            .map(|path| ShadowedCopy {
                path: format!("{SITE}/nvidia/{path}/lib/{name}"),
                ..ShadowedCopy::default()
            })
            .collect(),
        ..LoadedObject::default()
    };
    let facts: Facts = image(|i| {
        i.distributions
            .push(super::super::fixtures::dist("onnxruntime-gpu", "1.20.0"));
        i.loader = listing();
        i.loaded = libraries.iter().map(object).collect();
    });
    judge(&ImageContext::new(&stack(), &facts.image))
}

/// onnxruntime/__init__.py, `_get_nvidia_dll_paths`: nvidia/cu13/lib for CUDA 13, and a folder of each library for CUDA 12.
#[test]
fn preload_dlls_looks_in_the_folders_of_its_own_cuda() {
    use Status::{Fail, Warn};
    let status = |cuda: &'static str, copies: &[&str]| {
        let findings = onnxruntimes(&[(cuda, &[]), ("libcurand.so.10", copies)]);
        let curands = |f: &&Finding| f.subject == "libcurand.so.10";
        findings.iter().find(curands).unwrap().status
    };
    for (cuda, copies, wanted) in [
        ("libcublas.so.13", &["cu13"][..], Warn),
        ("libcublas.so.13", &["curand"], Fail),
        ("libcublas.so.13", &["cu13", "curand"], Warn),
        ("libcublas.so.12", &["cu13"], Fail),
        ("libcublas.so.12", &["cu13", "curand"], Warn),
        ("libcublas.so.12", &["curand"], Warn),
    ] {
        assert_eq!(status(cuda, copies), wanted, "{cuda} {copies:?}");
    }
    let cudnn = onnxruntimes(&[("libcublas.so.13", &["cu13"]), ("libcudnn.so.9", &["cudnn"])]);
    assert!(cudnn.iter().all(|f| f.status != Fail), "{cudnn:?}");
}

#[test]
fn every_folder_of_what_is_preloaded_is_named() {
    let findings = onnxruntimes(&[
        ("libcublas.so.12", &["cublas"]),
        ("libcublasLt.so.12", &["cublas"]),
        ("libcudnn.so.9", &["cudnn"]),
    ]);
    let value = format!("LD_LIBRARY_PATH={SITE}/nvidia/cublas/lib:{SITE}/nvidia/cudnn/lib");
    for name in ["libcublas.so.12", "libcublasLt.so.12", "libcudnn.so.9"] {
        let finding = findings.iter().find(|f| f.subject == name).unwrap();
        assert!(finding.hint.contains(&value), "{}", finding.hint);
    }
}

/// An entry for what is preloaded must not hide that a library is nowhere.
#[test]
fn a_package_is_accepted_for_what_lies_in_a_wheel_alone() {
    let findings = onnxruntimes(&[("libcublas.so.12", &[]), ("libcudnn.so.9", &["cudnn"])]);
    let parties = |name: &str| {
        let finding = findings.iter().find(|f| f.subject == name).unwrap();
        finding.parties.clone()
    };
    assert_eq!(parties("libcublas.so.12"), ["libcublas.so.12"]);
    assert_eq!(parties("libcudnn.so.9"), ["libcudnn.so.9", "onnxruntime-gpu"]);
}

#[test]
fn a_copy_of_the_same_contents_shadows_nothing() {
    let mut object = shadowing(on_library_path(), None);
    object.shadowed[0].same = true;
    let findings = listed_as(vec![object]);
    assert_eq!(of(&findings, Code::LibraryShadowed), [(Status::Pass, "loader")]);
}

#[test]
fn versions_of_one_library_are_one_finding() {
    let missing = |version: &str, required_by: &str| MissingVersion {
        library: "/lib/libc.so.6".into(),
        version: version.into(),
        required_by: required_by.into(),
    };
    let loader = LoaderRun {
        missing_versions: vec![
            missing("GLIBC_2.34", MODULE),
            missing("GLIBC_2.34", TORCH),
            missing("GLIBC_2.38", MODULE),
        ],
        ..listing()
    };
    let findings = said(loader, vec![]);
    let expected = [(Status::Fail, "libc.so.6"), (Status::Fail, "libc.so.6")];
    assert_eq!(of(&findings, Code::LibraryMissing), expected);
    assert!(
        findings[0].message.contains("needs GLIBC_2.34, GLIBC_2.38"),
        "{}",
        findings[0].message
    );
    assert!(findings[0].hint.contains("manylinux"));
}

#[test]
fn a_refused_file_fails_with_or_without_a_list() {
    for end in [
        LoaderEnd::Listed,
        LoaderEnd::Failed {
            reason: "x".to_string(),
        },
    ] {
        let loader = LoaderRun {
            refused: vec![RefusedObject {
                path: MODULE.into(),
                reason: "file too short\u{1b}".into(),
            }],
            ..run(end)
        };
        let findings = said(loader, vec![]);
        assert_eq!(of(&findings, Code::LibraryMissing), [(Status::Fail, MODULE)]);
        assert!(findings[0].message.ends_with(r"file too short\u{1b}"));
    }
}

#[test]
fn no_list_is_no_verdict() {
    let reason = || "because\u{1b}".to_string();
    for (end, expected) in [
        (LoaderEnd::NotRun, None),
        (LoaderEnd::NotAsked { reason: reason() }, Some(Status::Skip)),
        (LoaderEnd::Failed { reason: reason() }, Some(Status::Unknown)),
    ] {
        let findings = said(run(end), vec![]);
        assert_eq!(findings.first().map(|f| f.status), expected);
        assert_eq!(findings.len(), usize::from(expected.is_some()));
        assert!(findings.iter().all(|f| f.message.ends_with(r"because\u{1b}")));
    }
    let noted = LoaderRun {
        notes: vec![reason()],
        ..listing()
    };
    let expected = [(Status::Pass, "loader"), (Status::Unknown, "loader")];
    assert_eq!(of(&said(noted, vec![]), Code::LibraryMissing), expected);
}

#[test]
fn a_shadowed_copy_is_warned_of_with_the_reason() {
    let of_torch = |folder: &str| (TORCH.to_string(), folder.to_string());
    let (of_rpath, folder) = of_torch("/toolkit");
    for (found_by, reason, hint) in [
        (
            on_library_path(),
            "LD_LIBRARY_PATH names /toolkit",
            "Take /toolkit out",
        ),
        (
            FoundBy::Rpath {
                of: of_rpath.clone(),
                folder: folder.clone(),
            },
            "the RPATH of /sp/torch/lib/libtorch_python.so leads to /toolkit",
            "builds for one CUDA",
        ),
        (
            FoundBy::Runpath { of: of_rpath, folder },
            "the RUNPATH of /sp/torch/lib/libtorch_python.so leads to /toolkit",
            "builds for one CUDA",
        ),
        (FoundBy::System, "ld.so.cache", "ldconfig"),
    ] {
        let findings = listed_as(vec![shadowing(found_by, Some(MODULE))]);
        assert_eq!(
            of(&findings, Code::LibraryShadowed),
            [(Status::Warn, "libcudart.so.12")]
        );
        let finding = findings.iter().find(|f| f.code == Code::LibraryShadowed).unwrap();
        assert!(finding.message.contains(reason), "{}", finding.message);
        assert!(
            !finding.message.contains("is loaded before"),
            "{}",
            finding.message
        );
        assert!(finding.hint.contains(hint), "{}", finding.hint);
        let (observed, required) = (finding.observed.as_str(), finding.required.as_str());
        assert_eq!((observed, required), ("/toolkit/libcudart.so.12", WHEEL));
    }
    let findings = listed_as(vec![shadowing(FoundBy::System, Some(TORCH))]);
    let order = format!("{MODULE} is loaded before {TORCH}");
    assert!(message(&findings, Code::LibraryShadowed).contains(&order));
}

#[test]
fn a_copy_in_front_that_lacks_a_symbol_fails_with_a_step_that_ends_it() {
    for (found_by, hint) in [
        (on_library_path(), "Take /toolkit out of LD_LIBRARY_PATH"),
        (FoundBy::System, "then run ldconfig)."),
    ] {
        for (count, others) in [
            (1, "lacks cudaNew, which"),
            (2, "cudaNew and 1 other symbol, which"),
            (9, "cudaNew and 8 other symbols, which"),
        ] {
            let mut object = shadowing(found_by.clone(), Some(MODULE));
            // A copy that nothing misses stands before it.
            object.shadowed.push(ShadowedCopy {
                path: "/sp/other.libs/libcudart.so.12".into(),
                missing_count: count,
                missing_symbol: Some("cudaNew".into()),
                missing_for: Some(TORCH.into()),
                ..ShadowedCopy::default()
            });
            let findings = listed_as(vec![object]);
            let expected = [(Status::Fail, "libcudart.so.12")];
            assert_eq!(of(&findings, Code::LibraryShadowed), expected);
            let finding = findings.iter().find(|f| f.code == Code::LibraryShadowed).unwrap();
            assert!(finding.message.contains(others), "{}", finding.message);
            assert!(finding.message.contains(TORCH), "{}", finding.message);
            assert_eq!(finding.required, "/sp/other.libs/libcudart.so.12");
            assert!(finding.hint.contains(hint), "{}", finding.hint);
        }
    }
}

#[test]
fn a_driver_is_judged_by_where_it_is() {
    let libcuda = |path: &str, real: Option<&str>| LoadedObject {
        real: real.map(Into::into),
        ..found("libcuda.so.1", path, on_library_path())
    };
    let real = "/usr/local/cuda/lib64/stubs/libcuda.so";
    for (path, real, status) in [
        ("/usr/lib/libcuda.so.1", None, Status::Pass),
        (
            "/usr/lib/libcuda.so.1",
            Some("/usr/lib/libcuda.so.580.1"),
            Status::Pass,
        ),
        ("/usr/stubs/lib/libcuda.so.1", None, Status::Pass),
        ("/usr/local/cuda/lib64/stubs/libcuda.so.1", None, Status::Fail),
        ("/usr/lib/libcuda.so.1", Some(real), Status::Fail),
        ("/usr/local/cuda-12.4/compat/libcuda.so.1", None, Status::Info),
    ] {
        let findings = listed_as(vec![libcuda(path, real)]);
        let found = of(&findings, Code::StubDriver);
        assert_eq!(
            found.iter().map(|f| f.0).collect::<Vec<_>>(),
            [status],
            "{path} {real:?}"
        );
    }
    let failed = listed_as(vec![libcuda("/x/stubs/libcuda.so.1", None)]);
    assert!(message(&failed, Code::StubDriver).contains("LD_LIBRARY_PATH names /toolkit"));
}

#[test]
fn a_stub_that_only_lies_there_is_information() {
    let stub = "/usr/local/cuda/lib64/stubs/libcuda.so";
    let loader = || LoaderRun {
        stubs: vec![stub.into()],
        ..listing()
    };
    assert_eq!(
        of(&said(loader(), vec![]), Code::StubDriver),
        [(Status::Info, stub)]
    );
    // The same file is not said twice.
    let mapped = found("libcuda.so.1", stub, FoundBy::System);
    assert_eq!(
        of(&said(loader(), vec![mapped]), Code::StubDriver),
        [(Status::Fail, stub)]
    );
}

#[test]
fn the_words_of_every_problem() {
    let loader = LoaderRun {
        missing_versions: vec![
            MissingVersion {
                library: "/lib/libc.so.6".into(),
                version: "GLIBC_2.38".into(),
                required_by: MODULE.into(),
            },
            MissingVersion {
                library: "/opt/\u{1b}/libstdc++.so.6".into(),
                version: "GLIBCXX_3.4.32".into(),
                required_by: TORCH.into(),
            },
        ],
        refused: vec![RefusedObject {
            path: "/x/libcublas.so.12".into(),
            reason: "invalid ELF header".into(),
        }],
        stubs: vec!["/y/stubs/libcuda.so".into()],
        ..listing()
    };
    let mut unreached = LoadedObject {
        path: None,
        name: "libcudnn.so.9".into(),
        ..shadowing(FoundBy::System, None)
    };
    unreached.shadowed[0].torch_opens = true;
    let findings = said(
        loader,
        vec![
            object("libGL.so.1\u{1b}", None),
            unreached,
            shadowing(on_library_path(), Some(TORCH)),
            found("libcuda.so.1", "/toolkit/stubs/libcuda.so.1", on_library_path()),
        ],
    );
    let mut page = String::new();
    for f in &findings {
        for text in [&f.observed, &f.required, &f.message] {
            assert!(!text.is_empty() && !text.contains(char::is_control), "{f:?}");
        }
        assert!(!f.problem || !f.hint.is_empty(), "{f:?}");
        page += &format!(
            "{:?} {} [{}] {}\n    observed: {}\n    required: {}\n    hint: {}\n",
            f.status, f.code, f.subject, f.message, f.observed, f.required, f.hint
        );
    }
    insta::assert_snapshot!(page);
}
