//! `python-missing` and `python-version`.

use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};

use super::{ImageContext, listed};
use crate::check::{Code, Finding, Severity};
use crate::facts::{Distribution, Python};
use crate::process::closed;
use crate::processor::OWN;
use crate::text::counted;

/// Whether an interpreter is needed, and not only folders with packages.
fn needs_interpreter(scene: &ImageContext<'_>) -> bool {
    scene.stack.python.is_some() || scene.stack.has_python_smoke()
}

fn needs_folders(scene: &ImageContext<'_>) -> bool {
    let python = &scene.image.python;
    // Without a manifest a Python is judged where there is one, and missed where the service or a setting names it.
    let is_named = || {
        python.undetermined.is_some()
            || python.closed_folder.is_some()
            || python.tried.iter().any(|tried| tried.starts_with("--python"))
    };
    !scene.stack.packages.is_empty()
        || !scene.stack.files.is_empty()
        || (scene.stack.as_found && !scene.has_folders() && is_named())
}

pub fn presence(scene: &ImageContext<'_>) -> Option<Finding> {
    let python = &scene.image.python;
    let without_interpreter = needs_interpreter(scene) && python.interpreter.is_none();
    let without_folders = needs_folders(scene) && !scene.has_folders();
    if !needs_interpreter(scene) && !needs_folders(scene) {
        return None;
    }
    if let Some(why) = &python.undetermined {
        return Some(unknown(why));
    }
    if let Some(finding) = closed_folder(python) {
        return Some(finding);
    }
    if let Some(home) = &python.broken_home {
        return Some(broken_home(python, home));
    }
    let found_by = python.found_by.as_deref().unwrap_or("nothing");
    if !without_interpreter && !without_folders {
        let what = python
            .interpreter
            .as_ref()
            .or(python.prefix.as_ref())
            .map_or("", |p| p.as_str());
        return Some(
            Finding::pass(Code::PythonMissing, "python")
                .observed(what)
                .message(format!(
                    "{} found by {found_by}{}, packages in {}",
                    what,
                    unheard(python),
                    listed(&python.site_packages, 4)
                )),
        );
    }
    let tried = if python.tried.is_empty() {
        String::new()
    } else {
        format!(" Looked at: {}.", python.tried.join("; "))
    };
    let (observed, message) = match (&python.interpreter, &python.prefix) {
        (Some(interpreter), _) => (
            format!("{interpreter} without a site-packages folder"),
            format!(
                "{}, found by {found_by}, has no site-packages folder to look for packages in",
                interpreter
            ),
        ),
        (None, Some(prefix)) if without_interpreter => (
            format!("{prefix} without an interpreter"),
            format!("{prefix}, found by {found_by}, has no interpreter"),
        ),
        _ if scene.stack.as_found => (
            "no interpreter".into(),
            "no Python was found, and --python or the service names one".into(),
        ),
        _ => (
            "no interpreter".into(),
            "no Python was found, and the manifest needs one".into(),
        ),
    };
    Some(
        Finding::problem(Code::PythonMissing, "python")
            .observed(observed)
            .required("the Python environment of the service")
            .message(message)
            .hint(format!(
                "Name the interpreter or the environment's folder with --python or CUDA_ENTRYPOINT_PYTHON, or put it \
                 on PATH.{tried}"
            )),
    )
}

/// The service does not start the Python that was named for the checks.
pub fn of_service(scene: &ImageContext<'_>) -> Option<Finding> {
    let python = &scene.image.python;
    let (own, judged) = (python.of_service.as_deref()?, python.judged()?);
    Some(
        Finding::info(Code::PythonUnknown, "python")
            .observed(own)
            .required(judged)
            .message(format!(
                "{judged} is checked, and the service command starts {own}, of another environment: what is found here does \
                 not hold for the service"
            ))
            .hint(format!(
                "Name the service's own environment with --python or CUDA_ENTRYPOINT_PYTHON, or start the service with {judged}."
            )),
    )
}

/// The service starts a Python, and another one would be no evidence.
fn unknown(why: &str) -> Finding {
    Finding::problem(Code::PythonUnknown, "python")
        .observed(why)
        .required("the Python environment of the service")
        .message(format!(
            "the service's Python cannot be determined: {why}; its packages are not judged"
        ))
        .hint("Name its interpreter or its environment's folder with --python or CUDA_ENTRYPOINT_PYTHON.")
}

/// Left over from another Python, mostly.
fn broken_home(python: &Python, home: &str) -> Finding {
    let judged = python.judged().unwrap_or_default();
    Finding::problem(Code::PythonMissing, "python")
        .observed(format!("PYTHONHOME={home}"))
        .required("a PYTHONHOME with this interpreter's standard library, or none")
        .message(format!(
            "{judged} cannot start: PYTHONHOME is {home}, which has no standard library for it"
        ))
        .hint("Remove PYTHONHOME from the image's ENV, from `env:` of the pod or from `docker run -e`.")
}

/// The interpreter is there, below a folder that this user may not enter: uv's own below /root, mostly.
fn closed_folder(python: &Python) -> Option<Finding> {
    let closed = python.closed_folder.as_ref()?;
    let (interpreter, folder) = (&closed.interpreter, &closed.folder);
    let reason = format!("{interpreter} leads below {folder}, which this user may not enter");
    let (finding, message) = match &python.interpreter {
        Some(other) => (
            Finding::problem_as(Code::PythonMissing, Severity::Warn, "python"),
            format!("{reason}; {other} is judged, which comes next on PATH"),
        ),
        None => (Finding::problem(Code::PythonMissing, "python"), reason),
    };
    let finding = finding
        .observed(format!("{folder} may not be entered"))
        .required("an interpreter that the service's user may execute")
        .message(message)
        .hint(format!(
            "If uv installed this interpreter, {}; or run the service as the owner of {folder}.",
            closed::REMEDY
        ));
    Some(finding)
}

/// Why the service's own Python was not taken, where it has a command: another Python may be judged here.
fn unheard(python: &Python) -> String {
    python
        .tried
        .iter()
        .find(|why| why.starts_with(Python::OF_SERVICE))
        .map_or(String::new(), |why| format!(" ({why}; name it with --python)"))
}

/// Without folders there is nothing to compare with: one line for each part, instead of a failure for each package.
pub fn skipped(scene: &ImageContext<'_>) -> Vec<Finding> {
    let parts = [
        (Code::PackageMissing, "packages", scene.stack.packages.len()),
        (Code::FileMissing, "files", scene.stack.files.len()),
    ];
    parts
        .into_iter()
        .filter(|(.., count)| *count > 0)
        .map(|(code, subject, count)| {
            if scene.image.python.undetermined.is_some() {
                return Finding::unknown(code, subject).message(format!(
                    "the manifest's {subject} ({count}) are not judged: the service's Python is unknown"
                ));
            }
            Finding::skip(code, subject)
                .observed("no site-packages folder")
                .message(format!(
                    "the manifest's {subject} ({count}) are not looked for: no site-packages was found"
                ))
        })
        .collect()
}

pub fn version(scene: &ImageContext<'_>) -> Option<Finding> {
    let specifiers = scene.stack.python.as_ref()?;
    let python = &scene.image.python;
    if python.interpreter.is_none() && python.prefix.is_none() {
        return None;
    }
    let subject = python.interpreter.as_ref().or(python.prefix.as_ref())?;
    let (observed, verdict) = match &python.version {
        Some(text) => (text.as_str(), takes(specifiers, text)),
        None => ("unknown", None),
    };
    let finding = match verdict {
        Some(true) => Finding::pass(Code::PythonVersion, subject).message(format!("Python is {observed}")),
        Some(false) => Finding::problem(Code::PythonVersion, subject.clone())
            .message(format!("{subject} is Python {observed}, and the manifest asks for {specifiers}"))
            .hint(
                "Build the image with a Python that the manifest takes, or name the right one with --python or \
                 CUDA_ENTRYPOINT_PYTHON.",
            ),
        None => Finding::unknown(Code::PythonVersion, subject.clone())
            .message(format!("{subject} has no file that gives its full version: {observed}")),
    };
    Some(finding.observed(observed).required(specifiers.to_string()))
}

/// Whether a version is taken. Where only `3.11` is known, the answer has to be the same for all of 3.11.
fn takes(specifiers: &VersionSpecifiers, text: &str) -> Option<bool> {
    let contains = |text: &str| Version::from_str(text).ok().map(|v| specifiers.contains(&v));
    if text.matches('.').count() >= 2 {
        return contains(text);
    }
    let (first, last) = (contains(&format!("{text}.0"))?, contains(&format!("{text}.999"))?);
    (first == last).then_some(first)
}

/// What a wheel was built for, where that is not what is here.
#[derive(Clone, Copy, PartialEq)]
enum Foreign {
    Interpreter,
    Platform,
}

impl Foreign {
    /// None of the wheel's tags fits; one that fits the interpreter leaves the platform to blame.
    fn of(dist: &Distribution, abi: Abi) -> Option<Self> {
        if dist.tags.iter().any(|tag| fits(tag, abi)) {
            None
        } else if dist.tags.iter().any(|tag| fits_interpreter(tag, abi)) {
            Some(Self::Platform)
        } else {
            Some(Self::Interpreter)
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Interpreter => "interpreter",
            Self::Platform => "platform",
        }
    }

    fn here(self, version: &str, abi: Abi) -> String {
        match self {
            Self::Interpreter if abi.free_threaded => format!("Python here is {version}, free-threaded"),
            Self::Interpreter => format!("Python here is {version}"),
            Self::Platform => format!("this is {} Linux with glibc", OWN.name),
        }
    }

    fn required(self, abi: Abi) -> String {
        let minor = abi.minor;
        match self {
            Self::Interpreter if abi.free_threaded => format!("wheels for cp3{minor}t, abi3t or py3"),
            Self::Interpreter => format!("wheels for cp3{minor}, abi3 or py3"),
            Self::Platform => {
                let machine = OWN.machine;
                format!("wheels for any platform, linux_{machine} or manylinux_…_{machine}")
            }
        }
    }

    fn hint(self, abi: Abi) -> String {
        let minor = abi.minor;
        let threads = if abi.free_threaded { "t" } else { "" };
        match self {
            Self::Interpreter => format!(
                "Install with the pip of this very interpreter (python3.{minor}{threads} -m pip install …); do not copy \
                 site-packages between versions of Python."
            ),
            Self::Platform => format!(
                "Install with pip in the image itself, built for {} on a base with glibc; do not copy site-packages from \
                 another machine or from Alpine.",
                OWN.platform
            ),
        }
    }
}

/// Wheels of another interpreter or platform: each of the manifest's packages by itself, the others together and as a warning.
pub fn tags(scene: &ImageContext<'_>) -> Vec<Finding> {
    let Some((version, minor)) = scene
        .image
        .python
        .version
        .as_deref()
        .and_then(|v| Some((v, minor_of(v)?)))
    else {
        return Vec::new();
    };
    if scene.stack.packages.is_empty() {
        return Vec::new();
    }
    let abi = Abi {
        minor,
        free_threaded: scene.image.python.is_free_threaded(),
    };
    let tagged = || {
        scene
            .installed
            .values()
            .copied()
            .filter(|d: &&Distribution| !d.tags.is_empty())
    };
    let (ours, others): (Vec<_>, Vec<_>) = tagged()
        .filter_map(|d| Some((d, Foreign::of(d, abi)?)))
        .partition(|(d, _)| scene.rule(&d.name).is_some());
    let mut findings: Vec<Finding> = ours
        .iter()
        .map(|(dist, foreign)| {
            let tags = listed(&dist.tags, 3);
            Finding::problem(Code::PythonVersion, dist.name.clone())
                .observed(tags.clone())
                .required(foreign.required(abi))
                .message(format!(
                    "{} is a wheel for {tags}, and {}",
                    dist.name,
                    foreign.here(version, abi)
                ))
                .hint(foreign.hint(abi))
        })
        .collect();
    for foreign in [Foreign::Interpreter, Foreign::Platform] {
        let names: Vec<String> = others
            .iter()
            .filter(|(_, f)| *f == foreign)
            .map(|(d, _)| format!("{} ({})", d.name, d.tags.first().map_or("", String::as_str)))
            .collect();
        if names.is_empty() {
            continue;
        }
        let names = listed(&names, 8);
        findings.push(
            Finding::problem_as(Code::PythonVersion, Severity::Warn, "other wheels")
                .observed(names.clone())
                .required(foreign.required(abi))
                .message(format!(
                    "wheels of another {} lie in site-packages: {names}",
                    foreign.what()
                ))
                .hint(foreign.hint(abi)),
        );
    }
    if findings.is_empty() && tagged().next().is_some() {
        let count = tagged().count();
        findings.push(
            Finding::pass(Code::PythonVersion, "wheels")
                .observed(counted(count, "wheel"))
                .required(Foreign::Interpreter.required(abi))
                .message(match count {
                    1 => "the one wheel is for this interpreter".to_string(),
                    _ => format!("all {count} wheels are for this interpreter"),
                }),
        );
    }
    findings
}

fn minor_of(version: &str) -> Option<u16> {
    version.strip_prefix("3.")?.split('.').next()?.parse().ok()
}

/// What wheels have to be built for.
#[derive(Clone, Copy)]
struct Abi {
    /// 11 of CPython 3.11
    minor: u16,
    free_threaded: bool,
}

/// Whether a wheel's tag is for this CPython on this processor's Linux with glibc.
///
/// Source: PyPA specification "Platform compatibility tags".
fn fits(tag: &str, abi: Abi) -> bool {
    let here = |platform: &str| {
        platform == "any"
            || platform
                .strip_suffix(OWN.machine)
                .is_some_and(|rest| rest.ends_with('_'))
                && (platform.starts_with("linux_") || platform.starts_with("manylinux"))
    };
    fits_interpreter(tag, abi)
        && tag
            .split('-')
            .nth(2)
            .is_none_or(|platforms| platforms.split('.').any(here))
}

fn fits_interpreter(tag: &str, abi: Abi) -> bool {
    let Abi { minor, free_threaded } = abi;
    let mut parts = tag.split('-');
    let (Some(interpreters), Some(abis)) = (parts.next(), parts.next()) else {
        return true;
    };
    let number = |text: &str| text.parse::<u16>().ok();
    let stable = if free_threaded { "abi3t" } else { "abi3" };
    let has = |wanted: &str| abis.split('.').any(|abi| abi == wanted);
    let is_of_threads = abis
        .split('.')
        .any(|abi| abi.starts_with("cp3") && abi.ends_with('t'));
    interpreters.split('.').any(|interpreter| {
        if let Some(rest) = interpreter.strip_prefix("py3") {
            return rest.is_empty() || number(rest).is_some_and(|n| n <= minor);
        }
        let Some(built) = interpreter.strip_prefix("cp3").and_then(number) else {
            return false;
        };
        // The stable ABI of before 3.15 has no free-threaded builds (PEP 803).
        let is_this = built == minor && !has("abi3") && !has("abi3t") && is_of_threads == free_threaded;
        is_this || built == minor && has("none") || built <= minor && has(stable)
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;
    use crate::facts::Facts;
    use crate::stack::Stack;

    #[test]
    fn tags_of_interpreters() {
        for (tag, fit) in [
            ("cp311-cp311-manylinux_2_28_x86_64", true),
            ("cp310-cp310-linux_x86_64", false),
            ("cp312-cp312-linux_x86_64", false),
            ("cp38-abi3-linux_x86_64", true),
            ("cp312-abi3-linux_x86_64", false),
            ("py3-none-any", true),
            ("py2.py3-none-any", true),
            ("py2-none-any", false),
            ("py39-none-any", true),
            ("py312-none-any", false),
            ("pp310-pypy310_pp73-linux_x86_64", false),
            ("cp310.cp311-cp310.cp311-linux_x86_64", true),
            ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", true),
            ("cp311-cp311-manylinux_2_17_aarch64.manylinux2014_x86_64", true),
            ("cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64", false),
            ("cp311-cp311-linux_aarch64", false),
            ("cp311-cp311-linux_i686", false),
            ("cp311-cp311-musllinux_1_2_x86_64", false),
            ("cp311-cp311-macosx_10_9_x86_64", false),
            ("cp311-cp311-macosx_11_0_universal2", false),
            ("cp311-cp311-win_amd64", false),
            ("py3-none-win_amd64", false),
            ("py3-none-manylinux1_x86_64", true),
            ("cp27-none-any", false),
            ("nonsense", true),
        ] {
            let abi = Abi {
                minor: 11,
                free_threaded: false,
            };
            assert_eq!(fits(tag, abi), fit, "{tag}");
        }
    }

    /// PEP 703 and PEP 803.
    #[test]
    fn tags_of_free_threaded_builds() {
        for (tag, with, without) in [
            ("cp315-cp315t-manylinux_2_28_x86_64", true, false),
            ("cp315-cp315-manylinux_2_28_x86_64", false, true),
            ("cp314-cp314t-manylinux_2_28_x86_64", false, false),
            ("cp39-abi3-manylinux_2_28_x86_64", false, true),
            ("cp315-abi3-manylinux_2_28_x86_64", false, true),
            ("cp315-abi3t-manylinux_2_28_x86_64", true, false),
            ("cp315-abi3.abi3t-manylinux_2_28_x86_64", true, true),
            ("cp315-none-any", true, true),
            ("py3-none-any", true, true),
        ] {
            for (free_threaded, fit) in [(true, with), (false, without)] {
                let abi = Abi {
                    minor: 15,
                    free_threaded,
                };
                assert_eq!(fits(tag, abi), fit, "{tag} {free_threaded}");
            }
        }
        let site = |name: &str| {
            let facts = image(|i| i.python.site_packages = vec![format!("/v/lib/{name}/site-packages")]);
            facts.image.python.is_free_threaded()
        };
        assert!(site("python3.14t") && !site("python3.14") && !site("python3.t"));
    }

    #[test]
    fn a_version_of_two_parts_is_judged_where_that_is_enough() {
        for (specifiers, text, expected) in [
            (">=3.9,<3.13", "3.11", Some(true)),
            (">=3.9,<3.13", "3.13", Some(false)),
            (">=3.9,<3.13", "3.8.18", Some(false)),
            ("==3.11.*", "3.11", Some(true)),
            (">=3.11.4", "3.11", None),
            (">=3.11.4", "3.11.7", Some(true)),
            (">=3.11.4", "3.11.3", Some(false)),
            (">=3.9", "junk", None),
        ] {
            assert_eq!(
                takes(&specifiers.parse().unwrap(), text),
                expected,
                "{specifiers} {text}"
            );
        }
    }

    #[test]
    fn only_who_needs_python_misses_it() {
        let nothing = Facts::default();
        let mut stack = Stack::default();
        let missing = |stack: &Stack| {
            let findings = super::super::judge(stack, None, &nothing);
            findings
                .iter()
                .any(|f| f.code == Code::PythonMissing && f.status == Status::Fail)
        };
        assert!(!missing(&stack));
        stack.smoke = vec![command(&["/bin/true"])];
        assert!(!missing(&stack));
        for argv in [&["python", "-m", "x"], &["/opt/bin/python3", "-c", "x"]] {
            stack.smoke = vec![command(argv)];
            assert!(missing(&stack), "{argv:?}");
        }
        stack.smoke.clear();
        stack.files = vec!["x".into()];
        assert!(missing(&stack));
        stack.files.clear();
        stack.packages = vec![rule("torch", "*")];
        assert!(missing(&stack));
    }

    #[test]
    fn another_python_than_the_services_is_told() {
        let finding = |own: Option<&str>| {
            let facts = image(|i| i.python.of_service = own.map(String::from));
            of_service(&ImageContext::new(&stack(), &facts.image))
        };
        assert_eq!(finding(None), None);
        let told = finding(Some("/usr/bin/python3")).unwrap();
        assert_eq!((told.code, told.status), (Code::PythonUnknown, Status::Info));
        assert!(
            told.message
                .contains("the service command starts /usr/bin/python3"),
            "{}",
            told.message
        );
    }

    #[test]
    fn what_was_tried_is_in_the_hint_and_packages_are_skipped() {
        let facts = image(|i| {
            i.python = Python {
                tried: vec!["PATH: /x/python3 is a symbolic link to \u{1b}y".into()],
                ..Python::default()
            };
            i.distributions.clear();
        });
        let findings = super::super::judge(&stack(), None, &facts);
        let missing = findings.iter().find(|f| f.code == Code::PythonMissing).unwrap();
        assert!(
            missing.hint.contains("/x/python3 is a symbolic link"),
            "{}",
            missing.hint
        );
        assert!(!missing.hint.contains('\u{1b}'));
        assert_eq!(of(&findings, Code::PackageMissing), [(Status::Skip, "packages")]);
        assert_eq!(of(&findings, Code::FileMissing), [(Status::Skip, "files")]);
        assert_eq!(of(&findings, Code::PackageVersion), []);
    }

    #[test]
    fn an_interpreter_without_folders_and_folders_without_an_interpreter() {
        let bare = image(|i| i.python.site_packages.clear());
        let finding = presence(&ImageContext::new(&stack(), &bare.image)).unwrap();
        assert_eq!(finding.status, Status::Fail);
        assert!(
            finding.message.contains("has no site-packages folder"),
            "{}",
            finding.message
        );
        let folder = image(|i| i.python.interpreter = None);
        let finding = presence(&ImageContext::new(&stack(), &folder.image)).unwrap();
        assert!(
            finding.message.contains("has no interpreter"),
            "{}",
            finding.message
        );
        let packages_only = Stack {
            packages: vec![rule("torch", "*")],
            ..Stack::default()
        };
        let finding = presence(&ImageContext::new(&packages_only, &folder.image)).unwrap();
        assert_eq!(finding.status, Status::Pass);
    }

    #[test]
    fn the_wrong_version_and_an_unknown_one() {
        for (version, status) in [
            (Some("3.11.7"), Status::Pass),
            (Some("3.13"), Status::Fail),
            (None, Status::Unknown),
        ] {
            let facts = image(|i| i.python.version = version.map(String::from));
            let finding = super::version(&ImageContext::new(&stack(), &facts.image)).unwrap();
            assert_eq!(finding.status, status, "{version:?}");
        }
    }

    #[test]
    fn wheels_of_another_machine() {
        let facts = image(|i| {
            dist_mut(i, "spconv-cu124").tags = vec!["cp311-cp311-linux_aarch64".into()];
            dist_mut(i, "numpy").tags = vec!["cp311-cp311-musllinux_1_2_x86_64".into()];
        });
        let findings = tags(&ImageContext::new(&stack(), &facts.image));
        assert_eq!(
            of(&findings, Code::PythonVersion),
            [(Status::Fail, "spconv-cu124"), (Status::Warn, "other wheels")]
        );
        for (finding, parts) in [
            (
                &findings[0],
                ["cp311-cp311-linux_aarch64", "x86-64 Linux with glibc"],
            ),
            (
                &findings[1],
                ["numpy (cp311-cp311-musllinux_1_2_x86_64)", "another platform"],
            ),
        ] {
            for part in parts {
                assert!(finding.message.contains(part), "{}", finding.message);
            }
            assert!(!finding.message.contains("Python here is"), "{}", finding.message);
            assert!(finding.required.contains("linux_x86_64"), "{}", finding.required);
        }
        // One tag that fits is enough.
        let facts = image(|i| {
            dist_mut(i, "numpy").tags = ["cp311-cp311-linux_aarch64", "cp311-cp311-linux_x86_64"]
                .map(String::from)
                .to_vec();
        });
        let findings = tags(&ImageContext::new(&stack(), &facts.image));
        assert_eq!(of(&findings, Code::PythonVersion), [(Status::Pass, "wheels")]);
    }

    #[test]
    fn a_service_that_does_not_tell_its_python_is_named_with_the_reason() {
        let facts = image(|i| {
            i.python.tried = vec!["the service command: `bash -c` does not tell \u{1b}which".into()];
        });
        let finding = presence(&ImageContext::new(&stack(), &facts.image)).unwrap();
        assert_eq!(finding.status, Status::Pass);
        assert!(
            finding
                .message
                .contains("found by PATH (the service command: `bash -c` does not tell "),
            "{}",
            finding.message
        );
        assert!(finding.message.contains("; name it with --python), packages in "));
        assert!(!finding.message.contains('\u{1b}'));
        // Places that are merely absent are no reason to doubt.
        let facts = image(|i| i.python.tried = vec!["VIRTUAL_ENV: /gone: No such file".into()]);
        let finding = presence(&ImageContext::new(&stack(), &facts.image)).unwrap();
        assert!(!finding.message.contains("--python"), "{}", finding.message);
    }

    #[test]
    fn wheels_of_another_python() {
        let facts = image(|i| {
            dist_mut(i, "spconv-cu124").tags = vec!["cp310-cp310-linux_x86_64".into()];
            dist_mut(i, "numpy").tags = vec!["cp310-cp310-linux_x86_64".into()];
        });
        let findings = tags(&ImageContext::new(&stack(), &facts.image));
        assert_eq!(
            of(&findings, Code::PythonVersion),
            [(Status::Fail, "spconv-cu124"), (Status::Warn, "other wheels")]
        );
        assert!(findings[0].message.contains("cp310-cp310-linux_x86_64"));
        assert!(findings[1].message.contains("numpy"));
    }
}
