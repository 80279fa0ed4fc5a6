//! Imports that fail since a library does not have what another one was built with: which library that is, where it was
//! found, and what to do. A symbol's first letters say whose it is.

use super::known::Cause;
use crate::check::Code;
use crate::facts::{Distribution, FoundBy, ImageFacts, LoadedObject};

/// How the names of a library's functions begin, its name, and that of the wheels which bring it. Longer ones first.
const LIBRARIES: &[(&str, &str, &str)] = &[
    ("nvJitLink", "libnvJitLink.so", "nvidia-nvjitlink"),
    ("nccl", "libnccl.so", "nvidia-nccl"),
    ("pnccl", "libnccl.so", "nvidia-nccl"),
    ("cudnn", "libcudnn", "nvidia-cudnn"),
    ("cublasLt", "libcublasLt.so", "nvidia-cublas"),
    ("cublas", "libcublas.so", "nvidia-cublas"),
    ("cusparseLt", "libcusparseLt", "nvidia-cusparselt"),
    ("cusparse", "libcusparse.so", "nvidia-cusparse"),
    ("cusolver", "libcusolver.so", "nvidia-cusolver"),
    ("cufft", "libcufft.so", "nvidia-cufft"),
    ("curand", "libcurand.so", "nvidia-curand"),
    ("cupti", "libcupti.so", "nvidia-cuda-cupti"),
    ("cutensor", "libcutensor.so", "cutensor"),
    ("nvrtc", "libnvrtc.so", "nvidia-cuda-nvrtc"),
    ("nvshmem", "libnvshmem_host.so", "nvidia-nvshmem"),
    ("nvjpeg", "libnvjpeg.so", "nvidia-nvjpeg"),
    ("nvtx", "libnvToolsExt.so", "nvidia-nvtx"),
    ("cuFile", "libcufile.so", "nvidia-cufile"),
    ("cuda", "libcudart.so", "nvidia-cuda-runtime"),
];

/// What is missing where.
struct Missing<'a> {
    /// the file that needs it
    needed_by: &'a str,
    /// the symbol, or the version of a library's symbols
    what: &'a str,
    /// the library by its SONAME, where the loader names it
    library: Option<&'a str>,
    /// the file that does not have it, where the loader names it
    file: Option<&'a str>,
}

/// ``/v/libcusparse.so.12: undefined symbol: __nvJitLinkComplete_12_4, version libnvJitLink.so.12``, or
/// ``/c/libnvJitLink.so.12: version `libnvJitLink.so.12' not found (required by /v/libcusparse.so.12)``.
fn parse(text: &str) -> Option<Missing<'_>> {
    let word = |text: &str, end: &[char]| text.find(end).unwrap_or(text.len());
    if let Some((before, after)) = text.split_once(": undefined symbol: ") {
        let line = after.lines().next().unwrap_or_default();
        let what = line.get(..word(line, &[',', ' ', '\t', ')'])).unwrap_or_default();
        let library = line.split_once(", version ").map(|(_, rest)| {
            let name = rest.get(..word(rest, &[' ', '\t', ',', ')'])).unwrap_or_default();
            name.trim_end_matches(['.', ':'])
        });
        return Some(Missing {
            needed_by: path_at_end(before),
            what,
            library,
            file: None,
        });
    }
    let (before, after) = text.split_once(": version `")?;
    let (what, rest) = after.split_once("' not found (required by ")?;
    let file = path_at_end(before);
    Some(Missing {
        needed_by: rest.split(')').next().unwrap_or_default(),
        what,
        library: file.rsplit('/').next(),
        file: Some(file),
    })
}

/// The path that a text ends in, behind an exception's name.
fn path_at_end(text: &str) -> &str {
    let line = text.lines().next_back().unwrap_or_default();
    line.rsplit(": ").next().unwrap_or_default().trim()
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What a message of the loader means, for a step whose own code is `own`.
pub fn find(text: &str, own: Code, image: &ImageFacts) -> Option<Cause> {
    let missing = parse(text)?;
    let symbol = missing.what.trim_start_matches('_');
    let needed_by = name_of(missing.needed_by);
    let cause = |means: String, hint: &str| Cause {
        code: own,
        means,
        hint: hint.to_string(),
        retryable: false,
    };
    let is_named = |stem: &str| missing.library.is_some_and(|name| name.starts_with(stem));
    let library = LIBRARIES
        .iter()
        .find(|(begins, stem, _)| is_named(stem) || (missing.file.is_none() && symbol.starts_with(begins)));
    if let Some((_, stem, wheel)) = library {
        return Some(another_library(&missing, stem, wheel, own, image));
    }
    let is_driver = |rest: &str| rest.starts_with(|c: char| c.is_ascii_uppercase());
    if symbol.strip_prefix("cu").is_some_and(is_driver) || symbol.starts_with("nvml") {
        let mut cause = cause(
            format!(
                "the driver's library has no {}, which {needed_by} needs: the driver is too old, or a stub is in its place",
                missing.what
            ),
            "update the node's driver, or use an image built for an older CUDA; cuda-entrypoint check --stage image names a stub",
        );
        cause.code = Code::SmokeDevice;
        return Some(cause);
    }
    let what = missing.what;
    let of_torch = ["3c10", "2at", "5torch", "6caffe2"]
        .iter()
        .any(|name| symbol.contains(name));
    Some(if let Some(file) = missing.file {
        let (means, hint) = if what.starts_with("GLIBC_") {
            (
                "the image's C library is older than",
                "base the image on a newer distribution, or install the wheel in a build for this one: the manylinux tag in its file name is the glibc that it needs",
            )
        } else {
            (
                "an older library is in front of the one that",
                "take its folder out of LD_LIBRARY_PATH, or upgrade the package that it belongs to",
            )
        };
        cause(format!("{file} has no {what}: {means} {needed_by} needs"), hint)
    } else if symbol.starts_with("Z") && of_torch
        || symbol.starts_with("aoti_torch")
        || symbol.starts_with("THP")
    {
        cause(
            "an extension was built against another torch".to_string(),
            "rebuild it for this torch, or install the wheel that names it",
        )
    } else if symbol.starts_with("Py") {
        cause(
            format!("{needed_by} was built for another Python"),
            "install the wheel for this Python: cpXY in its file name is the version",
        )
    } else {
        cause(
            format!("no library that is loaded has {what}, which {needed_by} needs"),
            "install the package that it belongs to and those that it is linked with in releases that belong together; look for another copy of theirs on LD_LIBRARY_PATH",
        )
    })
}

/// Another release of one of CUDA's libraries than the one that it was built with.
fn another_library(missing: &Missing<'_>, stem: &str, wheel: &str, own: Code, image: &ImageFacts) -> Cause {
    let name = missing.library.filter(|name| name.starts_with(stem));
    let is_it = |object: &&LoadedObject| match name {
        Some(name) => object.name == name,
        None => object.name.starts_with(stem),
    };
    let object = image.loaded.iter().filter(|o| o.path.is_some()).find(is_it);
    let file = missing.file.or_else(|| object?.path.as_deref());
    let found_by = object
        .filter(|o| o.path.as_deref() == file)
        .and_then(|o| o.found_by.as_ref());
    let shown = name.unwrap_or(stem.trim_end_matches(".so"));
    let seen = match file {
        Some(file) => format!("{file}, which is another {shown}"),
        None => format!("another {shown}"),
    };
    let all: Vec<&Distribution> = image
        .distributions
        .iter()
        .filter(|d| {
            d.name
                .strip_prefix(wheel)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("-cu"))
        })
        .collect();
    let required = all
        .iter()
        .find_map(|d| requirement_of(&d.name, image).map(|text| (*d, text)));
    let others: Vec<&str> = all
        .iter()
        .map(|d| d.name.as_str())
        .filter(|name| required.as_ref().is_none_or(|(d, _)| d.name != *name))
        .collect();
    let (why, hint) = match (found_by, &required) {
        (Some(FoundBy::LibraryPath { folder }), _) => (
            format!(", found by LD_LIBRARY_PATH in {folder}"),
            format!("take {folder} out of LD_LIBRARY_PATH, in the Dockerfile (ENV) or where the container is started"),
        ),
        (Some(FoundBy::System), _) => (
            ", found by ld.so.cache or in a default folder".to_string(),
            "remove that copy, or its folder from /etc/ld.so.conf.d (then ldconfig), or install the wheel that brings the right one".to_string(),
        ),
        (_, Some((kept, requirement))) if !others.is_empty() => (
            format!(": {} and {} bring the same file", kept.name, others.join(", ")),
            format!("pip uninstall -y {}, then pip install --force-reinstall --no-deps '{requirement}'", others.join(" ")),
        ),
        (_, Some((kept, requirement))) => (
            format!(" ({} {} is installed)", kept.name, kept.version),
            format!("pip install --force-reinstall --no-deps '{requirement}'; if that is what is installed, look for another copy on LD_LIBRARY_PATH"),
        ),
        _ => (
            String::new(),
            format!("look for another copy of {shown} on LD_LIBRARY_PATH and in /etc/ld.so.conf.d; if there is none, reinstall the wheel that brings it, as torch requires it (pip show torch)"),
        ),
    };
    Cause {
        code: own,
        means: format!(
            "{} needs {}, and the loader finds {seen}{why}",
            name_of(missing.needed_by),
            missing.what
        ),
        hint,
        retryable: false,
    }
}

/// What another distribution requires of this one: `nvidia-nccl-cu12==2.21.5`.
fn requirement_of(name: &str, image: &ImageFacts) -> Option<String> {
    let all = image.distributions.iter().flat_map(|d| &d.requires);
    all.filter_map(|line| line.split(';').next())
        .map(|line| line.replace([' ', '(', ')'], ""))
        .find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['=', '<', '>', '~', '!']))
        })
}
