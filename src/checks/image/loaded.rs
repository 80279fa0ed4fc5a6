//! `library-missing`, `library-shadowed`, `stub-driver`: what the loader would map for the stack's modules.
//!
//! The copies of libcudart and libnvrtc among them are judged with all others, by their versions.

use std::path::Path;

use super::unread::Trouble;
use super::{ImageContext, listed, remedy};
use crate::check::{Code, Finding, Severity, accept};
use crate::checks::forward;
use crate::discover::loader::is_drivers;
use crate::discover::requirement::normalize_name;
use crate::facts::{
    Distribution, FoundBy, LoadedObject, LoaderEnd, MissingVersion, RefusedObject, ShadowedCopy,
};
use crate::nvidia::NvidiaWheel;
use crate::order;
use crate::packages;
use crate::processor::OWN;
use crate::text::{counted, verb};

const FOUND: &str = "a file that the loader finds and can use";

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let loader = &scene.image.loader;
    let told = |refused: &&RefusedObject| Trouble::told_by(&refused.reason).is_none();
    let mut findings: Vec<Finding> = loader
        .refused
        .iter()
        .filter(told)
        .map(|object| refused(scene, object))
        .collect();
    match &loader.end {
        LoaderEnd::NotRun => return Vec::new(),
        LoaderEnd::NotAsked { reason } => {
            let finding = Finding::skip(Code::LibraryMissing, "loader");
            return vec![silent(finding, "was not asked what it would map", reason)];
        }
        LoaderEnd::Failed { reason } => {
            if findings.is_empty() {
                let finding = Finding::unknown(Code::LibraryMissing, "loader");
                findings.push(silent(finding, "did not say what it would map", reason));
            }
            return findings;
        }
        LoaderEnd::Listed => {}
    }
    findings.extend(missing_versions(&loader.missing_versions));
    findings.extend(missing(scene));
    if findings.is_empty() {
        let files = scene.image.loaded.iter().filter(|o| o.path.is_some()).count();
        findings.push(
            Finding::pass(Code::LibraryMissing, "loader")
                .observed(listed(&loader.modules, 16))
                .required(FOUND)
                .message(format!(
                    "the loader finds all that {} {}: {}",
                    counted(loader.modules.len(), "module"),
                    verb(loader.modules.len(), "needs", "need"),
                    counted(files, "file")
                )),
        );
    }
    for note in &loader.notes {
        let finding = Finding::unknown(Code::LibraryMissing, "loader");
        findings.push(silent(finding, "was not asked about every module", note));
    }
    findings.extend(shadowed(scene));
    findings.extend(driver(scene));
    findings
}

fn silent(finding: Finding, what: &str, reason: &str) -> Finding {
    finding
        .observed(reason)
        .required("the loader's list of what it would map")
        .message(format!("the loader {what}: {}", reason))
}

fn problem(severity: Severity, subject: &str, observed: &str, message: &str, hint: &str) -> Finding {
    Finding::problem_as(Code::LibraryMissing, severity, subject)
        .observed(observed)
        .required(FOUND)
        .message(message)
        .hint(hint)
}

fn refused(scene: &ImageContext<'_>, refused: &RefusedObject) -> Finding {
    let RefusedObject { path, reason } = refused;
    let mut named = scene.image.named_libraries.iter().flat_map(|named| &named.paths);
    let hint = match named.any(|known| known == path) {
        true => format!(
            "Name a program or shared library for {} in the manifest's `libraries`, not a script that starts it; build or copy it \
             again if it is damaged, and base the image on one that has the loader that it names.",
            OWN.name
        ),
        false => "Reinstall the package that brings it, in its build for this processor; look whether a Dockerfile step cut or \
                  stripped the file."
            .to_string(),
    };
    problem(
        Severity::Fail,
        path,
        reason,
        &format!("the loader refuses {path}: {reason}"),
        &hint,
    )
}

/// One finding for a library and the object that it is too old for.
fn missing_versions(all: &[MissingVersion]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, first) in all.iter().enumerate() {
        let is_same = |m: &MissingVersion| m.library == first.library && m.required_by == first.required_by;
        if all.iter().take(at).any(is_same) {
            continue;
        }
        let versions: Vec<String> = all
            .iter()
            .filter(|m| is_same(m))
            .map(|m| m.version.clone())
            .collect();
        let versions = listed(&versions, 4);
        let MissingVersion {
            library,
            required_by,
            version,
        } = first;
        let hint = if version.starts_with("GLIBC_") {
            "Base the image on a newer distribution, or install the wheel in a build for this one: the manylinux tag \
             in its file name is the glibc that it needs."
                .to_string()
        } else {
            format!(
                "Something brings an older {} than this module was built with: see what is on LD_LIBRARY_PATH, or \
                 upgrade the package that {library} belongs to.",
                name_of(library)
            )
        };
        findings.push(problem(
            Severity::Fail,
            name_of(library),
            &format!("{library} without {versions}"),
            &format!("{required_by} needs {versions}, which {library} does not have"),
            &hint,
        ));
    }
    findings
}

pub fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn missing(scene: &ImageContext<'_>) -> Vec<Finding> {
    let loaded = &scene.image.loaded;
    // A name that one object looks for in vain may come with another one that is imported before it.
    let comes = |object: &LoadedObject| {
        let same = |o: &&LoadedObject| o.name == object.name && o.program == object.program;
        loaded.iter().filter(same).any(|o| o.path.is_some())
    };
    // It is listed once for each object that looks for it.
    let first = |at: usize, object: &LoadedObject| {
        let same = |o: &LoadedObject| o.name == object.name && o.program == object.program;
        loaded.iter().position(same) == Some(at)
    };
    let absent: Vec<&LoadedObject> = loaded
        .iter()
        .enumerate()
        .filter(|(at, o)| o.path.is_none() && first(*at, o) && !is_drivers(&o.name) && !comes(o))
        .map(|(_, object)| object)
        .collect();
    // NVIDIA's libraries that one module lacks have one remedy.
    let is_open = |object: &LoadedObject| reached(scene, object).is_none() && needs(object).is_some();
    let wheels = |object: &LoadedObject| {
        let of_same = absent
            .iter()
            .filter(|other| is_open(object) && is_open(other) && needs(other) == needs(object));
        let names: Vec<&str> = of_same.map(|other| other.name.as_str()).collect();
        let package = owner(scene, object);
        let alone = remedy::of_library(scene, package, &object.name)?;
        Some(match names.len() {
            ..2 => alone,
            _ => remedy::of_libraries(scene, package, &names),
        })
    };
    absent
        .iter()
        .map(|object| {
            let name = &object.name;
            let who = match object.needed_by.as_slice() {
                [] => "a module of the stack".to_string(),
                all => listed(all, 2),
            };
            let verb = if object.needed_by.len() > 1 {
                "need"
            } else {
                "needs"
            };
            let copy = reached(scene, object);
            let (severity, message, hint) = match copy {
                Some(copy) => unreached(scene, object, copy, &absent),
                None => {
                    let hint = match scene.has_folders() {
                        true => wheels(object).unwrap_or_else(|| supplier(name)),
                        false => outside_of_python(scene, object),
                    };
                    let of_another = object.shadowed.first().map_or_else(String::new, |copy| {
                        format!("; {} is for another CUDA, and nothing loads it", copy.path)
                    });
                    (Severity::Fail, of_another, hint)
                }
            };
            let finding = problem(
                severity,
                name,
                "not found",
                &format!("the loader does not find {name}, which {who} {verb}{message}"),
                &hint,
            );
            // What is accepted for a package lies in some wheel, and something loads it from there.
            match owner(scene, object).filter(|_| severity == Severity::Warn) {
                Some(package) => finding.with([name.as_str(), package]),
                None => finding.with([name]),
            }
        })
        .collect()
}

/// Who brings a library where there is no Python that wheels could be installed for.
fn outside_of_python(scene: &ImageContext<'_>, object: &LoadedObject) -> String {
    let name = &object.name;
    let mut named = scene.image.named_libraries.iter().flat_map(|named| &named.paths);
    if let Some((folder, _)) = named.find_map(|path| path.rsplit_once('/').filter(|(_, file)| file == name)) {
        let by = needs(object).map_or("what needs it", name_of);
        return format!(
            "It is in {folder}, where the loader does not look for it: link {by} with -Wl,-rpath,'$ORIGIN' (or the way from there \
             to {folder}), or set LD_LIBRARY_PATH={folder} in the Dockerfile (ENV)."
        );
    }
    let bring =
        "copy it into a directory that the RUNPATH of what needs it, LD_LIBRARY_PATH or ld.so.cache names";
    match NvidiaWheel::of_library(name) {
        Some(_) => format!(
            "Base the image on NVIDIA's runtime image of the CUDA that {name} belongs to, or {bring}."
        ),
        None => format!("Install the distribution's package that brings {name}, or {bring}."),
    }
}

/// The object on whose behalf the loader looked for it.
fn needs(object: &LoadedObject) -> Option<&str> {
    object.needed_by.first().map(String::as_str)
}

/// Whether onnxruntime's provider for CUDA looks for it.
fn is_onnxruntimes(object: &LoadedObject) -> bool {
    needs(object).is_some_and(|path| path.contains("/onnxruntime/"))
}

/// The wheel's copy that something may load by its path; none where the copies are for another CUDA than onnxruntime, which
/// is particular about their folders: nvidia/cu13/lib for CUDA 13 and, up to CUDA 12, one of each library. cuDNN's is the
/// same for all.
///
/// Source: onnxruntime/__init__.py, `_get_nvidia_dll_paths`.
fn reached<'o>(scene: &ImageContext<'_>, object: &'o LoadedObject) -> Option<&'o ShadowedCopy> {
    let mut copies = object.shadowed.iter();
    let cuda = owner(scene, object).and_then(|package| remedy::cuda_of(scene, package));
    let is_of_any = |copy: &ShadowedCopy| copy.torch_opens || copy.wanted_by.is_some();
    let Some(cuda) = cuda.filter(|_| is_onnxruntimes(object)) else {
        return copies.next();
    };
    copies.find(|copy| {
        let (_, below) = copy.path.rsplit_once("/nvidia/").unwrap_or_default();
        let part = below.split('/').next().unwrap_or_default();
        let of_cuda = part
            .strip_prefix("cu")
            .and_then(|number| number.parse::<u16>().ok());
        is_of_any(copy)
            || part.is_empty()
            || part == "cudnn"
            || match of_cuda {
                Some(number) => number == cuda,
                None => cuda < 13,
            }
    })
}

/// LD_LIBRARY_PATH with the folders of all that is looked for on behalf of one object.
fn library_path(scene: &ImageContext<'_>, object: &LoadedObject, absent: &[&LoadedObject]) -> String {
    let of_same = absent.iter().filter(|other| needs(other) == needs(object));
    let copies = of_same.filter_map(|other| reached(scene, other));
    let mut folders: Vec<&str> = copies
        .filter_map(|copy| Some(copy.path.rsplit_once('/')?.0))
        .collect();
    order::sort(&mut folders);
    folders.dedup();
    folders.join(":")
}

/// The distribution of the object on whose behalf the loader looked for it.
pub fn owner<'a>(scene: &ImageContext<'a>, object: &LoadedObject) -> Option<&'a str> {
    let path = needs(object)?;
    let sites = scene.image.python.site_packages.iter();
    let mut inside = sites.filter_map(|site| path.strip_prefix(site.as_str())?.strip_prefix('/'));
    let folder = inside.next()?.split('/').next()?;
    let is_its = |dist: &&&Distribution| {
        let known = packages::of(&dist.name).is_some_and(|package| package.folder == folder);
        known || dist.name == normalize_name(folder)
    };
    scene
        .installed
        .values()
        .find(is_its)
        .map(|dist| dist.name.as_str())
}

/// A wheel has a copy to which nothing leads the loader.
fn unreached(
    scene: &ImageContext<'_>,
    object: &LoadedObject,
    copy: &ShadowedCopy,
    absent: &[&LoadedObject],
) -> (Severity, String, String) {
    let (name, path) = (&object.name, &copy.path);
    // The package stands for all of its libraries, so that one entry ends the finding.
    let accept = |how: &str| {
        let (key, value) = match owner(scene, object) {
            Some(package) => ("package", package),
            None => ("library", name.as_str()),
        };
        accept::written(Code::LibraryMissing, key, value, how)
    };
    let hint = format!("Install the package that brings {name} into the same site-packages as the module.");
    // torch/__init__.py, `_preload_cuda_deps`: it searches all of sys.path for the libraries of NVIDIA's wheels.
    let torch = copy.torch_opens;
    let mut objects = scene.image.loaded.iter();
    if objects.any(|object| object.name == *name && is_onnxruntimes(object))
        && !torch
        && copy.wanted_by.is_none()
    {
        let message = format!("; {path} is loaded by onnxruntime.preload_dlls() alone");
        // Where torch is there, it does not look for this one.
        let has_torch = scene
            .image
            .loader
            .modules
            .iter()
            .any(|m| m.contains("/torch/lib/"));
        let torchs = if has_torch { "" } else { " import torch before it," };
        let hint = format!(
            "Call onnxruntime.preload_dlls() before the first session,{torchs} or, in the Dockerfile: ENV \
             LD_LIBRARY_PATH={}. Otherwise onnxruntime uses the CPU. If the service does so, accept the finding in the \
             manifest: {}.",
            library_path(scene, object, absent),
            accept("preload_dlls() is called")
        );
        return (Severity::Warn, message, hint);
    }
    if torch && copy.wanted_by.is_none() {
        let message = format!("; torch looks for {path} itself when it is imported");
        let entry = accept("torch finds it");
        let hint = format!("{hint} Or, since torch finds it, accept the finding in the manifest: {entry}.");
        return (Severity::Warn, message, hint);
    }
    (Severity::Fail, format!("; {path} is not where it looks"), hint)
}

/// Who brings a library that is not there.
pub fn supplier(name: &str) -> String {
    let starts = |all: &[&str]| all.iter().any(|start| name.starts_with(start));
    if starts(&["libtorch", "libc10", "libshm.so"]) {
        "Install torch into the same site-packages; a module that was built for another torch does not fit."
            .into()
    } else if starts(&["libnvinfer", "libnvonnxparser"]) {
        format!(
            "Install TensorRT, which brings {name}: pip install tensorrt-cu12, or tensorrt-cu13 for CUDA 13, in the release \
             whose number {name} ends in."
        )
    } else if starts(&["libcudf", "libcuvs", "libcuml", "libcugraph", "libcuspatial"]) {
        format!("Install the wheel of RAPIDS that brings {name}, with the tag of the image's CUDA.")
    } else if starts(&["libcu", "libnv", "libnccl", "libnpp"]) {
        format!(
            "Install the wheel of NVIDIA's that brings {name} beside the module, or base the image on a CUDA runtime image."
        )
    } else if starts(&["libpython"]) {
        "Install the shared library of the interpreter that the module was built for.".into()
    } else {
        format!(
            "Install the distribution's package that brings {name} (apt-file search {name}, dnf provides)."
        )
    }
}

/// The reason for a file, as the end of a sentence.
fn reason(found_by: &FoundBy) -> String {
    match found_by {
        FoundBy::LibraryPath { folder } => format!("LD_LIBRARY_PATH names {folder}"),
        FoundBy::Rpath { of, folder } => format!("the RPATH of {of} leads to {folder}"),
        FoundBy::Runpath { of, folder } => format!("the RUNPATH of {of} leads to {folder}"),
        FoundBy::System => {
            "ld.so.cache or a default folder has it, and no RPATH or RUNPATH comes first".into()
        }
    }
}

fn shadowed(scene: &ImageContext<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = scene
        .image
        .loaded
        .iter()
        .filter_map(|object| {
            let path = object.path.as_ref()?;
            // A base image's CUDA of the same release has the very files of the wheels.
            let mut others = object.shadowed.iter().filter(|copy| !copy.same);
            let lacking = others.clone().find(|copy| copy.missing_symbol.is_some());
            let copy = lacking.or_else(|| others.next())?;
            let mut why = object
                .found_by
                .as_ref()
                .map_or_else(|| "it comes first".to_string(), reason);
            if let (Some(first), Some(wanted_by)) = (object.needed_by.first(), &copy.wanted_by)
                && first != wanted_by
            {
                why += &format!("; {first} is loaded before {wanted_by}, and one SONAME is loaded once");
            }
            let mut severity = Severity::Warn;
            if let Some(symbol) = &copy.missing_symbol {
                severity = Severity::Fail;
                let user = copy.missing_for.as_deref().unwrap_or("a module of the stack");
                let more = match copy.missing_count {
                    ..2 => String::new(),
                    2 => " and 1 other symbol".into(),
                    all => format!(" and {} other symbols", all - 1),
                };
                why += &format!("; {path} lacks {symbol}{more}, which {user} needs, so that it cannot be loaded");
            }
            let hint = match &object.found_by {
                Some(FoundBy::LibraryPath { folder }) => format!(
                    "Take {folder} out of LD_LIBRARY_PATH, in the Dockerfile (ENV) or where the container is started."
                ),
                Some(FoundBy::System) if severity == Severity::Fail => {
                    "Remove that copy, or its folder from /etc/ld.so.conf.d (then run ldconfig).".into()
                }
                Some(FoundBy::System) => {
                    "Remove that copy, or its folder from /etc/ld.so.conf.d (then ldconfig); or import torch first."
                        .into()
                }
                _ => "Install both packages in builds for one CUDA, or import the one first whose copy is meant.".into(),
            };
            let name = &object.name;
            Some(
                Finding::problem_as(Code::LibraryShadowed, severity, name)
                    .observed(path)
                    .required(&copy.path)
                    .message(format!(
                        "the loader would take {path} for {name} and not the wheel's {}: {why}",
                        copy.path
                    ))
                    .hint(hint),
            )
        })
        .collect();
    if findings.is_empty() {
        findings.push(
            Finding::pass(Code::LibraryShadowed, "loader")
                .observed("no other copy than the wheels' own")
                .required("the copies that the wheels bring")
                .message("no library of a wheel is shadowed by another copy"),
        );
    }
    findings
}

fn lies_in(object: &LoadedObject, folder: &str) -> bool {
    [&object.path, &object.real].into_iter().flatten().any(|path| {
        let parent = Path::new(path).parent().and_then(Path::file_name);
        parent.is_some_and(|name| name == folder)
    })
}

fn driver(scene: &ImageContext<'_>) -> Vec<Finding> {
    const REQUIRED: &str = "no stub in the driver's place";
    let image = scene.image;
    let mapped = image
        .loaded
        .iter()
        .find(|o| o.name.starts_with("libcuda.so") && o.path.is_some());
    let path = mapped.and_then(|o| o.path.as_deref());
    let mut findings = Vec::new();
    if let (Some(object), Some(path)) = (mapped, path) {
        let real = object.real.as_deref().unwrap_or(path);
        let why = object
            .found_by
            .as_ref()
            .map_or_else(String::new, |f| format!(": {}", reason(f)));
        if lies_in(object, "stubs") {
            findings.push(
                Finding::problem(Code::StubDriver, path)
                    .observed(real)
                    .required(REQUIRED)
                    .message(format!("the loader would take the stub {real} for the driver{why}"))
                    .hint(
                        "Keep stubs off LD_LIBRARY_PATH and out of /etc/ld.so.conf.d, remove a libcuda.so.1 that \
                         somebody made there, then run ldconfig. Linking needs LIBRARY_PATH only.",
                    ),
            );
        } else if lies_in(object, "compat") {
            findings.push(
                Finding::info(Code::StubDriver, path)
                    .observed(real)
                    .required(REQUIRED)
                    .message(format!(
                        "the loader would take the compatibility driver library {real}{why}; {}",
                        forward::in_front(real, &image.compat)
                    )),
            );
        }
    }
    for stub in image
        .loader
        .stubs
        .iter()
        .filter(|stub| Some(stub.as_str()) != path)
    {
        findings.push(
            Finding::info(Code::StubDriver, stub)
                .observed(stub)
                .required(REQUIRED)
                .message(format!(
                    "the stub {stub} lies in a folder that the loader searches; it is not what would be loaded now"
                )),
        );
    }
    if findings.is_empty() {
        let seen = path.unwrap_or("no libcuda.so.1: the driver comes when the container starts");
        findings.push(
            Finding::pass(Code::StubDriver, "libcuda.so.1")
                .observed(seen)
                .required(REQUIRED)
                .message("no stub driver library comes before the driver's"),
        );
    }
    findings
}

#[cfg(test)]
mod tests;
