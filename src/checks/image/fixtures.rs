//! An image in which everything fits, and the many ways in which one does not.

use crate::check::{Code, Finding, Status};
use crate::discover::requirement::normalize_name;
use crate::facts::{
    CudaVersion, Distribution, EditableTrap, Facts, HelperEnd, HelperRun, ImageFacts, Library, LibraryAnswer,
    LibraryKind, LibraryOrigin, NamedFile, Python, TrapKind,
};
use crate::stack::{CudaRules, PackageRule, SmokeEntry, Stack};

const HEADER: &str = "cumm/include/tensorview/core/all.h";

pub fn rule(name: &str, specifiers: &str) -> PackageRule {
    PackageRule {
        name: name.into(),
        normalized: normalize_name(name),
        specifiers: (specifiers != "*").then(|| specifiers.parse().unwrap()),
        optional: false,
    }
}

/// What a person reads of findings, for a snapshot.
pub fn words_of(findings: &[Finding]) -> String {
    let words = findings.iter().map(|f| {
        format!(
            "{:?} {} [{}] {}\n    observed: {}\n    required: {}\n    hint: {}\n",
            f.status, f.code, f.subject, f.message, f.observed, f.required, f.hint
        )
    });
    words.collect()
}

pub fn command(argv: &[&str]) -> SmokeEntry {
    SmokeEntry::Command {
        name: "own".into(),
        argv: argv.iter().map(ToString::to_string).collect(),
        timeout: None,
        gpu: false,
    }
}

pub fn stack() -> Stack {
    Stack {
        name: "test".into(),
        cuda: CudaRules {
            runtime: Some("12.4".parse().unwrap()),
            nvrtc: Some("12.4".parse().unwrap()),
            driver: None,
        },
        env: [
            ("SPCONV_DISABLE_JIT".into(), "1".into()),
            ("CUMM_DISABLE_JIT".into(), "1".into()),
        ]
        .into(),
        python: Some(">=3.9,<3.13".parse().unwrap()),
        packages: vec![
            rule("torch", "==2.5.0+cu124"),
            rule("cumm-cu124", "==0.7.11"),
            rule("spconv-cu124", "==2.3.8"),
            rule("torch-scatter", "*"),
        ],
        files: vec![HEADER.into()],
        smoke: vec![command(&["python", "-m", "svc.selftest"])],
        ..Stack::default()
    }
}

pub fn dist(name: &str, version: &str) -> Distribution {
    Distribution {
        name: name.into(),
        version: version.into(),
        path: format!("/opt/venv/lib/python3.11/site-packages/{name}-{version}.dist-info"),
        ..Distribution::default()
    }
}

pub fn dist_mut<'a>(image: &'a mut ImageFacts, name: &str) -> &'a mut Distribution {
    image.distributions.iter_mut().find(|d| d.name == name).unwrap()
}

fn library(kind: LibraryKind, path: &str, version: Option<(u16, u16)>) -> Library {
    Library {
        kind,
        path: path.into(),
        origin: LibraryOrigin::Wheel,
        answer: version.map(|(major, minor)| LibraryAnswer {
            version: Some(CudaVersion { major, minor }),
            ..LibraryAnswer::default()
        }),
    }
}

pub fn cudart(path: &str, version: Option<(u16, u16)>) -> Library {
    library(LibraryKind::Cudart, path, version)
}

pub fn nvrtc(path: &str, version: Option<(u16, u16)>) -> Library {
    library(LibraryKind::Nvrtc, path, version)
}

pub fn failed(path: &str, error: &str) -> Library {
    let answer = LibraryAnswer {
        error: Some(error.into()),
        ..LibraryAnswer::default()
    };
    Library {
        answer: Some(answer),
        ..cudart(path, None)
    }
}

/// What the loader found by this SONAME, or did not.
pub fn loader(soname: &str, version: Option<(u16, u16)>) -> Library {
    let mut library = match version {
        Some(_) => cudart(soname, version),
        None => failed(soname, "cannot open shared object file"),
    };
    library.origin = LibraryOrigin::Loader;
    if let (Some(answer), Some(_)) = (&mut library.answer, version) {
        answer.path = Some("/usr/lib/found/libcudart.so.12".into());
    }
    library
}

pub fn named(name: &str, found: bool) -> NamedFile {
    NamedFile {
        name: name.into(),
        path: found.then(|| format!("/sp/{name}")),
    }
}

pub fn facts() -> Facts {
    let tags = |tag: &str| vec![tag.to_string()];
    let image = ImageFacts {
        python: Python {
            interpreter: Some("/opt/venv/bin/python3".into()),
            prefix: Some("/opt/venv".into()),
            version: Some("3.11.9".into()),
            found_by: Some("PATH".into()),
            site_packages: vec!["/opt/venv/lib/python3.11/site-packages".into()],
            ..Python::default()
        },
        distributions: vec![
            Distribution {
                tags: tags("cp311-cp311-manylinux_2_28_x86_64"),
                ..dist("cumm-cu124", "0.7.11")
            },
            Distribution {
                tags: tags("cp311-cp311-manylinux_2_17_x86_64"),
                ..dist("numpy", "1.26.4")
            },
            dist("nvidia-cuda-runtime-cu12", "12.4.127"),
            Distribution {
                tags: tags("cp311-cp311-manylinux_2_28_x86_64"),
                requires: vec!["cumm-cu124<0.8.0,>=0.7.11".into(), "numpy".into()],
                ..dist("spconv-cu124", "2.3.8")
            },
            Distribution {
                module_version: Some("2.5.0+cu124".into()),
                module_cuda: Some("12.4".into()),
                tags: tags("cp311-cp311-manylinux1_x86_64"),
                ..dist("torch", "2.5.0")
            },
            dist("torch-scatter", "2.1.2+pt25cu124"),
        ],
        files: vec![named(HEADER, true)],
        libraries: vec![
            cudart("/sp/nvidia/cuda_runtime/lib/libcudart.so.12", Some((12, 4))),
            cudart(
                "/sp/spconv_cu124.libs/libcudart-8774224f.so.12.4.127",
                Some((12, 4)),
            ),
            nvrtc("/sp/nvidia/cuda_nvrtc/lib/libnvrtc.so.12", Some((12, 4))),
        ],
        helper: HelperRun {
            end: HelperEnd::Done,
            ms: 5.0,
        },
        ..ImageFacts::default()
    };
    Facts {
        image,
        ..Facts::default()
    }
}

/// The good image with a change.
pub fn image(change: impl FnOnce(&mut ImageFacts)) -> Facts {
    let mut facts = facts();
    change(&mut facts.image);
    facts
}

/// Statuses and subjects of the findings of one code.
pub fn of(findings: &[Finding], code: Code) -> Vec<(Status, &str)> {
    findings
        .iter()
        .filter(|f| f.code == code)
        .map(|f| (f.status, f.subject.as_str()))
        .collect()
}

/// Broken images, each for one reason; texts hold what a terminal must not see.
pub fn broken() -> Vec<(&'static str, Facts)> {
    let trap = |kind| EditableTrap {
        package: "cumm".into(),
        path: "/sp/\u{1b}[2J".into(),
        kind,
    };
    let end = |end: HelperEnd| {
        image(|i| {
            i.helper.end = end;
            i.libraries.iter_mut().for_each(|l| l.answer = None);
        })
    };
    let step = || "dlopen\u{1b}".to_string();
    vec![
        (
            "no python",
            image(|i| {
                i.python = Python {
                    tried: vec!["a\u{1b}b".into()],
                    ..Python::default()
                }
            }),
        ),
        ("no folders", image(|i| i.python.site_packages.clear())),
        ("no interpreter", image(|i| i.python.interpreter = None)),
        ("old python", image(|i| i.python.version = Some("3.8.1".into()))),
        (
            "foreign wheel",
            image(|i| dist_mut(i, "torch").tags = vec!["cp310-\u{1b}-x".into()]),
        ),
        (
            "foreign other wheel",
            image(|i| dist_mut(i, "numpy").tags = vec!["cp310-\u{1b}-x".into()]),
        ),
        (
            "missing",
            image(|i| i.distributions.retain(|d| d.name != "torch-scatter")),
        ),
        (
            "other version",
            image(|i| dist_mut(i, "cumm-cu124").version = "0.8\u{1b}".into()),
        ),
        ("no version", image(|i| dist_mut(i, "cumm-cu124").version.clear())),
        (
            "torn",
            image(|i| dist_mut(i, "torch").module_version = Some("2.4.0".into())),
        ),
        (
            "cpu",
            image(|i| dist_mut(i, "torch").module_version = Some("2.5.0+cpu".into())),
        ),
        (
            "other cuda",
            image(|i| i.distributions.push(dist("x", "1+pt25cu121"))),
        ),
        (
            "twice",
            image(|i| i.distributions.push(dist("torch", "2.4.0\u{1b}"))),
        ),
        (
            "two builds",
            image(|i| i.distributions.push(dist("spconv-cu121", "2.3.6"))),
        ),
        (
            "incomplete",
            image(|i| {
                let torch = dist_mut(i, "torch");
                torch.missing = ["torch/__init__.py", "torch/\u{1b}.so", "torch/b.so", "torch/c.so"]
                    .map(String::from)
                    .to_vec();
                torch.missing_count = 20;
            }),
        ),
        (
            "hidden",
            image(|i| dist_mut(i, "torch").hidden_by = vec!["/app/\u{1b}/torch/__init__.py".into()]),
        ),
        (
            "refused",
            image(|i| dist_mut(i, "torch").requires = vec!["numpy>=2".into()]),
        ),
        (
            "absent",
            image(|i| dist_mut(i, "torch").requires = vec!["sympy".into()]),
        ),
        ("trap", image(|i| i.editable = vec![trap(TrapKind::GitIgnore)])),
        ("left over", image(|i| i.editable = vec![trap(TrapKind::Build)])),
        ("file", image(|i| i.files = vec![named(HEADER, false)])),
        (
            "other cudart",
            image(|i| i.libraries.push(cudart("/sp/\u{1b}", Some((12, 1))))),
        ),
        (
            "broken cudart",
            image(|i| i.libraries.push(failed("/sp/x", "\u{1b}"))),
        ),
        (
            "no nvrtc",
            image(|i| i.libraries.retain(|l| l.kind == LibraryKind::Cudart)),
        ),
        (
            "no loader",
            end(HelperEnd::LoaderMissing {
                detail: "\u{1b}".into(),
            }),
        ),
        (
            "not started",
            end(HelperEnd::NotStarted {
                detail: "\u{1b}".into(),
            }),
        ),
        (
            "crash",
            end(HelperEnd::Crashed {
                signal: 11,
                step: step(),
            }),
        ),
        (
            "early crash",
            end(HelperEnd::Crashed {
                signal: 11,
                step: String::new(),
            }),
        ),
        (
            "exit",
            end(HelperEnd::Exited {
                code: 1,
                step: step(),
                stderr: "\u{1b}".into(),
            }),
        ),
        (
            "garbage",
            end(HelperEnd::Garbled {
                detail: "\u{1b}".into(),
                step: step(),
            }),
        ),
        (
            "hang",
            end(HelperEnd::TimedOut {
                step: step(),
                after_ms: 1,
                killed: true,
                in_all: false,
            }),
        ),
    ]
}
