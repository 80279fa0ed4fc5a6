//! Copies of CUDA's libraries: which version each says that it is.

use std::ffi::{OsStr, c_int};
use std::fs;

use cuda_entrypoint::facts::{CallError, CudaVersion, HelperLine, LibraryAnswer, LibraryKind};

use super::{Explanation, Foreign, Function, abi, nonsense, text_at};
use crate::arguments::Wanted;
use crate::output::Output;

/// Architectures that NVRTC may list: it has had fewer than twenty so far.
const MOST_ARCHS: usize = 256;

/// Asks every library of the request.
///
/// Those that the loader is to find come first, whatever their position: a copy that is loaded already answers to
/// its SONAME and would hide what the loader finds. The other way round there is no such trap, since the loader
/// tells files that are named by a path apart.
pub fn ask(out: &Output, wanted: &[Wanted]) {
    let numbered = || wanted.iter().enumerate();
    let sonames = numbered().filter(|(_, wanted)| wanted.is_soname());
    let paths = numbered().filter(|(_, wanted)| !wanted.is_soname());
    for (index, wanted) in sonames.chain(paths) {
        out.line(&HelperLine::Library(ask_one(out, index, wanted)));
    }
}

fn ask_one(out: &Output, index: usize, wanted: &Wanted) -> LibraryAnswer {
    let mut answer = LibraryAnswer {
        index,
        ..LibraryAnswer::default()
    };
    let asked = match wanted.kind {
        LibraryKind::Cudart => ask_cudart(out, &wanted.path, &mut answer),
        LibraryKind::Nvrtc => ask_nvrtc(out, &wanted.path, &mut answer),
        LibraryKind::Cudnn => ask_cudnn(out, &wanted.path, &mut answer),
    };
    answer.error = asked.err();
    answer
}

fn ask_cudart(out: &Output, path: &OsStr, answer: &mut LibraryAnswer) -> Result<(), String> {
    let cudart = Foreign::open(out, path, explain_cudart)?;
    answer.path = cudart.path();
    let mut number = 0;
    cudart
        .check("", |get: abi::CudaRuntimeGetVersion| {
            // SAFETY: stores one int.
            unsafe { get.0(&mut number) }
        })
        .map_err(|error| {
            answer.error_code = Some(error.code).filter(|&code| code != CallError::NO_CODE);
            error.to_string()
        })?;
    answer.version = CudaVersion::from_api(number);
    match answer.version {
        Some(_) => Ok(()),
        None => Err(no_such_version::<abi::CudaRuntimeGetVersion>(number).to_string()),
    }
}

fn explain_cudart(cudart: &Foreign, code: c_int) -> Explanation {
    // SAFETY: both return constant text for every code, or null.
    let name = cudart.call("", |get: abi::CudaGetErrorName| unsafe { text_at(get.0(code)) });
    // SAFETY: as above.
    let description = cudart.call("", |get: abi::CudaGetErrorString| unsafe { text_at(get.0(code)) });
    Explanation {
        name: name.unwrap_or_default(),
        description: description.unwrap_or_default(),
    }
}

fn ask_nvrtc(out: &Output, path: &OsStr, answer: &mut LibraryAnswer) -> Result<(), String> {
    let nvrtc = Foreign::open(out, path, explain_nvrtc)?;
    answer.path = nvrtc.path();
    let (mut major, mut minor) = (0, 0);
    nvrtc
        .check("", |get: abi::NvrtcVersion| {
            // SAFETY: stores one int through each pointer.
            unsafe { get.0(&mut major, &mut minor) }
        })
        .map_err(|error| error.to_string())?;
    let number = major
        .saturating_mul(1000)
        .saturating_add(minor.saturating_mul(10));
    answer.version = CudaVersion::from_api(number);
    if answer.version.is_none() {
        return Err(no_such_version::<abi::NvrtcVersion>(number).to_string());
    }
    // Since CUDA 11.2; the version is what counts, so an error here is only an empty list.
    answer.nvrtc_archs = supported_archs(&nvrtc).unwrap_or_default();
    Ok(())
}

fn explain_nvrtc(nvrtc: &Foreign, code: c_int) -> Explanation {
    // SAFETY: returns constant text for every code, or null. The text is the enumerator's name.
    let name = nvrtc.call("", |get: abi::NvrtcGetErrorString| unsafe {
        text_at(get.0(code))
    });
    Explanation {
        name: name.unwrap_or_default(),
        description: String::new(),
    }
}

fn supported_archs(nvrtc: &Foreign) -> Option<Vec<i32>> {
    let mut count = 0;
    nvrtc
        .check("", |get: abi::NvrtcGetNumSupportedArchs| {
            // SAFETY: stores one int.
            unsafe { get.0(&mut count) }
        })
        .ok()?;
    let count = usize::try_from(count).ok().filter(|&count| count <= MOST_ARCHS)?;
    let mut archs = vec![0; MOST_ARCHS];
    nvrtc
        .check("", |get: abi::NvrtcGetSupportedArchs| {
            // SAFETY: stores as many ints as it has just said, for which there is room.
            unsafe { get.0(archs.as_mut_ptr()) }
        })
        .ok()?;
    archs.truncate(count);
    Some(archs)
}

fn ask_cudnn(out: &Output, path: &OsStr, answer: &mut LibraryAnswer) -> Result<(), String> {
    let cudnn = Foreign::open(out, path, |_, _| Explanation::default())?;
    answer.path = cudnn.path();
    let before = sublibraries(LibraryKind::Cudnn);
    let number = cudnn.call("", |get: abi::CudnnGetVersion| {
        // SAFETY: takes nothing and returns a size_t.
        unsafe { get.0() }
    });
    let Some(number) = number else {
        return Err(
            nonsense::<abi::CudnnGetVersion>("the library does not export this function".into()).to_string(),
        );
    };
    answer.sublibrary = sublibraries(LibraryKind::Cudnn)
        .into_iter()
        .find(|path| !before.contains(path));
    answer.release = LibraryKind::cudnn_release(number);
    match answer.release {
        Some(_) => Ok(()),
        None => Err(nonsense::<abi::CudnnGetVersion>(format!(
            "reported the version number {number}, which no cuDNN release has"
        ))
        .to_string()),
    }
}

/// The files of a library's sub-libraries that are mapped, symbolic links resolved. Source: proc_pid_maps(5).
fn sublibraries(kind: LibraryKind) -> Vec<String> {
    let maps = fs::read("/proc/self/maps").unwrap_or_default();
    let start = kind.row().sublibraries.unwrap_or_default();
    let mut found: Vec<String> = String::from_utf8_lossy(&maps)
        .lines()
        .filter_map(|line| Some(format!("/{}", line.split_once(" /")?.1)))
        .filter(|path| {
            path.rsplit('/')
                .next()
                .is_some_and(|name| name.starts_with(start))
        })
        .collect();
    found.dedup();
    found
}

fn no_such_version<F: Function>(number: c_int) -> CallError {
    nonsense::<F>(format!(
        "reported the version number {number}, which no CUDA release has"
    ))
}
