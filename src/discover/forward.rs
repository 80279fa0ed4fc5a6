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
use crate::facts::read::value_of;
use crate::facts::{Compat, CudaVersion};
use crate::hidden::is_hidden;

const SECTION: &[u8] = b".note.cuda.fwd_compatibility\0";
const OWNER: &[u8] = b"NVIDIA Corporation";
/// namesz, descsz and type, of four bytes each
const HEADER: usize = 12;
/// Most entries of one of its lists. Real ones have ten.
const MAX_ENTRIES: usize = 256;
/// Most copies of libcuda in one folder that are looked at.
const MAX_LIBRARIES: usize = 8;

/// What a note says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Note {
    /// as [`Compat::cuda`]
    pub cuda: Option<CudaVersion>,
    /// as [`Compat::drivers`]
    pub drivers: Vec<u32>,
    /// as [`Compat::devices`]
    pub devices: Vec<u32>,
}

/// The note of a library; `None` where it has none.
///
/// # Errors
/// See [`ElfError`]; a note that makes no sense is one.
pub fn note(source: &dyn Source) -> Result<Option<Note>, ElfError> {
    let mut reader = Reader::new(source);
    let elf = elf::open_own(&mut reader)?;
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
fn of_section(bytes: &[u8]) -> Result<Option<Note>, &'static str> {
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

fn of_text(text: &[u8]) -> Result<Note, &'static str> {
    const FORM: &str = "a note on forward compatibility that is no JSON object of format 1";
    const VALUE: &str = "a note on forward compatibility with an unknown value";
    let Ok(Value::Object(note)) = value_of(text) else {
        return Err(FORM);
    };
    if note.get("format").and_then(Value::as_u64) != Some(1) {
        return Err(FORM);
    }
    let list = |name| note.get(name).map_or(Some(Vec::new()), numbers).ok_or(VALUE);
    let cuda = match note.get("CUDA version") {
        Some(version) => Some(version.as_str().and_then(|text| text.parse().ok()).ok_or(VALUE)?),
        None => None,
    };
    Ok(Note {
        cuda,
        drivers: list("driver")?,
        devices: list("device")?,
    })
}

fn numbers(value: &Value) -> Option<Vec<u32>> {
    let all = value.as_array().filter(|all| all.len() <= MAX_ENTRIES)?;
    all.iter().map(|one| one.as_u64()?.try_into().ok()).collect()
}

/// What lies in the folders of forward compatibility: those of CUDA toolkits, and those that LD_LIBRARY_PATH names;
/// `mapped` is the libcuda that was asked.
pub fn look(library_path: Option<&str>, mapped: Option<&Path>) -> Vec<Compat> {
    look_in(Path::new("/usr/local"), library_path, mapped)
}

fn look_in(toolkits: &Path, library_path: Option<&str>, mapped: Option<&Path>) -> Vec<Compat> {
    let mapped = mapped.and_then(|path| path.canonicalize().ok());
    let mut folders = search::listed(library_path.unwrap_or_default());
    folders.extend(mapped.as_deref().and_then(Path::parent).map(Path::to_path_buf));
    folders.retain(|folder| is_for_compat(folder));
    for entry in files::list(toolkits).unwrap_or_default() {
        if entry
            .text()
            .is_some_and(|name| name == "cuda" || name.starts_with("cuda-"))
        {
            let compat = toolkits.join(&entry.name).join("compat");
            // NVIDIA's framework images have it one folder deeper.
            let deeper = compat.join("lib.real");
            folders.push(if deeper.is_dir() { deeper } else { compat });
        }
    }
    let mut found: Vec<Compat> = Vec::new();
    for folder in folders {
        let Ok(folder) = folder.canonicalize() else {
            continue;
        };
        let path = text(&folder);
        if found.iter().all(|known| known.folder != path) {
            add(&folder, &path, mapped.as_deref(), &mut found);
        }
    }
    found
}

/// Whether a folder's name says that it is for forward compatibility: `compat` of a toolkit, `cuda-compat` of conda-forge.
fn is_for_compat(folder: &Path) -> bool {
    let mut parts = folder.components();
    parts.any(|part| part.as_os_str() == "compat" || part.as_os_str() == "cuda-compat")
}

/// Each file of a folder once, whatever links lead to it; the folder alone where there is none.
fn add(folder: &Path, shown: &str, mapped: Option<&Path>, found: &mut Vec<Compat>) {
    let Ok(entries) = files::list(folder) else { return };
    // Of a folder that is not called after CUDA nobody knows what it is for.
    let mut is_empty = shown.contains("cuda");
    let before = found.len();
    for entry in entries {
        let is_libcuda = entry.text().is_some_and(|name| name.starts_with("libcuda.so."));
        let real = folder.join(&entry.name).canonicalize().ok();
        let Some(real) = real.filter(|real| is_libcuda && !is_hidden(real)) else {
            continue;
        };
        is_empty = false;
        let path = Some(text(&real));
        if found.len() - before < MAX_LIBRARIES && found.iter().all(|known| known.path != path) {
            // Of one that cannot be read, or whose note makes no sense, nobody knows whom it serves.
            let note = RandomFile::open(&real).ok().and_then(|file| note(&file).ok()?);
            let release = path.as_deref().and_then(|path| path.rsplit_once("/libcuda.so."));
            let release = release.map(|(_, release)| release.to_string());
            let Note {
                cuda,
                drivers,
                devices,
            } = note.unwrap_or_default();
            found.push(Compat {
                folder: shown.to_string(),
                release: release.filter(|release| release.contains('.')),
                mapped: mapped == Some(real.as_path()),
                path,
                cuda,
                drivers,
                devices,
            });
        }
    }
    if is_empty {
        found.push(Compat {
            folder: shown.to_string(),
            ..Compat::default()
        });
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
