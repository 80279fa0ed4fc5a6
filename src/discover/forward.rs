//! Libraries of forward compatibility in an image (cuda-compat), and what each says of the kernel drivers that it serves.
//!
//! Sources: CUDA Compatibility, "Forward Compatibility"; elf(5), "Notes"; NVIDIA Container Toolkit, enable-cuda-compat,
//! whose hook puts /usr/local/cuda/compat in front where the one libcuda in it has a note that names the host's branch. The
//! note is section `.note.cuda.fwd_compatibility`, its owner `NVIDIA Corporation`, its descriptor JSON, filled up with
//! zeros:
//!
//! ```json
//! {"format":1,"CUDA version":"13.1","driver":[535,550,570,575,580,590],"device":[1,2,7,8,9,10,11,12,13,14]}
//! ```

use std::path::Path;

use object::elf::SHT_NOTE;
use serde_json::Value;

use super::bytes::{MAX_BYTES, RandomFile, Reader, Source};
use super::elf::{self, ElfError};
use super::files;
use super::loader::search;
use crate::facts::read::{FromJson, value_of};
use crate::facts::{CompatFolder, CompatLibrary, CudaVersion, ForwardNote};
use crate::hidden::is_hidden;

const SECTION: &[u8] = b".note.cuda.fwd_compatibility\0";
const OWNER: &[u8] = b"NVIDIA Corporation";
/// namesz, descsz and type, of four bytes each
const HEADER: usize = 12;
/// Most entries of one of its lists. Real ones have ten.
const MAX_ENTRIES: usize = 256;
/// Most copies of libcuda in one folder that are looked at.
const MAX_LIBRARIES: usize = 8;

/// The note of a library; `None` where it has none.
///
/// # Errors
/// See [`ElfError`]; a note that makes no sense is one.
pub fn note(source: &dyn Source) -> Result<Option<ForwardNote>, ElfError> {
    let mut reader = Reader::new(source);
    let elf = elf::open_x86_64(&mut reader)?;
    for index in 0..elf.section_count() {
        let section = elf.section(&mut reader, index)?;
        if section.kind != SHT_NOTE || !elf.name_starts_with(&mut reader, &section, SECTION)? {
            continue;
        }
        let end = section.offset.saturating_add(section.size.min(MAX_BYTES as u64));
        let bytes = reader.up_to(section.offset, end)?;
        return of_section(bytes).map_err(|what| ElfError::Malformed {
            what,
            offset: section.offset,
        });
    }
    Ok(None)
}

/// The first note of the section; another owner's is none.
fn of_section(bytes: &[u8]) -> Result<Option<ForwardNote>, &'static str> {
    const OUTSIDE: &str = "a note that does not lie in its section";
    let number = |at: usize| {
        let bytes = bytes.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let (name_size, size) = number(0).zip(number(4)).ok_or(OUTSIDE)?;
    let name_end = HEADER.checked_add(name_size).ok_or(OUTSIDE)?;
    let name = bytes.get(HEADER..name_end).ok_or(OUTSIDE)?;
    if name.strip_suffix(b"\0").unwrap_or(name) != OWNER {
        return Ok(None);
    }
    let rest = bytes.get(name_end.next_multiple_of(4)..).ok_or(OUTSIDE)?;
    // A library for Jetson states two bytes more than there are, and they are zeros.
    let text = rest.get(..size).unwrap_or(rest);
    let end = text
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    of_text(text.get(..end).unwrap_or_default()).map(Some)
}

fn of_text(text: &[u8]) -> Result<ForwardNote, &'static str> {
    let Ok(Value::Object(note)) = value_of(text) else {
        return Err("a note on forward compatibility that is no JSON object");
    };
    // As NVIDIA's own reader does, without regard to capitals.
    let field = |name: &str| {
        let found = note.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    };
    if field("format").and_then(Value::as_u64) != Some(1) {
        return Err("a note on forward compatibility of an unknown format");
    }
    let numbers = |name| match field(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(all)) if all.len() <= MAX_ENTRIES => {
            let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
            let all: Option<Vec<u32>> = all.iter().map(number).collect();
            all.ok_or("a note on forward compatibility with a list of something else than numbers")
        }
        Some(_) => Err("a note on forward compatibility with a list of something else than numbers"),
    };
    let cuda = match field("CUDA version") {
        None => None,
        Some(text) => match CudaVersion::from_json(text.clone()) {
            Ok(version) => Some(version),
            Err(_) => return Err("a note on forward compatibility with a CUDA version that is none"),
        },
    };
    Ok(ForwardNote {
        cuda,
        drivers: numbers("driver")?,
        devices: numbers("device")?,
    })
}

/// The folders of forward compatibility: those of CUDA toolkits, and those that LD_LIBRARY_PATH names; `mapped` is the
/// libcuda that was asked.
pub fn look(library_path: Option<&str>, mapped: Option<&Path>) -> Vec<CompatFolder> {
    look_in(Path::new("/usr/local"), library_path, mapped)
}

fn look_in(toolkits: &Path, library_path: Option<&str>, mapped: Option<&Path>) -> Vec<CompatFolder> {
    let mapped = mapped.and_then(|path| path.canonicalize().ok());
    let mut folders = search::listed(library_path.unwrap_or_default());
    folders.extend(
        mapped
            .iter()
            .filter_map(|path| path.parent())
            .map(Path::to_path_buf),
    );
    folders.retain(|folder| is_for_compat(folder));
    for entry in files::list(toolkits).unwrap_or_default() {
        let is_toolkit = |name: &str| name == "cuda" || name.starts_with("cuda-");
        if entry.may_be_dir() && entry.text().is_some_and(is_toolkit) {
            let compat = toolkits.join(&entry.name).join("compat");
            // Where the entrypoint of NVIDIA's framework images finds it, and links it.
            folders.extend([compat.join("lib.real"), compat.join("lib"), compat]);
        }
    }
    let mut found: Vec<CompatFolder> = Vec::new();
    for folder in folders {
        let Some(folder) = folder
            .canonicalize()
            .ok()
            .filter(|real| real.is_dir() && !is_hidden(real))
        else {
            continue;
        };
        let path = text(&folder);
        if found.iter().all(|known| known.path != path) {
            let libraries = libraries(&folder, mapped.as_deref());
            found.push(CompatFolder { path, libraries });
        }
    }
    // The folder above those of a framework image is none.
    let holds = |folder: &CompatFolder, other: &CompatFolder| {
        other
            .path
            .strip_prefix(folder.path.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
    };
    let outer: Vec<String> = found
        .iter()
        .filter(|folder| folder.libraries.is_empty() && found.iter().any(|other| holds(folder, other)))
        .map(|folder| folder.path.clone())
        .collect();
    found.retain(|folder| !outer.contains(&folder.path));
    found
}

/// Whether a folder's name says that it is for forward compatibility: `compat` of a toolkit, `cuda-compat` of conda-forge.
fn is_for_compat(folder: &Path) -> bool {
    let names = ["compat", "cuda-compat"];
    folder
        .components()
        .any(|part| names.iter().any(|name| part.as_os_str() == *name))
}

/// Each file once, whatever links lead to it.
fn libraries(folder: &Path, mapped: Option<&Path>) -> Vec<CompatLibrary> {
    let mut found: Vec<CompatLibrary> = Vec::new();
    for entry in files::list(folder).unwrap_or_default() {
        let is_libcuda = entry.text().is_some_and(|name| name.starts_with("libcuda.so."));
        let real = folder.join(&entry.name).canonicalize().ok();
        let Some(real) = real.filter(|real| is_libcuda && real.is_file() && !is_hidden(real)) else {
            continue;
        };
        let path = text(&real);
        if found.len() < MAX_LIBRARIES && found.iter().all(|known| known.path != path) {
            found.push(library(&real, path, mapped == Some(real.as_path())));
        }
    }
    found
}

fn library(real: &Path, path: String, mapped: bool) -> CompatLibrary {
    let read = RandomFile::open(real).map_err(|e| e.to_string());
    let read = read.and_then(|file| note(&file).map_err(|e| e.to_string()));
    let name = path.rsplit('/').next().unwrap_or_default();
    let release = name
        .strip_prefix("libcuda.so.")
        .filter(|release| release.contains('.'));
    CompatLibrary {
        release: release.map(str::to_string),
        problem: read.as_ref().err().cloned(),
        note: read.ok().flatten(),
        mapped,
        path,
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
