use super::*;
use crate::facts::kernels::Target;
use crate::facts::{
    EditableTrap, HelperEnd, HelperRun, ImageFacts, Library, LibraryAnswer, Python, TrapKind,
};

const SITE: &str = "/opt/venv/lib/python3.11/site-packages";

fn dist(name: &str, version: &str) -> Distribution {
    Distribution {
        name: name.into(),
        version: version.into(),
        path: format!("{SITE}/{name}-{version}.dist-info"),
        ..Distribution::default()
    }
}

fn copy(kind: LibraryKind, path: &str, version: Option<(u16, u16)>) -> Library {
    Library {
        kind,
        path: path.into(),
        origin: LibraryOrigin::Wheel,
        answer: Some(LibraryAnswer {
            version: version.map(|(major, minor)| CudaVersion { major, minor }),
            error: version.is_none().then(|| "cannot open".to_string()),
            ..LibraryAnswer::default()
        }),
    }
}

fn module(package: &str, sass: &[&str]) -> ModuleKernels {
    let target = |text: &&str| -> Target {
        crate::facts::read::FromJson::from_json(serde_json::Value::from(*text)).unwrap()
    };
    ModuleKernels {
        path: format!("{SITE}/{package}/ops.so"),
        package: Some(package.into()),
        fatbins: 2,
        with_kernels: 2,
        sass: sass.iter().map(|text| (target(text), 2)).collect(),
        ..ModuleKernels::default()
    }
}

fn facts(change: impl FnOnce(&mut ImageFacts)) -> Facts {
    let mut image = ImageFacts {
        python: Python {
            interpreter: Some("/opt/venv/bin/python".into()),
            prefix: Some("/opt/venv".into()),
            version: Some("3.11.7".into()),
            site_packages: vec![SITE.into()],
            ..Python::default()
        },
        distributions: vec![
            dist("cumm-cu124", "0.8.2"),
            dist("numpy", "1.26.4"),
            dist("nvidia-cublas-cu12", "12.4.5.8"),
            dist("own-kernels", "1.0"),
            Distribution {
                requires: vec!["cumm-cu124<0.8.0,>=0.7.11".into()],
                ..dist("spconv-cu124", "2.3.8")
            },
            Distribution {
                module_version: Some("2.5.0+cu124".into()),
                module_cuda: Some("12.4".into()),
                ..dist("torch", "2.5.0")
            },
            dist("torch-scatter", "2.1.2+pt25cu124"),
        ],
        libraries: vec![
            copy(LibraryKind::Cudart, "/sp/a/libcudart.so.12", Some((12, 4))),
            copy(LibraryKind::Cudart, "/sp/b/libcudart.so.12", Some((12, 4))),
            copy(LibraryKind::Nvrtc, "/sp/libnvrtc.so.12", Some((12, 4))),
        ],
        helper: HelperRun {
            end: HelperEnd::Done,
            ms: 3.0,
        },
        kernels: vec![
            module("own-kernels", &["7.0", "8.0", "9.0a"]),
            module("torch", &["7.0", "8.0", "8.6", "9.0"]),
        ],
        ..ImageFacts::default()
    };
    change(&mut image);
    Facts {
        image,
        ..Facts::default()
    }
}

/// The codes that fail in the environment that was captured.
fn failures(change: impl FnOnce(&mut ImageFacts)) -> Vec<&'static str> {
    let facts = facts(change);
    let stack = manifest(&facts, &BTreeMap::new()).unwrap().stack;
    let findings = crate::checks::image::judge(&stack, stack.archs.as_ref(), &facts);
    let failed = findings.iter().filter(|f| f.status == crate::check::Status::Fail);
    failed.map(|f| f.code.name()).collect()
}

fn captured(change: impl FnOnce(&mut ImageFacts)) -> Captured {
    let captured = manifest(&facts(change), &BTreeMap::new()).unwrap();
    // What is printed has to be a manifest, and the same one.
    let text = serde_json::to_string_pretty(&captured.stack).unwrap();
    let read = Stack::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(serde_json::to_string_pretty(&read).unwrap(), text);
    captured
}

#[test]
fn a_manifest_of_what_is_there() {
    let captured = captured(|_| ());
    assert_eq!(captured.notes, Vec::<String>::new());
    assert_eq!(failures(|_| ()), [""; 0]);
    let json = serde_json::to_value(&captured.stack).unwrap();
    let expected = serde_json::json!({
        "schema": 1,
        "name": "captured",
        "cuda": {"runtime": "12.4", "nvrtc": "12.4", "driver": ">=12.4"},
        "archs": "7.0;7.5;8.0;8.6;8.9;9.0",
        "env": {"CUMM_DISABLE_JIT": "1", "SPCONV_DISABLE_JIT": "1"},
        "python": ">=3.11,<3.12",
        "packages": {
            "cumm-cu124": "==0.8.2",
            "nvidia-cublas-cu12": "==12.4.5.8",
            "own-kernels": "==1.0",
            "spconv-cu124": "==2.3.8",
            "torch": "==2.5.0+cu124",
            "torch-scatter": "==2.1.2+pt25cu124",
        },
    });
    assert_eq!(json, expected);
}

#[test]
fn copies_that_disagree_leave_their_version_out() {
    let captured = captured(|i| i.libraries[1] = copy(LibraryKind::Cudart, "/sp/b", Some((12, 1))));
    assert_eq!(captured.stack.cuda.runtime, None);
    assert_eq!(captured.stack.cuda.driver, None);
    assert!(captured.stack.cuda.nvrtc.is_some());
    assert_eq!(captured.notes.len(), 1, "{:?}", captured.notes);
    assert!(
        captured.notes[0].contains("12.1 (/sp/b), 12.4 (/sp/a/libcudart.so.12)"),
        "{:?}",
        captured.notes
    );
    let disagree = |i: &mut ImageFacts| i.libraries[1] = copy(LibraryKind::Cudart, "/sp/b", Some((12, 1)));
    assert_eq!(failures(disagree), [""; 0]);
}

#[test]
fn a_toolkit_s_copy_and_what_the_loader_has_not_do_not_count() {
    let captured = captured(|i| {
        i.libraries = vec![
            copy(LibraryKind::Cudart, "libcudart.so.13", None),
            copy(LibraryKind::Cudart, "libcudart.so.12", Some((12, 6))),
            copy(
                LibraryKind::Cudart,
                "/usr/local/cuda/lib64/libcudart.so",
                Some((11, 8)),
            ),
        ];
        i.libraries[0].origin = LibraryOrigin::Loader;
        i.libraries[1].origin = LibraryOrigin::Loader;
        i.libraries[2].origin = LibraryOrigin::Toolkit;
        i.distributions.clear();
        i.kernels.clear();
    });
    assert_eq!(captured.stack.cuda.runtime.unwrap().to_string(), "12.6");
    assert_eq!(captured.stack.packages, []);
}

#[test]
fn what_no_manifest_can_allow_still_fails() {
    let trap = EditableTrap {
        package: "cumm".into(),
        path: format!("{SITE}/cumm/build"),
        kind: TrapKind::Build,
    };
    assert_eq!(failures(|i| i.editable = vec![trap]), ["editable-trap"]);
}

#[test]
fn architectures_are_those_of_all_kernels() {
    let captured = captured(|i| i.kernels.push(module("torch-scatter", &["9.0a"])));
    assert_eq!(captured.stack.archs.unwrap().to_string(), "9.0");
    let none = self::captured(|i| i.kernels.push(module("torch-scatter", &["3.5"])));
    assert_eq!(none.stack.archs, None);
    assert!(none.notes[0].contains("archs is left out"), "{:?}", none.notes);
}

#[test]
fn odd_metadata_is_left_out_with_a_word() {
    let captured = captured(|i| {
        i.distributions.push(dist("torch-x\u{1b}", "1.0"));
        i.distributions.push(dist("torch-odd", "1.0-custom\u{7}build"));
        i.python.version = None;
    });
    let names: Vec<_> = captured
        .stack
        .packages
        .iter()
        .map(|rule| rule.name.as_str())
        .collect();
    assert!(
        names.contains(&"torch-odd") && !names.iter().any(|n| n.contains('\u{1b}')),
        "{names:?}"
    );
    assert_eq!(captured.stack.python, None);
    assert_eq!(captured.notes.len(), 3, "{:?}", captured.notes);
    assert!(
        captured.notes.iter().all(|note| !note.contains(char::is_control)),
        "{:?}",
        captured.notes
    );
}

#[test]
fn variables_are_kept_where_nothing_needs_them() {
    let variables = BTreeMap::from([
        ("SPCONV_DISABLE_JIT".to_string(), "0".to_string()),
        ("SECRET".to_string(), "x".to_string()),
    ]);
    let plain = facts(|i| i.distributions.retain(|d| d.name == "torch"));
    let env = manifest(&plain, &variables).unwrap().stack.env;
    assert_eq!(
        env,
        BTreeMap::from([("SPCONV_DISABLE_JIT".to_string(), "0".to_string())])
    );
}

#[test]
fn nothing_of_cuda_is_an_error_with_a_way_on() {
    let (message, hint) = manifest(
        &facts(|i| {
            i.distributions.retain(|d| d.name == "numpy");
            i.libraries.clear();
            i.kernels.clear();
        }),
        &BTreeMap::new(),
    )
    .unwrap_err();
    assert!(
        message.starts_with("there is nothing of CUDA to capture in /opt/venv"),
        "{message}"
    );
    assert!(hint.contains("--python"), "{hint}");
    let (message, _) = manifest(&Facts::default(), &BTreeMap::new()).unwrap_err();
    assert!(message.contains("no Python environment was found"), "{message}");
}

#[test]
fn the_probe_accepts_every_release() {
    let probe = probe().unwrap();
    for (major, minor) in [(10, 2), (11, 8), (12, 4), (13, 0)] {
        assert!(
            probe
                .cuda
                .runtime
                .as_ref()
                .unwrap()
                .matches(CudaVersion { major, minor })
        );
    }
    assert_eq!(probe.archs.unwrap().iter().count(), 8);
}
