//! `cudart-version`, `nvrtc-version`, `cudnn-version`, `library-missing`, `loader-missing`, and how the helper that asked
//! them ended.
//!
//! A copy is judged by what it answered, never by its file's name.

use std::fmt;

use nix::sys::signal::Signal;
use pep440_rs::{Version, VersionSpecifiers};

use super::unread::Trouble;
use super::{ImageContext, cuda_tag, listed, remedy};
use crate::check::{Code, Finding, Stage};
use crate::checks::device;
use crate::discover::requirement::{MarkerEnvironment, Requirement, normalize_name};
use crate::facts::{
    CudaVersion, FoundBy, HelperEnd, Library, LibraryAnswer, LibraryKind, LibraryOrigin, LoadedObject,
    LoaderEnd,
};
use crate::order;
use crate::packages::{self, untagged};
use crate::processor::OWN;
use crate::stack::CudaRule;

/// No CUDA has a higher minor version.
const MAX_MINOR: u16 = 20;

/// A library that the manifest has a rule for, or whose wheel is pinned.
struct Subject<'a> {
    code: Code,
    /// `libcudart`
    name: &'static str,
    kind: LibraryKind,
    rule: Rule<'a>,
}

/// What a copy must be.
enum Rule<'a> {
    /// the manifest's
    Cuda(&'a CudaRule),
    /// of the release of NVIDIA's wheel
    Pin(Pin),
}

/// The release of NVIDIA's wheel that is asked for.
struct Pin {
    specifiers: VersionSpecifiers,
    /// `nvidia-cudnn-cu12==9.1.0.70`
    wheel: String,
    /// `torch 2.5.0`
    by: String,
}

impl Rule<'_> {
    /// Whether it takes what a copy answered; `None` where that states no version.
    fn takes(&self, answer: &LibraryAnswer) -> Option<bool> {
        match self {
            Self::Cuda(rule) => answer.version.map(|version| rule.matches(version)),
            Self::Pin(pin) => answer.release.as_deref().map(|release| pin.takes(release)),
        }
    }
}

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cuda(rule) => write!(f, "CUDA {rule}"),
            Self::Pin(pin) => write!(f, "the release of {}, which {} asks for", pin.wheel, pin.by),
        }
    }
}

impl Pin {
    /// The manifest's, else that of the package whose metadata pins the wheel, if the manifest names it.
    fn of(scene: &ImageContext<'_>, kind: LibraryKind) -> Option<Self> {
        let row = kind.row();
        let is_wheel = |name: &str| name == row.wheel || untagged(name) == Some(row.wheel);
        let pin = |name: &str, specifiers: &VersionSpecifiers, by: String| Self {
            specifiers: specifiers.clone(),
            wheel: format!("{name}{specifiers}"),
            by,
        };
        let mut rules = scene.stack.packages.iter();
        let own = rules.find(|rule| is_wheel(&rule.normalized) && rule.specifiers.is_some());
        if let Some(rule) = own {
            return Some(pin(
                &rule.normalized,
                rule.specifiers.as_ref()?,
                "the manifest".into(),
            ));
        }
        let dist = scene
            .installed
            .get(scene.rule(row.pinned_by?)?.normalized.as_str())?;
        let environment = MarkerEnvironment::of(scene.image.python.version.as_deref());
        let requirements = dist
            .requires
            .iter()
            .filter_map(|line| line.parse::<Requirement>().ok());
        let mut wheels = requirements.filter(|r| is_wheel(&r.name) && !r.specifiers.is_empty());
        let wheel = wheels.find(|r| r.applies(&environment) != Some(false))?;
        let by = format!("{} {}", dist.name, dist.version);
        Some(pin(&wheel.name, &wheel.specifiers, by))
    }

    /// Whether some wheel of this release is taken: the library states three of the wheel's four numbers.
    fn takes(&self, release: &str) -> bool {
        let named = self
            .specifiers
            .iter()
            .filter_map(|s| s.version().release().get(3).copied());
        let builds = named.flat_map(|build| [build.saturating_sub(1), build, build.saturating_add(1)]);
        builds
            .chain([0])
            .filter_map(|build| format!("{release}.{build}").parse::<Version>().ok())
            .any(|version| self.specifiers.contains(&version))
    }
}

/// `cudart-version` of libcudart.
fn code_of(kind: LibraryKind) -> Option<Code> {
    Code::all().find(|code| code.name().strip_suffix("-version") == Some(kind.row().word))
}

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let subjects: Vec<Subject<'_>> = LibraryKind::ALL
        .iter()
        .filter_map(|&kind| {
            Some(Subject {
                code: code_of(kind)?,
                name: kind.row().stem,
                kind,
                rule: match kind.row().rule {
                    Some(_) => Rule::Cuda(scene.stack.cuda.of(kind)?),
                    None => Rule::Pin(Pin::of(scene, kind)?),
                },
            })
        })
        .collect();
    if subjects.is_empty() {
        // The manifest's libraries need it all the same.
        let is_missing = matches!(scene.image.helper.end, HelperEnd::LoaderMissing { .. });
        return helper(scene, false).filter(|_| is_missing).into_iter().collect();
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
fn culprit<'a>(scene: &ImageContext<'a>) -> Option<&'a Library> {
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
fn helper(scene: &ImageContext<'_>, culprit_is_judged: bool) -> Option<Finding> {
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
                .observed(detail)
                .required(format!("{} of glibc 2.17 or newer", OWN.loader))
                .message(format!("no CUDA library can run in this image: {detail}"))
                .hint(
                    "Base the image on a glibc distribution (Debian, Ubuntu, Rocky, distroless/cc), not on Alpine or \
                     scratch.",
                ),
        ),
        HelperEnd::NotStarted { detail } => Some(crashed(
            detail.clone(),
            format!("the helper that asks the libraries could not be started: {detail}"),
            device::not_started_hint(detail),
        )),
        HelperEnd::TimedOut {
            step,
            after_ms,
            in_all,
            ..
        } => {
            let (observed, how) = if *in_all {
                ("not done", "was too slow, and is")
            } else {
                ("no answer", "hung")
            };
            let mut finding = Finding::problem(Code::HelperTimeout, "image")
                .observed(format!("{observed} within {after_ms} ms, in {step}"))
                .required(required)
                .message(format!("the helper that asks the libraries {how} in {step}"))
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
    match end {
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
            format!("it wrote unexpected output {}: {detail}", place(step))
        }
        _ => String::new(),
    }
}

fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(
        |_| format!("signal {number}"),
        |signal| signal.as_str().to_string(),
    )
}

fn one(scene: &ImageContext<'_>, subject: &Subject<'_>, culprit: Option<&Library>) -> Vec<Finding> {
    let meant = each_file_once(meant(scene, subject));
    let libraries = || meant.iter().copied();
    let is_pinned = matches!(subject.rule, Rule::Pin(_));
    if is_pinned && meant.is_empty() {
        return Vec::new();
    }
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
        let version = library.answer.as_ref().and_then(LibraryAnswer::stated);
        let is_taken = library.answer.as_ref().and_then(|a| subject.rule.takes(a));
        let error = library.answer.as_ref().and_then(|a| a.error.as_deref());
        match (library.origin, version, error) {
            (LibraryOrigin::Toolkit, version, _) => {
                findings.extend(version.map(|v| unused(subject, library, &v)))
            }
            _ if culprit.is_some_and(|c| std::ptr::eq(c, library)) => {
                findings.push(broke(scene, subject, library));
            }
            (_, None, Some(error)) if wants_driver(library) => {
                findings.push(untold(subject, library, error));
            }
            // The service's Python may find what the helper does not, such as a conda environment's libstdc++.
            (_, None, Some(error))
                if is_pinned && !error.starts_with(&library.path) && loads_others(error) =>
            {
                findings.push(could_not_be_asked(subject, library, error));
            }
            (_, _, Some(error)) if is_pinned => findings.push(refused(scene, subject, library, error)),
            (LibraryOrigin::Loader, None, Some(error)) => {
                unloadable.push(format!("{}: {}", library.path, reason(library, error)))
            }
            (_, _, Some(error)) => findings.push(refused(scene, subject, library, error)),
            (_, Some(_), None) if is_taken == Some(true) => good.push(shown(library)),
            (_, Some(version), None) if is_anothers(scene, subject, library) => {
                findings.push(anothers(subject, library, &version));
            }
            (_, Some(version), None) => findings.push(mismatch(scene, subject, library, &version)),
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
        let paths = listed(&good, 16);
        findings.insert(
            0,
            Finding::pass(subject.code, subject.name)
                .observed(paths.clone())
                .required(subject.rule.to_string())
                .message(match (good.len(), versions(libraries(), subject)) {
                    (1, versions) => format!("{paths} is {versions}"),
                    (n, versions) => format!("{n} copies are {versions}: {paths}"),
                }),
        );
    }
    findings
}

/// Whether a wheel's copy is there for a package that brings its own CUDA: it is of another major version, so that no
/// library of the stack takes it for its own, the loader was asked and maps it for nothing, and it belongs to no package
/// whose libraries come into one process with torch.
fn is_anothers(scene: &ImageContext<'_>, subject: &Subject<'_>, library: &Library) -> bool {
    let Rule::Cuda(rule) = &subject.rule else {
        return false;
    };
    let major = library
        .answer
        .as_ref()
        .and_then(|answer| answer.version)
        .map(|version| version.major);
    let is_of_rule =
        major.is_none_or(|major| (0..=MAX_MINOR).any(|minor| rule.matches(CudaVersion { major, minor })));
    let is_mapped = scene
        .image
        .loaded
        .iter()
        .any(|o| o.path.as_deref() == Some(&library.path) || o.real.as_deref() == Some(&library.path));
    !is_of_rule
        && library.origin == LibraryOrigin::Wheel
        && scene.image.loader.end == LoaderEnd::Listed
        && !is_mapped
        && !brought_by_stack(scene, &library.path)
}

/// Whether the folder of site-packages that a library lies in is that of a package of torch's process: `torch/`,
/// `cumm_cu118.libs/`.
fn brought_by_stack(scene: &ImageContext<'_>, path: &str) -> bool {
    let mut sites = scene.image.python.site_packages.iter();
    let below = sites.find_map(|site| path.strip_prefix(site.as_str())?.strip_prefix('/'));
    let folder = below
        .and_then(|below| below.split('/').next())
        .unwrap_or_default();
    let name = normalize_name(folder.strip_suffix(".libs").unwrap_or(folder));
    let known = packages::PACKAGES
        .iter()
        .any(|package| package.family && package.folder == folder);
    known
        || scene
            .installed
            .get(name.as_str())
            .is_some_and(|dist| cuda_tag::mixes(dist))
}

fn anothers(subject: &Subject<'_>, library: &Library, version: &str) -> Finding {
    let version = subject.called(version);
    Finding::info(subject.code, &library.path)
        .observed(&version)
        .required(subject.rule.to_string())
        .message(format!(
            "{} is {version}, for a package that brings its own CUDA; the loader maps it for nothing of the stack",
            library.path
        ))
}

/// The copies that are judged: all of them, but of a pinned library the one that the loader would map, if it was asked.
fn meant<'a>(scene: &ImageContext<'a>, subject: &Subject<'_>) -> Vec<&'a Library> {
    let of_kind = scene.image.libraries.iter().filter(|l| l.kind == subject.kind);
    let all: Vec<&Library> = of_kind.collect();
    let Some(object) = mapped(scene, subject) else {
        return all;
    };
    let is_it = |library: &&Library| {
        let answered = library.answer.as_ref().and_then(|answer| answer.path.as_deref());
        [Some(library.path.as_str()), answered]
            .into_iter()
            .flatten()
            .any(|path| object.path.as_deref() == Some(path) || object.real.as_deref() == Some(path))
    };
    let it: Vec<&Library> = all.iter().copied().filter(is_it).collect();
    if it.is_empty() { all } else { it }
}

/// Without those that answered from a file that another one answered from: the loader may search a toolkit's folder.
fn each_file_once(libraries: Vec<&Library>) -> Vec<&Library> {
    let (toolkits, others): (Vec<&Library>, Vec<&Library>) = libraries
        .into_iter()
        .partition(|library| library.origin == LibraryOrigin::Toolkit);
    let mut files = Vec::new();
    others
        .into_iter()
        .chain(toolkits)
        .filter(|library| {
            let file = library.answer.as_ref().and_then(|answer| answer.path.as_deref());
            // Each wheel's copy is its own, whatever file it leads to.
            let is_first =
                library.origin == LibraryOrigin::Wheel || file.is_none_or(|file| !files.contains(&file));
            files.extend(file);
            is_first
        })
        .collect()
}

/// What the loader would map of a pinned library.
fn mapped<'a>(scene: &ImageContext<'a>, subject: &Subject<'_>) -> Option<&'a LoadedObject> {
    let is_it = |o: &&LoadedObject| o.path.is_some() && LibraryKind::of_file(&o.name) == Some(subject.kind);
    let mut objects = scene.image.loaded.iter();
    objects
        .find(is_it)
        .filter(|_| matches!(subject.rule, Rule::Pin(_)))
}

/// An error of the loader's about another file that the library needs.
fn loads_others(error: &str) -> bool {
    error.contains("cannot open shared object file")
}

/// The sub-library that answered, where it lies in another folder than the library itself.
fn stray_sublibrary(library: &Library) -> Option<&str> {
    let answer = library.answer.as_ref()?;
    let path = answer.sublibrary.as_deref()?;
    let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_string());
    (folder(path) != folder(answer.path.as_deref()?)).then_some(path)
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

/// The versions that the good copies answered, `CUDA 12.4`: one, unless the rule is a range.
fn versions<'a>(libraries: impl Iterator<Item = &'a Library>, subject: &Subject<'_>) -> String {
    let mut answers: Vec<&LibraryAnswer> = libraries
        .filter(|l| l.origin != LibraryOrigin::Toolkit && !is_error(l))
        .filter_map(|l| l.answer.as_ref())
        .filter(|answer| subject.rule.takes(answer) == Some(true))
        .collect();
    order::sort_by_key(&mut answers, |answer| answer.version);
    let mut stated: Vec<String> = answers.into_iter().filter_map(LibraryAnswer::stated).collect();
    stated.dedup();
    subject.called(&stated.join(" and "))
}

impl Subject<'_> {
    /// `CUDA 12.4`, `cuDNN 9.1.0`.
    fn called(&self, version: &str) -> String {
        match self.rule {
            Rule::Cuda(_) => format!("CUDA {version}"),
            Rule::Pin(_) => format!("{} {version}", self.kind.row().title),
        }
    }
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
fn remedy(scene: &ImageContext<'_>, subject: &Subject<'_>, library: &Library) -> String {
    let path = &library.path;
    let rule = match &subject.rule {
        Rule::Cuda(rule) => *rule,
        Rule::Pin(pin) => return remedy_of_pin(pin, scene, subject, library),
    };
    if library.origin == LibraryOrigin::Loader {
        return format!(
            "Base the image on CUDA {rule}, or put the right copy first on LD_LIBRARY_PATH or into /etc/ld.so.conf.d."
        );
    }
    if path.contains("/nvidia/") {
        return remedy::of_wheel(scene, subject.kind.row().wheel, rule);
    }
    // site-packages/NAME.libs/… and site-packages/NAME/lib/…
    let mut folders = path.rsplit('/').skip(1);
    let owner = match folders.next() {
        Some("lib") => folders.next(),
        folder => folder.and_then(|f| f.strip_suffix(".libs")),
    };
    let replaced = scene.image.owned.iter().find(|file| file.path == *path);
    let owners = replaced.map(|file| file.owners.as_slice()).unwrap_or_default();
    match owner {
        // The build is the right one, and its library is not what it installed.
        Some(_) if owners.len() == 1 => {
            let wheels = owners
                .iter()
                .map(|owner| format!("{}=={}", owner.name, owner.version));
            format!(
                "In the Dockerfile: pip install --force-reinstall --no-deps '{}', and no later step that replaces its files.",
                wheels.collect::<String>()
            )
        }
        Some(owner) => {
            format!("In the Dockerfile: install the build of {owner} that is made for CUDA {rule}.")
        }
        None => format!("Reinstall the package that brought {path} in its build for CUDA {rule}."),
    }
}

/// How to get the pinned release: by what brings another one in front, or by the wheel.
fn remedy_of_pin(pin: &Pin, scene: &ImageContext<'_>, subject: &Subject<'_>, library: &Library) -> String {
    let folder = |path: &str| {
        path.rsplit_once('/')
            .map_or("/", |(folder, _)| folder)
            .to_string()
    };
    if let Some(path) = stray_sublibrary(library) {
        return format!(
            "Take {} out of LD_LIBRARY_PATH, or remove the {} in it: LD_LIBRARY_PATH comes before the folder of {} itself.",
            folder(path),
            subject.kind.row().title,
            subject.name
        );
    }
    let found_by = mapped(scene, subject).and_then(|object| object.found_by.as_ref());
    match found_by {
        Some(FoundBy::LibraryPath { folder }) => format!(
            "Take {folder} out of LD_LIBRARY_PATH, so that the copy of {} is loaded.",
            pin.wheel
        ),
        _ if library.path.contains("/nvidia/") => {
            format!(
                "In the Dockerfile: pip install --force-reinstall --no-deps '{}'.",
                pin.wheel
            )
        }
        _ => format!(
            "Remove {} from the image, or from what is mounted into it, and pip install '{}' into the same \
             site-packages as torch.",
            library.path, pin.wheel
        ),
    }
}

fn problem(
    scene: &ImageContext<'_>,
    subject: &Subject<'_>,
    library: &Library,
    observed: String,
    message: String,
) -> Finding {
    Finding::problem(subject.code, &library.path)
        .observed(observed)
        .required(subject.rule.to_string())
        .message(message)
        .hint(remedy(scene, subject, library))
}

fn mismatch(scene: &ImageContext<'_>, subject: &Subject<'_>, library: &Library, version: &str) -> Finding {
    let shown = shown(library);
    let version = subject.called(version);
    let message = match &subject.rule {
        Rule::Cuda(rule) => format!("{shown} says that it is {version}, and the manifest asks for {rule}"),
        Rule::Pin(pin) => {
            let which = match stray_sublibrary(library) {
                Some(path) => format!("{shown} loads {path}, which says that it is {version}"),
                None => format!("{shown} says that it is {version}"),
            };
            format!("{which}, and {} asks for {}", pin.by, pin.wheel)
        }
    };
    problem(scene, subject, library, version, message)
}

fn could_not_be_asked(subject: &Subject<'_>, library: &Library, error: &str) -> Finding {
    let reason = reason(library, error);
    Finding::unknown(subject.code, &library.path)
        .observed(reason)
        .required(subject.rule.to_string())
        .message(format!("{} could not be asked: {reason}", library.path))
}

fn refused(scene: &ImageContext<'_>, subject: &Subject<'_>, library: &Library, error: &str) -> Finding {
    let reason = reason(library, error);
    if Trouble::told_by(error).is_some() {
        return could_not_be_asked(subject, library, error);
    }
    problem(
        scene,
        subject,
        library,
        reason.into(),
        format!("{} does not say its version: {reason}", library.path),
    )
}

/// A copy that nobody can ask where there is no driver, as at the build of an image.
fn untold(subject: &Subject<'_>, library: &Library, error: &str) -> Finding {
    let reason = reason(library, error);
    let shown = shown(library);
    Finding::unknown(subject.code, &library.path)
        .observed(reason)
        .required(subject.rule.to_string())
        .message(format!(
            "{shown} reports its version only where a driver is installed: {reason}"
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

fn broke(scene: &ImageContext<'_>, subject: &Subject<'_>, library: &Library) -> Finding {
    let how = match &scene.image.helper.end {
        HelperEnd::Crashed { signal, .. } => format!("loading it crashed with {}", signal_name(*signal)),
        end => ending(end).replacen("it ", "asking it failed: the helper ", 1),
    };
    problem(
        scene,
        subject,
        library,
        how.clone(),
        format!("{}: {how}", library.path),
    )
}

fn unused(subject: &Subject<'_>, library: &Library, version: &str) -> Finding {
    Finding::info(subject.code, &library.path)
        .observed(format!("CUDA {version}"))
        .required(subject.rule.to_string())
        .message(format!(
            "{} is a toolkit's copy of CUDA {version}; nothing loads it from there",
            library.path
        ))
}

fn missing(scene: &ImageContext<'_>, subject: &Subject<'_>, observed: &str) -> Finding {
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
        None => match &subject.rule {
            Rule::Cuda(rule) => {
                let install = remedy::of_wheel(scene, subject.kind.row().wheel, rule);
                let install = install.trim_end_matches('.');
                format!("{install}, or base the image on a runtime image of CUDA {rule}.")
            }
            Rule::Pin(pin) => format!("In the Dockerfile: pip install '{}'.", pin.wheel),
        },
    };
    Finding::problem(Code::LibraryMissing, name)
        .observed(observed)
        .required(format!("{name} of {}", subject.rule))
        .message(format!("{name} was not found: {observed}"))
        .hint(hint)
}

fn unanswered(scene: &ImageContext<'_>, subject: &Subject<'_>, open: &[String]) -> Finding {
    let paths = listed(open, 16);
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
        .required(subject.rule.to_string())
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
        judge(&ImageContext::new(&runtime(rule), &image))
    }

    fn crash(step: &str) -> HelperEnd {
        HelperEnd::Crashed {
            signal: 11,
            step: step.into(),
        }
    }

    /// nvidia-cuda-runtime-cu12 for faiss-gpu-cu12, beside torch for CUDA 13.
    #[test]
    fn another_major_that_nothing_of_the_stack_maps_is_information() {
        use crate::facts::Python;
        let judged = |path: &str, version: (u16, u16), end: LoaderEnd, mapped: Option<&str>| {
            let object = mapped.map(|path| LoadedObject {
                name: "libcudart.so.12".into(),
                path: Some(path.into()),
                ..LoadedObject::default()
            });
            let mut image = ImageFacts {
                python: Python {
                    site_packages: vec!["/sp".into()],
                    ..Python::default()
                },
                distributions: vec![dist("cumm-cu118", "0.7.11"), dist("faiss-gpu-cu12", "1.12")],
                libraries: vec![
                    cudart("/sp/nvidia/cu13/lib/libcudart.so.13", Some((13, 2))),
                    cudart(path, Some(version)),
                ],
                loaded: object.into_iter().collect(),
                helper: HelperRun {
                    end: HelperEnd::Done,
                    ms: 1.0,
                },
                ..ImageFacts::default()
            };
            image.loader.end = end;
            let findings = judge(&ImageContext::new(&runtime("13.2"), &image));
            let finding = findings.into_iter().find(|f| f.subject == path);
            finding.map(|f| f.status)
        };
        let (listed, unlisted) = (LoaderEnd::Listed, LoaderEnd::NotRun);
        assert_eq!(judged(WHEEL, (12, 9), listed.clone(), None), Some(Status::Info));
        let bundled = "/sp/faiss_gpu_cu12.libs/libcudart-1.so.12";
        assert_eq!(judged(bundled, (12, 9), listed.clone(), None), Some(Status::Info));
        assert_eq!(judged(WHEEL, (13, 0), listed.clone(), None), Some(Status::Fail));
        assert_eq!(judged(WHEEL, (12, 9), unlisted, None), Some(Status::Fail));
        assert_eq!(
            judged(WHEEL, (12, 9), listed.clone(), Some(WHEEL)),
            Some(Status::Fail)
        );
        for of_stack in [
            "/sp/cumm_cu118.libs/libcudart-1.so.11",
            "/sp/torch/lib/libcudart.so.12",
        ] {
            let status = judged(of_stack, (11, 8), listed.clone(), None);
            assert_eq!(status, Some(Status::Fail), "{of_stack}");
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
        let findings = judge(&ImageContext::new(&stack, &image));
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
            finding.message.contains(r"wrong ELF class\u{7}"),
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

    /// As in nvidia/cuda: the loader searches the toolkit's folder, and answers with the file behind its link.
    #[test]
    fn a_file_that_is_found_in_several_ways_is_one_copy() {
        let folder = "/usr/local/cuda-12.4/targets/x86_64-linux/lib";
        let found = |path: &str, origin: LibraryOrigin| {
            let mut library = cudart(path, Some((12, 4)));
            library.origin = origin;
            library.answer.as_mut().unwrap().path = Some(format!("{folder}/libcudart.so.12.4.127"));
            library
        };
        let link = format!("{folder}/libcudart.so.12");
        let libraries = vec![
            found("libcudart.so.12", LibraryOrigin::Loader),
            found(&link, LibraryOrigin::Loader),
            found(&link, LibraryOrigin::Toolkit),
        ];
        let judged = |rule: &str| {
            let mut findings = with(rule, HelperEnd::Done, libraries.clone());
            findings.retain(|f| f.code == Code::CudartVersion);
            let [only] = findings.try_into().unwrap();
            only
        };
        assert_eq!(
            judged("12.4").message,
            format!("libcudart.so.12 ({folder}/libcudart.so.12.4.127) is CUDA 12.4")
        );
        assert_eq!(judged("12.1").status, Status::Fail);
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
                    in_all: false,
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
    fn each_library_has_a_finding() {
        let codes: Vec<_> = LibraryKind::ALL.iter().map(|&kind| code_of(kind)).collect();
        let expected = [Code::CudartVersion, Code::NvrtcVersion, Code::CudnnVersion];
        assert_eq!(codes, expected.map(Some));
    }

    const CUDNN: &str = "/opt/venv/lib/python3.11/site-packages/nvidia/cudnn/lib/libcudnn.so.9";
    const GRAPH: &str = "/opt/venv/lib/python3.11/site-packages/nvidia/cudnn/lib/libcudnn_graph.so.9";

    fn cudnn(path: &str, release: &str, sublibrary: &str) -> Library {
        let answer = LibraryAnswer {
            path: Some(path.into()),
            release: Some(release.into()),
            sublibrary: Some(sublibrary.into()),
            ..LibraryAnswer::default()
        };
        Library {
            kind: LibraryKind::Cudnn,
            answer: Some(answer),
            ..cudart(path, None)
        }
    }

    /// torch that requires a cuDNN, in the good image with these copies of it.
    fn with_cudnn(
        packages: &[(&str, &str)],
        requires: &str,
        change: impl FnOnce(&mut ImageFacts),
    ) -> Vec<Finding> {
        let facts = image(|i| {
            dist_mut(i, "torch").requires = vec![requires.into()];
            change(i);
        });
        let stack = Stack {
            packages: packages
                .iter()
                .map(|(name, version)| rule(name, version))
                .collect(),
            ..Stack::default()
        };
        judge(&ImageContext::new(&stack, &facts.image))
    }

    const TORCH: &[(&str, &str)] = &[("torch", "*")];
    const REQUIRED: &str = "nvidia-cudnn-cu12==9.1.0.70 ; platform_system == 'Linux'";

    #[test]
    fn cudnn_is_held_against_what_torch_or_the_manifest_pins() {
        let good =
            |release: &'static str| move |i: &mut ImageFacts| i.libraries.push(cudnn(CUDNN, release, GRAPH));
        let found = with_cudnn(TORCH, REQUIRED, good("9.1.0"));
        assert_eq!(of(&found, Code::CudnnVersion), [(Status::Pass, "libcudnn")]);
        assert!(
            found
                .iter()
                .any(|f| f.message == format!("{CUDNN} is cuDNN 9.1.0")),
            "{found:?}"
        );
        let wrong = with_cudnn(TORCH, REQUIRED, good("9.3.0"));
        assert_eq!(of(&wrong, Code::CudnnVersion), [(Status::Fail, CUDNN)]);
        let wrong = wrong.iter().find(|f| f.status == Status::Fail).unwrap();
        assert_eq!(
            wrong.message,
            format!(
                "{CUDNN} says that it is cuDNN 9.3.0, and torch 2.5.0 asks for nvidia-cudnn-cu12==9.1.0.70"
            )
        );
        assert!(
            wrong.hint.contains("--no-deps 'nvidia-cudnn-cu12==9.1.0.70'"),
            "{}",
            wrong.hint
        );
        // The manifest knows better than torch, and its rule alone is enough.
        for packages in [
            &[("torch", "*"), ("nvidia-cudnn-cu12", "==9.3.*")][..],
            &[("nvidia-cudnn-cu12", ">=9.2")],
        ] {
            let found = with_cudnn(packages, REQUIRED, good("9.3.0"));
            assert_eq!(of(&found, Code::CudnnVersion), [(Status::Pass, "libcudnn")]);
            let found = with_cudnn(packages, REQUIRED, good("9.1.0"));
            assert_eq!(of(&found, Code::CudnnVersion), [(Status::Fail, CUDNN)]);
        }
        // Nothing is pinned, or it is pinned elsewhere, or there is none.
        for (packages, requires) in [
            (TORCH, "nvidia-cudnn-cu12"),
            (
                TORCH,
                "nvidia-cudnn-cu12==9.1.0.70 ; platform_system == 'Windows'",
            ),
            (&[("numpy", "*")], REQUIRED),
        ] {
            let found = with_cudnn(packages, requires, good("8.9.2"));
            assert_eq!(of(&found, Code::CudnnVersion), [], "{requires}");
        }
        assert_eq!(of(&with_cudnn(TORCH, REQUIRED, |_| ()), Code::CudnnVersion), []);
    }

    #[test]
    fn three_numbers_stand_for_every_build_of_a_release() {
        for (specifiers, release, taken) in [
            ("==9.1.0.70", "9.1.0", true),
            ("==9.1.0.70", "9.1.1", false),
            ("==9.1.0", "9.1.0", true),
            (">=9.1.0.70", "9.1.0", true),
            (">=9.1.0.70", "9.0.0", false),
            (">9.1.0.70,<9.2", "9.1.0", true),
            ("<9.1.0.70", "9.1.0", true),
            ("<9.1.0", "9.1.0", false),
            ("==8.9.2.26", "8.9.2", true),
        ] {
            let pin = Pin {
                specifiers: specifiers.parse().unwrap(),
                wheel: String::new(),
                by: String::new(),
            };
            assert_eq!(pin.takes(release), taken, "{specifiers} {release}");
        }
    }

    #[test]
    fn another_cudnn_in_front_is_named_with_what_brings_it() {
        let system = "/usr/lib/x86_64-linux-gnu/libcudnn.so.9";
        let mapped = |path: &str, found_by| LoadedObject {
            name: "libcudnn.so.9".into(),
            path: Some(path.into()),
            found_by: Some(found_by),
            ..LoadedObject::default()
        };
        let by_variable = || FoundBy::LibraryPath {
            folder: "/usr/lib/x86_64-linux-gnu".into(),
        };
        for (found_by, hint) in [
            (
                by_variable(),
                "Take /usr/lib/x86_64-linux-gnu out of LD_LIBRARY_PATH",
            ),
            (
                FoundBy::System,
                "Remove /usr/lib/x86_64-linux-gnu/libcudnn.so.9 from the image",
            ),
        ] {
            let found = with_cudnn(TORCH, REQUIRED, |i| {
                let other = cudnn(system, "9.3.0", "/usr/lib/x86_64-linux-gnu/libcudnn_graph.so.9");
                i.libraries.extend([cudnn(CUDNN, "9.1.0", GRAPH), other]);
                i.loaded.push(mapped(system, found_by));
            });
            assert_eq!(of(&found, Code::CudnnVersion), [(Status::Fail, system)]);
            let finding = found.iter().find(|f| f.status == Status::Fail).unwrap();
            assert!(finding.hint.starts_with(hint), "{}", finding.hint);
        }
        // The library is the wheel's, its sub-library is not.
        let stray = "/usr/local/cuda/lib64/libcudnn_graph.so.9";
        let found = with_cudnn(TORCH, REQUIRED, |i| {
            i.libraries.push(cudnn(CUDNN, "9.3.0", stray));
            i.loaded.push(mapped(CUDNN, by_variable()));
        });
        let finding = found.iter().find(|f| f.status == Status::Fail).unwrap();
        assert!(finding.message.contains(&format!(
            "{CUDNN} loads {stray}, which says that it is cuDNN 9.3.0"
        )));
        assert!(
            finding
                .hint
                .starts_with("Take /usr/local/cuda/lib64 out of LD_LIBRARY_PATH")
        );
    }

    #[test]
    fn a_cudnn_that_does_not_answer_is_judged_by_its_reason() {
        let silent = |error: &str| Library {
            kind: LibraryKind::Cudnn,
            ..failed(CUDNN, error)
        };
        for (error, status) in [
            (format!("{CUDNN}: file too short"), Status::Fail),
            (
                "libstdc++.so.6: cannot open shared object file: No such file or directory".into(),
                Status::Unknown,
            ),
            (
                "cudnnGetVersion: the library does not export this function".into(),
                Status::Fail,
            ),
        ] {
            let found = with_cudnn(TORCH, REQUIRED, |i| i.libraries.push(silent(&error)));
            assert_eq!(of(&found, Code::CudnnVersion), [(status, CUDNN)], "{error}");
        }
        let found = with_cudnn(TORCH, REQUIRED, |i| {
            i.libraries = vec![
                cudart(WHEEL, Some((12, 4))),
                Library {
                    answer: None,
                    ..silent("")
                },
            ];
            i.helper.end = crash("cudnnGetVersion");
        });
        assert_eq!(of(&found, Code::CudnnVersion), [(Status::Fail, CUDNN)]);
        assert_eq!(of(&found, Code::HelperCrashed), []);
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(0), "signal 0");
        assert_eq!(signal_name(64), "signal 64");
    }
}
