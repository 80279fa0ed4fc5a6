//! `cudart-version`, `nvrtc-version`, `library-missing`, `loader-missing`, and how the helper that asked them ended.
//!
//! A copy is judged by what it answered, never by its file's name.

use nix::sys::signal::Signal;

use super::{Scene, clean, listed};
use crate::check::{Code, Finding, Stage};
use crate::checks::device;
use crate::facts::{CudaVersion, HelperEnd, Library, LibraryKind, LibraryOrigin};
use crate::stack::CudaRule;

/// A library that the manifest has a rule for.
struct Subject<'a> {
    code: Code,
    /// `libcudart`
    name: &'static str,
    kind: LibraryKind,
    rule: &'a CudaRule,
}

pub fn judge(scene: &Scene<'_>) -> Vec<Finding> {
    let cuda = &scene.stack.cuda;
    let subjects = [
        (
            Code::CudartVersion,
            "libcudart",
            LibraryKind::Cudart,
            &cuda.runtime,
        ),
        (Code::NvrtcVersion, "libnvrtc", LibraryKind::Nvrtc, &cuda.nvrtc),
    ];
    let subjects: Vec<Subject<'_>> = subjects
        .into_iter()
        .filter_map(|(code, name, kind, rule)| {
            rule.as_ref().map(|rule| Subject {
                code,
                name,
                kind,
                rule,
            })
        })
        .collect();
    if subjects.is_empty() {
        return Vec::new();
    }
    let culprit = culprit(scene);
    let culprit_is_judged = culprit.is_some_and(|library| subjects.iter().any(|s| s.kind == library.kind));
    let mut findings: Vec<Finding> = helper(scene, culprit_is_judged).into_iter().collect();
    for subject in &subjects {
        findings.extend(one(scene, subject, culprit));
    }
    findings
}

fn answered(library: &Library) -> bool {
    library.answer.is_some()
}

/// The library in whose step the helper ended: the one that the step names, else the first without an answer.
fn culprit<'a>(scene: &Scene<'a>) -> Option<&'a Library> {
    let step = match &scene.image.helper.end {
        HelperEnd::Crashed { step, .. }
        | HelperEnd::Exited { step, .. }
        | HelperEnd::Garbled { step, .. } => step,
        _ => return None,
    };
    if step.is_empty() {
        // It had not come to any library yet.
        return None;
    }
    let open = || scene.image.libraries.iter().filter(|l| !answered(l));
    // The SONAME `libcudart.so.12` is part of many paths: the longest name that fits is meant.
    open()
        .filter(|l| step.contains(&l.path))
        .max_by_key(|l| l.path.len())
        .or_else(|| open().next())
}

/// What became of the helper, where that is not one library's doing.
fn helper(scene: &Scene<'_>, culprit_is_judged: bool) -> Option<Finding> {
    let required = "an answer of every CUDA runtime library";
    let crashed = |observed: String, message: String, hint: &str| {
        let mut finding = Finding::problem(Code::HelperCrashed, "image")
            .observed(observed)
            .required(required)
            .message(message)
            .hint(hint);
        finding.stage = Stage::Image;
        finding
    };
    let early = "Run with --log debug, and report this with the log if the image is a plain glibc one.";
    match &scene.image.helper.end {
        HelperEnd::NotRun => None,
        HelperEnd::Done => Some(
            Finding::pass(Code::LoaderMissing, "ld.so")
                .observed("the helper ran")
                .required("a glibc loader")
                .message("the image's loader runs glibc programs"),
        ),
        HelperEnd::LoaderMissing { detail } => Some(
            Finding::problem(Code::LoaderMissing, "ld.so")
                .observed(clean(detail))
                .required("/lib64/ld-linux-x86-64.so.2 of glibc 2.17 or newer")
                .message(format!("no CUDA library can run in this image: {}", clean(detail)))
                .hint(
                    "Base the image on a glibc distribution (Debian, Ubuntu, Rocky, distroless/cc), not on Alpine or \
                     scratch.",
                ),
        ),
        HelperEnd::NotStarted { detail } => Some(crashed(
            clean(detail),
            format!("the helper that asks the libraries could not be started: {}", clean(detail)),
            device::not_started_hint(detail),
        )),
        HelperEnd::TimedOut { step, after_ms, .. } => {
            let step = clean(step);
            let mut finding = Finding::problem(Code::HelperTimeout, "image")
                .observed(format!("no answer within {after_ms} ms, in {step}"))
                .required(required)
                .message(format!("the helper that asks the libraries hung in {step}"))
                .hint(
                    "Look at the storage that the image lies on (a lazily pulled layer can take minutes at first \
                     use), or give it longer with --device-timeout.",
                );
            finding.stage = Stage::Image;
            Some(finding)
        }
        _ if culprit_is_judged => None,
        end => {
            let observed = ending(end);
            Some(crashed(
                observed.clone(),
                format!("the helper that asks the libraries ended before its answer: {observed}"),
                early,
            ))
        }
    }
}

/// How a run that broke off ended, as words.
fn ending(end: &HelperEnd) -> String {
    let place = |step: &str| {
        if step.is_empty() {
            "before its first call".to_string()
        } else {
            format!("in {step}")
        }
    };
    let text = match end {
        HelperEnd::Crashed { signal, step } => {
            format!("it crashed with {} {}", signal_name(*signal), place(step))
        }
        HelperEnd::Exited { code, step, stderr } if stderr.trim().is_empty() => {
            format!("it exited with status {code} {}", place(step))
        }
        HelperEnd::Exited { code, step, stderr } => {
            let last = stderr.trim().lines().next_back().unwrap_or_default();
            format!("it exited with status {code} {}: {last}", place(step))
        }
        HelperEnd::Garbled { detail, step } => {
            format!("it wrote something else than answers {}: {detail}", place(step))
        }
        _ => String::new(),
    };
    clean(&text)
}

fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(
        |_| format!("signal {number}"),
        |signal| signal.as_str().to_string(),
    )
}

fn one(scene: &Scene<'_>, subject: &Subject<'_>, culprit: Option<&Library>) -> Vec<Finding> {
    let libraries = || scene.image.libraries.iter().filter(|l| l.kind == subject.kind);
    if !libraries().any(|l| l.origin != LibraryOrigin::Toolkit) {
        return vec![missing(
            scene,
            subject,
            "no copy in site-packages, and no name to ask the loader for",
        )];
    }
    let mut findings = Vec::new();
    let mut good = Vec::new();
    let mut open = Vec::new();
    let mut unloadable = Vec::new();
    for library in libraries() {
        let version = library.answer.as_ref().and_then(|a| a.version);
        let error = library.answer.as_ref().and_then(|a| a.error.as_deref());
        match (library.origin, version, error) {
            (LibraryOrigin::Toolkit, version, _) => {
                findings.extend(version.map(|v| unused(subject, library, v)))
            }
            _ if culprit.is_some_and(|c| std::ptr::eq(c, library)) => {
                findings.push(broke(scene, subject, library));
            }
            (_, None, Some(error)) if wants_driver(library) => {
                findings.push(untold(subject, library, error));
            }
            (LibraryOrigin::Loader, None, Some(error)) => {
                unloadable.push(format!("{}: {}", library.path, reason(library, error)))
            }
            (_, _, Some(error)) => findings.push(refused(subject, library, error)),
            (_, Some(version), None) if subject.rule.matches(version) => good.push(shown(library)),
            (_, Some(version), None) => findings.push(mismatch(subject, library, version)),
            (_, None, None) => open.push(shown(library)),
        }
    }
    // Of several majors that would do, the loader need not know all.
    let is_there = |l: &Library| answered(l) && (!is_error(l) || wants_driver(l));
    let loaded = libraries().any(|l| l.origin == LibraryOrigin::Loader && is_there(l));
    if !unloadable.is_empty() && !loaded {
        findings.push(missing(scene, subject, &unloadable.join("; ")));
    }
    if !open.is_empty() {
        findings.push(unanswered(scene, subject, &open));
    }
    if !good.is_empty() {
        let paths = clean(&listed(&good, 16));
        findings.insert(
            0,
            Finding::pass(subject.code, subject.name)
                .observed(paths.clone())
                .required(format!("CUDA {}", subject.rule))
                .message(match good.len() {
                    1 => format!("{paths} is CUDA {}", versions(libraries(), subject.rule)),
                    n => format!(
                        "{n} copies are CUDA {}: {paths}",
                        versions(libraries(), subject.rule)
                    ),
                }),
        );
    }
    findings
}

fn is_error(library: &Library) -> bool {
    library.answer.as_ref().is_some_and(|a| a.error.is_some())
}

fn wants_driver(library: &Library) -> bool {
    library
        .answer
        .as_ref()
        .is_some_and(|answer| answer.wants_driver())
}

/// The versions that the good copies answered: one, unless the rule is a range.
fn versions<'a>(libraries: impl Iterator<Item = &'a Library>, rule: &CudaRule) -> String {
    let mut versions: Vec<CudaVersion> = libraries
        .filter(|l| l.origin != LibraryOrigin::Toolkit && !is_error(l))
        .filter_map(|l| l.answer.as_ref()?.version)
        .filter(|v| rule.matches(*v))
        .collect();
    versions.sort();
    versions.dedup();
    versions
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" and ")
}

/// The path, and for what the loader found by its SONAME where that was.
fn shown(library: &Library) -> String {
    let mapped = library.answer.as_ref().and_then(|a| a.path.as_deref());
    match (library.origin, mapped) {
        (LibraryOrigin::Loader, Some(path)) if path != library.path => format!("{} ({path})", library.path),
        _ => library.path.clone(),
    }
}

/// How to get a copy that fits: by whom this one was brought.
fn remedy(subject: &Subject<'_>, library: &Library) -> String {
    let path = &library.path;
    let rule = subject.rule;
    if library.origin == LibraryOrigin::Loader {
        return format!(
            "Base the image on CUDA {rule}, or put the right copy first on LD_LIBRARY_PATH or into /etc/ld.so.conf.d."
        );
    }
    if path.contains("/nvidia/") {
        let wheel = if subject.kind == LibraryKind::Cudart {
            "nvidia-cuda-runtime"
        } else {
            "nvidia-cuda-nvrtc"
        };
        let suffix = rule.major().map_or_else(String::new, |m| format!("-cu{m}"));
        return format!("In the Dockerfile: pip install the {wheel}{suffix} wheel of CUDA {rule}.");
    }
    // site-packages/NAME.libs/… and site-packages/NAME/lib/…
    let mut folders = path.rsplit('/').skip(1);
    let owner = match folders.next() {
        Some("lib") => folders.next(),
        folder => folder.and_then(|f| f.strip_suffix(".libs")),
    };
    match owner {
        Some(owner) => {
            format!("In the Dockerfile: install the build of {owner} that is made for CUDA {rule}.")
        }
        None => format!("Reinstall the package that brought {path} in its build for CUDA {rule}."),
    }
}

fn problem(subject: &Subject<'_>, library: &Library, observed: String, message: String) -> Finding {
    Finding::problem(subject.code, clean(&library.path))
        .observed(clean(&observed))
        .required(format!("CUDA {}", subject.rule))
        .message(clean(&message))
        .hint(clean(&remedy(subject, library)))
}

fn mismatch(subject: &Subject<'_>, library: &Library, version: CudaVersion) -> Finding {
    let shown = shown(library);
    let message = format!(
        "{shown} says that it is CUDA {version}, and the manifest asks for {}",
        subject.rule
    );
    problem(subject, library, format!("CUDA {version}"), message)
}

fn refused(subject: &Subject<'_>, library: &Library, error: &str) -> Finding {
    let reason = reason(library, error);
    problem(
        subject,
        library,
        reason.into(),
        format!("{} does not say its version: {reason}", library.path),
    )
}

/// A copy that nobody can ask where there is no driver, as at the build of an image.
fn untold(subject: &Subject<'_>, library: &Library, error: &str) -> Finding {
    let reason = clean(reason(library, error));
    let shown = clean(&shown(library));
    Finding::unknown(subject.code, clean(&library.path))
        .observed(reason.clone())
        .required(format!("CUDA {}", subject.rule))
        .message(format!(
            "{shown} tells its version only where there is a driver: {reason}"
        ))
        .hint("Nothing to do at a build without a GPU: it is asked again where the service runs.")
}

/// The loader's message without the path that it starts with, where that is the one it was given.
fn reason<'a>(library: &Library, error: &'a str) -> &'a str {
    error
        .strip_prefix(library.path.as_str())
        .and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or(error)
}

fn broke(scene: &Scene<'_>, subject: &Subject<'_>, library: &Library) -> Finding {
    let how = match &scene.image.helper.end {
        HelperEnd::Crashed { signal, .. } => format!("loading it crashed with {}", signal_name(*signal)),
        end => ending(end).replacen("it ", "asking it failed: the helper ", 1),
    };
    problem(subject, library, how.clone(), format!("{}: {how}", library.path))
}

fn unused(subject: &Subject<'_>, library: &Library, version: CudaVersion) -> Finding {
    Finding::info(subject.code, clean(&library.path))
        .observed(format!("CUDA {version}"))
        .required(format!("CUDA {}", subject.rule))
        .message(clean(&format!(
            "{} is a toolkit's copy of CUDA {version}; nothing loads it from there",
            library.path
        )))
}

fn missing(scene: &Scene<'_>, subject: &Subject<'_>, observed: &str) -> Finding {
    let toolkit = scene
        .image
        .libraries
        .iter()
        .find(|l| l.kind == subject.kind && l.origin == LibraryOrigin::Toolkit);
    let name = subject.name;
    let hint = match toolkit.and_then(|l| l.path.rsplit_once('/')) {
        Some((folder, _)) => format!(
            "There is a copy in {folder} that the loader does not search: write that folder to \
             /etc/ld.so.conf.d/cuda.conf and run ldconfig, or add it to LD_LIBRARY_PATH."
        ),
        None => format!(
            "Install the wheel that brings {name} for CUDA {}, or base the image on a CUDA runtime image.",
            subject.rule
        ),
    };
    Finding::problem(Code::LibraryMissing, name)
        .observed(clean(observed))
        .required(format!("{name} of CUDA {}", subject.rule))
        .message(clean(&format!("{name} is found nowhere: {observed}")))
        .hint(clean(&hint))
}

fn unanswered(scene: &Scene<'_>, subject: &Subject<'_>, open: &[String]) -> Finding {
    let paths = clean(&listed(open, 16));
    let (finding, why) = match &scene.image.helper.end {
        HelperEnd::NotRun => (
            Finding::skip(subject.code, subject.name),
            "the libraries were not asked",
        ),
        HelperEnd::Done => (
            Finding::unknown(subject.code, subject.name),
            "the helper gave no answer for them",
        ),
        _ => (
            Finding::skip(subject.code, subject.name),
            "the helper ended before it came to them",
        ),
    };
    finding
        .observed(paths.clone())
        .required(format!("CUDA {}", subject.rule))
        .message(format!("versions are not known, since {why}: {paths}"))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;
    use crate::facts::{HelperRun, ImageFacts};
    use crate::stack::{CudaRules, Stack};

    const WHEEL: &str = "/sp/nvidia/cuda_runtime/lib/libcudart.so.12";
    const SPCONV: &str = "/sp/spconv_cu124.libs/libcudart-8774224f.so.12.4.127";

    fn runtime(rule: &str) -> Stack {
        Stack {
            cuda: CudaRules {
                runtime: Some(rule.parse().unwrap()),
                ..CudaRules::default()
            },
            ..Stack::default()
        }
    }

    fn with(rule: &str, end: HelperEnd, libraries: Vec<Library>) -> Vec<Finding> {
        let image = ImageFacts {
            libraries,
            helper: HelperRun { end, ms: 1.0 },
            ..ImageFacts::default()
        };
        judge(&Scene::new(&runtime(rule), &image))
    }

    fn crash(step: &str) -> HelperEnd {
        HelperEnd::Crashed {
            signal: 11,
            step: step.into(),
        }
    }

    #[test]
    fn copies_that_fit_are_named_together_and_others_each() {
        let libraries = vec![
            cudart(WHEEL, Some((12, 4))),
            cudart(SPCONV, Some((12, 4))),
            // Its name says otherwise: only the answer counts.
            cudart("/sp/torchvision.libs/libcudart.12.4.so.12", Some((12, 1))),
        ];
        let findings = with("12.4", HelperEnd::Done, libraries);
        let expected = [
            (Status::Pass, "libcudart"),
            (Status::Fail, "/sp/torchvision.libs/libcudart.12.4.so.12"),
        ];
        assert_eq!(of(&findings, Code::CudartVersion), expected);
        assert!(
            findings
                .iter()
                .any(|f| f.observed.contains(WHEEL) && f.observed.contains(SPCONV))
        );
        let wrong = findings.iter().find(|f| f.status == Status::Fail).unwrap();
        assert_eq!(
            (wrong.observed.as_str(), wrong.required.as_str()),
            ("CUDA 12.1", "CUDA 12.4")
        );
        assert!(wrong.hint.contains("build of torchvision"), "{}", wrong.hint);
    }

    #[test]
    fn nvrtc_has_its_own_rule() {
        let stack = Stack {
            cuda: CudaRules {
                nvrtc: Some("12.4".parse().unwrap()),
                ..CudaRules::default()
            },
            ..Stack::default()
        };
        let libraries = vec![
            cudart(WHEEL, Some((11, 8))),
            nvrtc("/sp/n/lib/libnvrtc.so.12", Some((12, 6))),
        ];
        let helper = HelperRun {
            end: HelperEnd::Done,
            ms: 1.0,
        };
        let image = ImageFacts {
            libraries,
            helper,
            ..ImageFacts::default()
        };
        let findings = judge(&Scene::new(&stack, &image));
        assert_eq!(
            of(&findings, Code::NvrtcVersion),
            [(Status::Fail, "/sp/n/lib/libnvrtc.so.12")]
        );
        assert_eq!(of(&findings, Code::CudartVersion), []);
    }

    #[test]
    fn an_error_is_the_copys_own() {
        let findings = with(
            "12.4",
            HelperEnd::Done,
            vec![failed(WHEEL, "wrong ELF class\u{7}")],
        );
        assert_eq!(of(&findings, Code::CudartVersion), [(Status::Fail, WHEEL)]);
        let finding = findings.iter().find(|f| f.code == Code::CudartVersion).unwrap();
        assert!(
            finding.message.contains("wrong ELF class\u{fffd}"),
            "{}",
            finding.message
        );
    }

    #[test]
    fn the_loader_finds_one_or_none() {
        let good = with(
            "12.4",
            HelperEnd::Done,
            vec![loader("libcudart.so.12", Some((12, 4)))],
        );
        assert_eq!(of(&good, Code::CudartVersion), [(Status::Pass, "libcudart")]);
        assert!(good[1].message.contains("/usr/lib/found"), "{}", good[1].message);
        let other = with(
            "12.4",
            HelperEnd::Done,
            vec![loader("libcudart.so.12", Some((12, 1)))],
        );
        assert_eq!(
            of(&other, Code::CudartVersion),
            [(Status::Fail, "libcudart.so.12")]
        );
        let none = with("12.4", HelperEnd::Done, vec![loader("libcudart.so.12", None)]);
        assert_eq!(of(&none, Code::LibraryMissing), [(Status::Fail, "libcudart")]);
        assert_eq!(
            of(&with("12.4", HelperEnd::Done, vec![]), Code::LibraryMissing),
            [(Status::Fail, "libcudart")]
        );
    }

    #[test]
    fn of_several_majors_one_is_enough() {
        let two = vec![
            loader("libcudart.so.13", None),
            loader("libcudart.so.12", Some((12, 4))),
        ];
        let findings = with(">=12.0", HelperEnd::Done, two);
        assert_eq!(of(&findings, Code::LibraryMissing), []);
        assert_eq!(of(&findings, Code::CudartVersion), [(Status::Pass, "libcudart")]);
    }

    #[test]
    fn a_toolkits_copy_is_information_and_the_way_out() {
        let path = "/usr/local/cuda/lib64/libcudart.so.12";
        let toolkit = Library {
            origin: LibraryOrigin::Toolkit,
            ..cudart(path, Some((12, 6)))
        };
        let findings = with(
            "12.4",
            HelperEnd::Done,
            vec![loader("libcudart.so.12", None), toolkit],
        );
        assert_eq!(of(&findings, Code::CudartVersion), [(Status::Info, path)]);
        let missing = findings.iter().find(|f| f.code == Code::LibraryMissing).unwrap();
        assert!(missing.hint.contains("/usr/local/cuda/lib64"), "{}", missing.hint);
    }

    #[test]
    fn a_crash_is_blamed_on_the_library_of_its_step() {
        let libraries = || {
            vec![
                cudart(WHEEL, Some((12, 4))),
                cudart(SPCONV, None),
                cudart("/sp/z.libs/libcudart.so.12", None),
            ]
        };
        for (step, subject) in [
            (format!("dlopen {SPCONV}"), SPCONV),
            (
                "dlopen /sp/z.libs/libcudart.so.12".into(),
                "/sp/z.libs/libcudart.so.12",
            ),
            ("cudaRuntimeGetVersion".into(), SPCONV),
        ] {
            let findings = with("12.4", crash(&step), libraries());
            let expected = [
                (Status::Pass, "libcudart"),
                (Status::Fail, subject),
                (Status::Skip, "libcudart"),
            ];
            assert_eq!(of(&findings, Code::CudartVersion), expected, "{step}");
            assert_eq!(of(&findings, Code::HelperCrashed), [], "{step}");
            let failed = findings.iter().find(|f| f.status == Status::Fail).unwrap();
            assert!(
                failed.message.contains("crashed with SIGSEGV"),
                "{}",
                failed.message
            );
        }
    }

    #[test]
    fn exits_and_garbage_are_the_librarys_as_well() {
        let ends = [
            HelperEnd::Exited {
                code: 3,
                step: "dlopen".into(),
                stderr: "a\nb\u{1b}\n".into(),
            },
            HelperEnd::Garbled {
                step: "dlopen".into(),
                detail: "line 2: no JSON".into(),
            },
        ];
        for end in ends {
            let findings = with("12.4", end, vec![cudart(WHEEL, None)]);
            assert_eq!(of(&findings, Code::CudartVersion), [(Status::Fail, WHEEL)]);
            assert!(
                findings[0].message.contains("asking it failed: the helper"),
                "{}",
                findings[0].message
            );
        }
    }

    #[test]
    fn an_end_that_is_no_librarys_doing_is_the_helpers() {
        let cases = [
            (crash(""), Code::HelperCrashed),
            (
                HelperEnd::NotStarted {
                    detail: "memfd: EACCES".into(),
                },
                Code::HelperCrashed,
            ),
            (
                HelperEnd::TimedOut {
                    step: "dlopen x".into(),
                    after_ms: 60_000,
                    killed: true,
                },
                Code::HelperTimeout,
            ),
            (
                HelperEnd::LoaderMissing {
                    detail: "ENOENT".into(),
                },
                Code::LoaderMissing,
            ),
        ];
        for (end, code) in cases {
            let findings = with("12.4", end.clone(), vec![cudart(WHEEL, None)]);
            assert_eq!(
                (findings[0].code, findings[0].status),
                (code, Status::Fail),
                "{end:?}"
            );
            assert_eq!(findings[0].stage, Stage::Image, "{end:?}");
            assert_eq!(
                of(&findings, Code::CudartVersion),
                [(Status::Skip, "libcudart")],
                "{end:?}"
            );
        }
        // A crash in a library that the manifest has no rule for is still a crash.
        let findings = with(
            "12.4",
            crash("x"),
            vec![cudart(WHEEL, Some((12, 4))), nvrtc("/n", None)],
        );
        assert_eq!(of(&findings, Code::HelperCrashed), [(Status::Fail, "image")]);
    }

    #[test]
    fn not_asked_is_skipped_and_no_answer_is_unknown() {
        let findings = with("12.4", HelperEnd::NotRun, vec![cudart(WHEEL, None)]);
        assert_eq!(of(&findings, Code::CudartVersion), [(Status::Skip, "libcudart")]);
        assert_eq!(findings.len(), 1);
        let findings = with("12.4", HelperEnd::Done, vec![cudart(WHEEL, None)]);
        assert_eq!(
            of(&findings, Code::CudartVersion),
            [(Status::Unknown, "libcudart")]
        );
    }

    /// libcudart of CUDA 11 asks the driver before it answers, and an image is built without one.
    #[test]
    fn a_copy_that_wants_a_driver_is_neither_good_nor_bad() {
        let silent = |path: &str, code| {
            let mut library = failed(path, "cudaRuntimeGetVersion returned 35");
            library.answer.as_mut().unwrap().error_code = Some(code);
            library
        };
        const OLD: &str = "/sp/nvidia/cuda_runtime/lib/libcudart.so.11.0";
        for (code, status) in [(35, Status::Unknown), (34, Status::Unknown), (3, Status::Fail)] {
            let findings = with("11.8", HelperEnd::Done, vec![silent(OLD, code)]);
            assert_eq!(of(&findings, Code::CudartVersion), [(status, OLD)], "{code}");
        }
        // The loader has found it, so that it is not missing.
        let mut found = silent("libcudart.so.11.0", 35);
        found.origin = LibraryOrigin::Loader;
        let findings = with(
            "11.8",
            HelperEnd::Done,
            vec![found, loader("libcudart.so.12", None)],
        );
        let expected = [(Status::Unknown, "libcudart.so.11.0")];
        assert_eq!(of(&findings, Code::CudartVersion), expected);
        assert_eq!(of(&findings, Code::LibraryMissing), []);
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(0), "signal 0");
        assert_eq!(signal_name(64), "signal 64");
    }
}
