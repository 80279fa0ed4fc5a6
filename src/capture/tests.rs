use super::*;
use crate::check::Severity;
use crate::facts::kernels::Target;
use crate::facts::{
    CudaVersion, EditableTrap, HelperEnd, HelperRun, Library, LibraryAnswer, LibraryKind, LibraryOrigin,
    ModuleKernels, Python, TrapKind,
};
use crate::stack::SmokeEntry;

const SITE: &str = "/opt/venv/lib/python3.11/site-packages";

pub(super) fn dist(name: &str, version: &str) -> Distribution {
    Distribution {
        name: name.into(),
        version: version.into(),
        path: format!("{SITE}/{name}-{version}.dist-info"),
        ..Distribution::default()
    }
}

/// What is made of these facts by a capture that is given nothing.
pub(super) fn made(
    facts: &Facts,
    variables: &BTreeMap<String, String>,
) -> Result<Captured, (String, String)> {
    let given = Given {
        name: NAME,
        variables,
        imports: &|dist| vec![dist.name.replace('-', "_")],
    };
    manifest(facts, &given)
}

pub(super) fn copy(kind: LibraryKind, path: &str, version: Option<(u16, u16)>) -> Library {
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

pub(super) fn module(package: &str, sass: &[&str]) -> ModuleKernels {
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

/// The note of [`facts`].
const WITHOUT_NUMPY: &str = "`packages` omits 1 package that is not part of the CUDA stack: numpy";

pub(super) fn facts(change: impl FnOnce(&mut ImageFacts)) -> Facts {
    let mut image = ImageFacts {
        python: Python {
            interpreter: Some("/opt/venv/bin/python".into()),
            prefix: Some("/opt/venv".into()),
            version: Some("3.11.7".into()),
            site_packages: vec![SITE.into()],
            ..Python::default()
        },
        distributions: vec![
            dist("cumm-cu124", "0.7.11"),
            dist("numpy", "1.26.4"),
            dist("nvidia-cublas-cu12", "12.4.5.8"),
            dist("own-kernels", "1.0"),
            dist("spconv-cu124", "2.3.8"),
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

/// What fails in the environment that was captured, and the manifest.
pub(super) fn failures_of(change: impl FnOnce(&mut ImageFacts)) -> (Vec<Finding>, Captured) {
    let facts = facts(change);
    let mut captured = made(&facts, &BTreeMap::new()).unwrap();
    let found = contradictions(&mut captured, &[], &Overrides::default(), &facts);
    (found, captured)
}

/// The codes alone.
pub(super) fn failures(change: impl FnOnce(&mut ImageFacts)) -> Vec<&'static str> {
    failures_of(change).0.iter().map(|f| f.code.name()).collect()
}

pub(super) fn captured(change: impl FnOnce(&mut ImageFacts)) -> Captured {
    let captured = made(&facts(change), &BTreeMap::new()).unwrap();
    // What is printed has to be a manifest, and the same one.
    let text = captured.document().unwrap();
    assert_eq!(
        Stack::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}")),
        captured.stack
    );
    captured
}

/// The manifest's own names of its packages and their versions.
fn packages_of(captured: &Captured) -> Vec<String> {
    let rules = captured.stack.packages.iter();
    rules
        .map(|rule| format!("{} {}", rule.name, rule.version()))
        .collect()
}

#[test]
fn a_manifest_of_what_is_there() {
    let captured = captured(|_| ());
    assert_eq!(captured.notes, [WITHOUT_NUMPY]);
    assert_eq!(failures(|_| ()), [""; 0]);
    let json = serde_json::to_value(&captured.stack).unwrap();
    let expected = serde_json::json!({
        "schema": 1,
        "name": "captured",
        "cuda": {"runtime": "12.4", "nvrtc": "12.4", "driver": ">=12.0"},
        "archs": "7.0;7.5;8.0;8.6;8.9;9.0",
        "env": {"CUMM_DISABLE_JIT": "1", "SPCONV_DISABLE_JIT": "1"},
        "python": ">=3.11,<3.12",
        "packages": {
            "cumm-cu124": "==0.7.11",
            "nvidia-cublas-cu12": "==12.4.5.8",
            "own-kernels": "==1.0",
            "spconv-cu124": "==2.3.8",
            "torch": "==2.5.0",
            "torch-scatter": "==2.1.2+pt25cu124",
        },
        "smoke": [
            "torch",
            {"name": "own-kernels", "argv": ["python", "-c", "import own_kernels"], "gpu": true},
        ],
    });
    assert_eq!(json, expected);
}

/// Who reads the manifest misses numpy, and a person does not know what else is not there.
#[test]
fn packages_outside_of_the_stack_are_left_out_with_a_word() {
    let note = |others: usize| {
        let captured = captured(|i| {
            i.distributions
                .extend((0..others).map(|n| dist(&format!("other-{n:02}"), "1.0")));
        });
        let of_others = |note: &String| note.contains("not part of the CUDA stack");
        captured.notes().find(of_others).unwrap()
    };
    assert_eq!(note(0), WITHOUT_NUMPY);
    assert_eq!(
        note(14),
        "`packages` omits 15 packages that are not part of the CUDA stack: numpy, other-00, other-01, other-02, \
         other-03, other-04, other-05, other-06, other-07, other-08, other-09, other-10 and 3 more"
    );
}

/// The manifest is written, and a package of it will run on the CPU.
#[test]
fn warnings_under_the_manifest_are_told() {
    let told = |overrides: &Overrides| {
        let facts = facts(|i| {
            i.distributions
                .extend([dist("jax", "0.10.2"), dist("jaxlib", "0.10.2")]);
        });
        let captured = made(&facts, &BTreeMap::new()).unwrap();
        let warnings = warnings(&captured, overrides, &facts);
        warnings.iter().map(|f| f.message.clone()).collect::<Vec<_>>()
    };
    let all = told(&Overrides::default());
    assert!(
        all.len() == 1 && all[0].starts_with("jax runs on the CPU without an error"),
        "{all:?}"
    );
    let allowed = Overrides(BTreeMap::from([(Code::PackageCudaTag, Severity::Info)]));
    assert_eq!(told(&allowed), [""; 0]);
}

#[test]
fn copies_that_disagree_are_a_range_or_left_out() {
    let disagree = |version| {
        move |i: &mut ImageFacts| i.libraries[1] = copy(LibraryKind::Cudart, "/sp/b", Some(version))
    };
    for (version, rule, note) in [
        (
            (12, 1),
            Some(">=12.1, <=12.4"),
            "cuda.runtime is a range: the copies of libcudart are of 12.1 (/sp/b), 12.4",
        ),
        (
            (13, 0),
            None,
            "cuda.runtime is left out: the copies of libcudart are of 12.4 (/sp/a/libcudart.so.12), 13.0",
        ),
    ] {
        let captured = captured(disagree(version));
        let runtime = captured.stack.cuda.runtime.as_ref().map(ToString::to_string);
        assert_eq!(runtime.as_deref(), rule);
        assert_eq!(captured.stack.cuda.driver.as_ref().unwrap().to_string(), ">=12.0");
        assert!(captured.stack.cuda.nvrtc.is_some());
        let notes: Vec<String> = captured.notes().collect();
        assert!(notes.len() == 2 && notes[0].starts_with(note), "{notes:?}");
        assert_eq!(failures(disagree(version)), [""; 0]);
    }
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
    assert_eq!(captured.notes.len(), 4, "{:?}", captured.notes);
    assert!(
        captured.notes().all(|note| !note.contains(char::is_control)),
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
    let env = made(&plain, &variables).unwrap().stack.env;
    assert_eq!(
        env,
        BTreeMap::from([("SPCONV_DISABLE_JIT".to_string(), "0".to_string())])
    );
}

#[test]
fn nothing_of_cuda_is_an_error_with_a_way_on() {
    let (message, hint) = made(
        &facts(|i| {
            i.distributions.retain(|d| d.name == "numpy");
            i.libraries.clear();
            i.kernels.clear();
        }),
        &BTreeMap::new(),
    )
    .unwrap_err();
    assert!(
        message.starts_with("no CUDA packages were found in /opt/venv"),
        "{message}"
    );
    assert!(hint.contains("--python"), "{hint}");
    let (message, _) = made(&Facts::default(), &BTreeMap::new()).unwrap_err();
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
    assert_eq!(probe.archs.unwrap().iter().count(), 16);
}

#[test]
fn a_given_name_is_the_manifest_s_and_editors_find_the_schema() {
    let variables = BTreeMap::new();
    let given = Given {
        name: "svc",
        variables: &variables,
        imports: &|_| Vec::new(),
    };
    let captured = manifest(&facts(|_| ()), &given).unwrap();
    let document: serde_json::Value = serde_json::from_str(&captured.document().unwrap()).unwrap();
    assert_eq!(document["name"], "svc");
    assert_eq!(document["$schema"], "./stack.schema.json");
    let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(keys[..3], ["$schema", "schema", "name"]);
}

/// Since CUDA 13 NVIDIA's wheels have no `-cuNN`.
#[test]
fn packages_of_cuda_are_known_by_their_names() {
    let captured = captured(|i| {
        for (name, version) in [
            ("cuda-bindings", "13.5.0"),
            ("cuda-toolkit", "13.2.2"),
            ("jax", "0.10.2"),
            ("jax-cuda12-pjrt", "0.10.2"),
            ("jax-cuda12-plugin", "0.10.2"),
            ("jaxlib", "0.10.2"),
            ("nvidia-cublas", "13.1.0"),
            ("nvidia-cuda-nvrtc", "13.2.51"),
            ("nvidia-cudnn-cu13", "9.26.0.51"),
            ("requests", "2.32.0"),
        ] {
            i.distributions.push(dist(name, version));
        }
    });
    let packages = packages_of(&captured);
    for wanted in [
        "cuda-bindings ==13.5.0",
        "cuda-toolkit ==13.2.2",
        "jax ==0.10.2",
        "jax-cuda12-pjrt ==0.10.2",
        "jax-cuda12-plugin ==0.10.2",
        "jaxlib ==0.10.2",
        "nvidia-cublas ==13.1.0",
        "nvidia-cuda-nvrtc ==13.2.51",
        "nvidia-cudnn-cu13 ==9.26.0.51",
    ] {
        assert!(packages.iter().any(|p| p == wanted), "{wanted}: {packages:?}");
    }
    assert!(
        !packages.iter().any(|p| p.starts_with("requests")),
        "{packages:?}"
    );
}

/// NGC's and conda's versions: what is pinned has to be what is installed.
#[test]
fn versions_of_other_builders_are_pinned_as_they_are() {
    for version in [
        "2.6.0a0+ecf3bae40a.nv25.01",
        "2.5.1.post303",
        "2.5.0a0+872d972e41.nv24.08",
    ] {
        let of = |i: &mut ImageFacts| {
            // Whose tag names a release of torch.
            i.distributions
                .retain(|d| !["torch", "torch-scatter"].contains(&&*d.name));
            i.distributions.push(Distribution {
                module_version: Some(version.into()),
                module_cuda: Some("12.4".into()),
                ..dist("torch", version)
            });
        };
        assert_eq!(failures(of), [""; 0], "{version}");
        let captured = captured(of);
        let torch = captured
            .stack
            .packages
            .iter()
            .find(|rule| rule.name == "torch")
            .unwrap();
        let pin: &VersionSpecifiers = torch.specifiers.as_ref().unwrap();
        assert!(pin.contains(&version.parse().unwrap()), "{pin}");
    }
}

#[test]
fn a_build_for_the_cpu_is_not_captured() {
    let cpu = |i: &mut ImageFacts| {
        i.distributions = vec![
            Distribution {
                module_version: Some("2.5.0+cpu".into()),
                ..dist("torch", "2.5.0+cpu")
            },
            dist("jax", "0.10.2"),
        ];
        i.libraries.clear();
        i.kernels.clear();
    };
    let (message, hint) = made(&facts(cpu), &BTreeMap::new()).unwrap_err();
    assert!(
        message.ends_with("torch 2.5.0+cpu is not built for CUDA"),
        "{message}"
    );
    assert!(hint.starts_with("install torch's build for CUDA"), "{hint}");
    let (message, hint) = made(
        &facts(|i| {
            cpu(i);
            i.distributions = vec![dist("jax", "0.10.2"), dist("jaxlib", "0.10.2")];
        }),
        &BTreeMap::new(),
    )
    .unwrap_err();
    assert!(
        message.ends_with("jaxlib 0.10.2 is there without a plug-in for CUDA"),
        "{message}"
    );
    assert!(hint.contains("jax[cuda12]"), "{hint}");
    // Beside packages for CUDA there is something to capture, and torch contradicts it, `+cpu` or not.
    for version in ["2.5.0+cpu", "2.5.0"] {
        let found = failures(|i| {
            cpu(i);
            i.distributions[0].module_version = Some(version.into());
            i.distributions[0].version = version.into();
            i.distributions.push(dist("nvidia-cublas-cu12", "12.4.5.8"));
        });
        assert_eq!(found, ["package-cuda-tag"], "{version}");
    }
}

#[test]
fn the_driver_has_to_serve_the_major_version() {
    let floor = |cuda: Option<&str>, copies: &[(u16, u16)]| {
        let captured = captured(|i| {
            let torch = i.distributions.iter_mut().find(|d| d.name == "torch").unwrap();
            torch.module_cuda = cuda.map(String::from);
            let copies = copies
                .iter()
                .map(|&version| copy(LibraryKind::Cudart, "/sp/x", Some(version)));
            i.libraries = copies.collect();
        });
        captured.stack.cuda.driver.map(|rule| rule.to_string())
    };
    for (cuda, copies, expected) in [
        (Some("12.4"), &[(12, 4)][..], Some(">=12.0")),
        (Some("13.2"), &[], Some(">=13.0")),
        // torch's own counts, whatever a self-contained package brings.
        (Some("12.8"), &[(12, 8), (13, 0)], Some(">=12.0")),
        (None, &[(12, 8), (13, 0)], Some(">=13.0")),
        (None, &[(11, 8)], Some(">=11.0")),
        // Before CUDA 11 a driver of an older minor version runs nothing newer.
        (None, &[(10, 2)], Some(">=10.2")),
        (None, &[], None),
    ] {
        assert_eq!(floor(cuda, copies).as_deref(), expected, "{cuda:?} {copies:?}");
    }
}

/// conda keeps libcudart at the newest of a major version. One that is older than torch's CUDA is a contradiction.
#[test]
fn a_libcudart_that_is_newer_than_torch_is_compatible() {
    let with = |cuda: &'static str| {
        move |i: &mut ImageFacts| {
            let torch = i.distributions.iter_mut().find(|d| d.name == "torch").unwrap();
            (torch.version, torch.module_version) = ("2.5.1.post303".into(), Some("2.5.1.post303".into()));
            torch.module_cuda = Some(cuda.into());
            i.distributions
                .retain(|d| d.name == "torch" || d.name == "own-kernels");
        }
    };
    let captured = captured(with("12.1"));
    assert_eq!(captured.stack.cuda.runtime.unwrap().to_string(), ">=12.1, <=12.4");
    assert_eq!(failures(with("12.1")), [""; 0]);
    assert_eq!(failures(with("12.6")), ["package-cuda-tag"]);
    assert_eq!(failures(with("11.8")), ["package-cuda-tag"]);
}

/// The entries, as a manifest writes them.
fn smoke_of(change: impl FnOnce(&mut ImageFacts)) -> (serde_json::Value, Vec<String>) {
    let captured = captured(change);
    (
        serde_json::to_value(&captured.stack.smoke).unwrap(),
        captured.notes().collect(),
    )
}

#[test]
fn what_is_known_has_its_smoke_and_the_rest_is_imported() {
    let (smoke, _) = smoke_of(|i| {
        i.kernels.push(module("spconv-cu124", &["8.0"]));
        i.kernels.push(module("xgboost", &["8.0"]));
        i.distributions.push(dist("xgboost", "3.2.0"));
        i.python.options = vec!["-E".into()];
        // It is there, and without kernels it would be no proof.
        i.distributions.push(dist("torchvision", "0.20.0"));
    });
    let import = |name: &str, module: &str| {
        let argv = ["python", "-E", "-c", &format!("import {module}")];
        serde_json::json!({"name": name, "argv": argv, "gpu": true})
    };
    let expected = serde_json::json!([
        "torch",
        "spconv",
        import("own-kernels", "own_kernels"),
        import("xgboost", "xgboost")
    ]);
    assert_eq!(smoke, expected);
    let (none, notes) = smoke_of(|i| i.python.interpreter = None);
    assert_eq!(none, serde_json::json!([]));
    assert!(
        notes.iter().any(|n| n.starts_with("smoke is left out")),
        "{notes:?}"
    );
}

#[test]
fn a_package_that_needs_the_driver_s_video_libraries_is_not_imported() {
    let (smoke, notes) = smoke_of(|i| {
        i.kernels.push(module("pynvvideocodec", &["8.0"]));
        i.distributions.push(dist("pynvvideocodec", "2.0.4"));
    });
    assert_eq!(smoke.as_array().unwrap().len(), 2, "{smoke}");
    assert!(
        notes
            .iter()
            .any(|n| n.starts_with("pynvvideocodec has no smoke entry")),
        "{notes:?}"
    );
}

#[test]
fn a_name_that_cannot_be_imported_is_left_out_of_the_smoke() {
    let variables = BTreeMap::new();
    for names in [
        vec![],
        vec!["a; import os".to_string()],
        vec!["1x".to_string()],
        vec!["a..b".to_string()],
    ] {
        let given = Given {
            name: NAME,
            variables: &variables,
            imports: &|_| names.clone(),
        };
        let captured = manifest(&facts(|_| ()), &given).unwrap();
        let is_own = |entry: &&SmokeEntry| matches!(entry, SmokeEntry::Command { .. });
        assert_eq!(captured.stack.smoke.iter().filter(is_own).count(), 0, "{names:?}");
        let said = captured
            .notes()
            .any(|n| n.starts_with("own-kernels has no smoke entry"));
        assert!(said, "{names:?}");
    }
}

/// Nothing to judge is said, and is no failure.
#[test]
fn without_a_manifest_an_empty_image_has_nothing_to_judge() {
    let findings = judge_as_found(None, &Facts::default(), &[]);
    let said: Vec<(Code, Status)> = findings.iter().map(|f| (f.code, f.status)).collect();
    assert_eq!(said, [(Code::PackageMissing, Status::Skip)]);
}

/// Without a manifest no version is a pin: a pin would hide that another package refuses it.
#[test]
fn without_a_manifest_every_package_of_the_stack_is_judged_in_any_version() {
    let stack = as_found(&facts(|_| {}), &[]);
    assert!(stack.as_found && stack.archs.is_none() && stack.smoke.is_empty());
    assert!(stack.packages.iter().all(|rule| rule.specifiers.is_none()));
    let names: Vec<&str> = stack.packages.iter().map(|rule| rule.name.as_str()).collect();
    assert!(names.contains(&"torch") && !names.contains(&"numpy"), "{names:?}");
    assert_eq!(stack.cuda.driver, None);
}
