//! Which CUDA code the libraries of a folder carry.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use object::elf::SHT_NOBITS;
use serde::Serialize;

use super::bytes::{BytesError, RandomFile, Reader, Source};
use super::elf::{self, ElfError, Section};
use super::fatbin::{self, FatbinError, Fatbins, Linkage, Place, Served, Target};
use super::reading::{self, Reading};
use super::{threads, unread};
use crate::facts::ComputeCapability;
use crate::facts::kernels::PtxIsa;
use crate::order;
use crate::process::limits::ResourceLimit;
use crate::processor::OWN;

/// Deepest folder below the one that was named. site-packages needs about ten.
const MAX_DEPTH: usize = 64;
/// Most entries that are listed under one named folder.
const MAX_LISTED: usize = 5_000_000;
/// Most libraries that are scanned under one named folder.
const MAX_LIBRARIES: usize = 100_000;
/// Other kinds of files that may hold CUDA code. In a folder they are counted, so that nobody takes silence for none.
const OTHER_KINDS: [&str; 5] = [".a", ".cubin", ".fatbin", ".o", ".ptx"];
/// What one file carries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KernelTable {
    /// the file
    pub path: PathBuf,
    /// `.nv_fatbin`: what the CUDA runtime loads
    pub loadable: Fatbins,
    /// `__nv_relfatbin`: what `nvcc -rdc=true` leaves to be linked. Where `loadable` has nothing for a device, the
    /// driver links these at load time, if every one of them serves the device.
    pub relocatable: Fatbins,
}

impl KernelTable {
    /// Whether there is any section of CUDA code.
    pub fn has_cuda_code(&self) -> bool {
        self.loadable.count > 0 || self.relocatable.count > 0
    }

    /// Counts, with what serves each of `devices`.
    pub fn counts(&self, devices: &[ComputeCapability]) -> FileCounts {
        let relocatable = (self.relocatable.count > 0).then(|| RelocatableCounts {
            fatbins: self.relocatable.count,
            sass: self.relocatable.sass(),
            ptx: self.relocatable.ptx(),
            ptx_isa: self.relocatable.ptx_isa(),
            served: served(&self.relocatable, devices),
        });
        let mut other_kinds = self.loadable.other_kinds.clone();
        for (kind, count) in &self.relocatable.other_kinds {
            *other_kinds.entry(*kind).or_default() += count;
        }
        FileCounts {
            path: self.path.to_string_lossy().into_owned(),
            fatbins: self.loadable.count,
            with_kernels: self.loadable.with_kernels,
            compressed: self.loadable.unread,
            sass: self.loadable.sass(),
            ptx: self.loadable.ptx(),
            ptx_isa: self.loadable.ptx_isa(),
            served: served(&self.loadable, devices),
            other_kinds,
            relocatable,
        }
    }
}

fn served(fatbins: &Fatbins, devices: &[ComputeCapability]) -> BTreeMap<ComputeCapability, Served> {
    order::map(devices.iter().map(|&d| (d, fatbins.served(d))))
}

/// What one file carries, as the report shows it. All numbers count fat binaries; `sass`, `ptx` and `served` those
/// with kernels.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct FileCounts {
    /// the file; U+FFFD where its name is not UTF-8
    pub path: String,
    /// fat binaries that the CUDA runtime loads
    pub fatbins: u64,
    /// how many of them hold kernels
    pub with_kernels: u64,
    /// how many of those are counted because their cubins are compressed and long, so that they were not looked into
    #[serde(skip_serializing_if = "is_zero")]
    pub compressed: u64,
    /// with SASS, by architecture
    pub sass: BTreeMap<Target, u64>,
    /// with PTX, by architecture
    pub ptx: BTreeMap<Target, u64>,
    /// with PTX, by architecture and version of the PTX ISA
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ptx_isa: Vec<PtxIsa>,
    /// by capability, what serves it: SASS, or PTX alone. `with_kernels` less both cannot be used there.
    pub served: BTreeMap<ComputeCapability, Served>,
    /// entries that are neither PTX nor a cubin (8: LTO intermediate code), by their kind
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other_kinds: BTreeMap<u16, u64>,
    /// relocatable device code, which is not among the numbers above
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relocatable: Option<RelocatableCounts>,
}

// serde hands over a reference
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Relocatable device code of one file: parts of programs, of which the driver can link one for a device that each
/// part serves.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RelocatableCounts {
    /// fat binaries, one an object file
    pub fatbins: u64,
    /// with SASS, by architecture
    pub sass: BTreeMap<Target, u64>,
    /// with PTX, by architecture
    pub ptx: BTreeMap<Target, u64>,
    /// with PTX, by architecture and version of the PTX ISA
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ptx_isa: Vec<PtxIsa>,
    /// by capability, what serves it
    pub served: BTreeMap<ComputeCapability, Served>,
}

/// Why a file or folder could not be scanned.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}; {}", .path.display(), .reason.next_step())]
pub struct KernelsError {
    /// the file or folder
    pub path: PathBuf,
    /// what is wrong
    pub reason: Reason,
}

/// What is wrong with a file or folder.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// it cannot be opened or listed
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// as an ELF file
    #[error("{0}")]
    Elf(#[from] ElfError),
    /// as a file with CUDA code
    #[error("{0}")]
    Fatbin(#[from] FatbinError),
    /// a folder without end
    #[error("more than {0}")]
    TooMany(&'static str),
}

impl Reason {
    /// The system's number, where it was the system that could not read what is there.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io(error)
            | Self::Elf(ElfError::Bytes(BytesError::Io { source: error, .. }))
            | Self::Fatbin(FatbinError::Bytes(BytesError::Io { source: error, .. })) => {
                error.raw_os_error().filter(|_| !unread::is_absence(error))
            }
            _ => None,
        }
    }

    fn next_step(&self) -> String {
        let step = match self {
            Self::Io(error) => {
                ResourceLimit::of_io(error).map_or("check the path and its permissions", ResourceLimit::hint)
            }
            Self::Elf(ElfError::NotElf | ElfError::Foreign(..)) => {
                return format!(
                    "name a shared library, program or object file for {}, or a folder of them",
                    OWN.name
                );
            }
            Self::Elf(ElfError::NoSectionTable) => "scan the file as it was before it was stripped",
            Self::Fatbin(FatbinError::Version { .. }) => "a newer cuda-entrypoint may know it",
            Self::Elf(_) | Self::Fatbin(_) => "install the package that brought it again",
            Self::TooMany(_) => "name a smaller folder",
        };
        step.to_string()
    }
}

/// Scans one file. A file without CUDA code is an empty table, not an error.
///
/// # Errors
/// What cannot be opened, is no ELF file of this processor, or is damaged.
pub fn scan(path: &Path) -> Result<KernelTable, KernelsError> {
    let wrong = |reason| KernelsError {
        path: path.to_path_buf(),
        reason,
    };
    let _going = reading::begin(path);
    let file = RandomFile::open(path).map_err(|e| wrong(e.into()))?;
    let table = scan_source(&file).map_err(wrong)?;
    Ok(KernelTable {
        path: path.to_path_buf(),
        ..table
    })
}

/// [`scan`] of bytes; the table has no path.
///
/// # Errors
/// What is no ELF file of this processor, or is damaged.
pub fn scan_source(source: &dyn Source) -> Result<KernelTable, Reason> {
    let mut reader = Reader::new(source);
    let sections = sections_of(&mut reader)?;
    scan_with(&mut reader, &sections)
}

/// A section of CUDA code.
#[derive(Clone, Debug)]
pub struct CudaSection {
    section: Section,
    linkage: Linkage,
}

/// Where a file has CUDA code, at the cost of the section headers alone.
///
/// # Errors
/// What is no ELF file of this processor, or is damaged.
pub fn cuda_sections(source: &dyn Source) -> Result<Vec<CudaSection>, Reason> {
    sections_of(&mut Reader::new(source))
}

/// [`scan_source`] where the sections are known.
///
/// # Errors
/// What is damaged.
pub fn scan_sections(source: &dyn Source, sections: &[CudaSection]) -> Result<KernelTable, Reason> {
    scan_with(&mut Reader::new(source), sections)
}

/// Where the fat binaries with kernels of a file lie, in the order of their offsets.
///
/// # Errors
/// As [`scan`].
pub fn places(path: &Path) -> Result<Vec<Place>, KernelsError> {
    let wrong = |reason| KernelsError {
        path: path.to_path_buf(),
        reason,
    };
    let file = RandomFile::open(path).map_err(|e| wrong(e.into()))?;
    places_of(&file).map_err(wrong)
}

fn places_of(source: &dyn Source) -> Result<Vec<Place>, Reason> {
    let mut reader = Reader::new(source);
    let mut found = Vec::new();
    for CudaSection { section, linkage } in sections_of(&mut reader)? {
        if linkage == Linkage::Loadable {
            found.extend(fatbin::places(&mut reader, section.offset, section.size)?);
        }
    }
    Ok(found)
}

fn scan_with(reader: &mut Reader<'_>, sections: &[CudaSection]) -> Result<KernelTable, Reason> {
    let mut table = KernelTable::default();
    for CudaSection { section, linkage } in sections {
        let found = match linkage {
            Linkage::Loadable => &mut table.loadable,
            Linkage::Relocatable => &mut table.relocatable,
        };
        found.add(&fatbin::scan(reader, section.offset, section.size, *linkage)?);
    }
    Ok(table)
}

fn sections_of(reader: &mut Reader<'_>) -> Result<Vec<CudaSection>, Reason> {
    let file = elf::open_own(reader)?;
    if file.section_count() == 0 {
        return Err(ElfError::NoSectionTable.into());
    }
    let mut found = Vec::new();
    for index in 0..file.section_count() {
        let section = file.section(reader, index)?;
        // Files of debug symbols keep the headers of sections whose bytes are elsewhere.
        if section.size == 0 || section.kind == SHT_NOBITS {
            continue;
        }
        let linkage = if file.name_starts_with(reader, &section, b".nv_fatbin\0")? {
            Linkage::Loadable
        } else if file.name_starts_with(reader, &section, b"__nv_relfatbin\0")? {
            Linkage::Relocatable
        } else {
            continue;
        };
        found.push(CudaSection { section, linkage });
    }
    Ok(found)
}

/// What was found under the paths that were named, in the order of the paths.
#[derive(Debug, Default)]
pub struct Scanned {
    /// files with CUDA code, and those that were named themselves
    pub tables: Vec<KernelTable>,
    /// what could not be scanned
    pub errors: Vec<KernelsError>,
    /// files in folders that may hold CUDA code and were not read because of their kind: `.a`, `.cubin` and the like
    pub unread: BTreeMap<&'static str, HashSet<Identity>>,
    /// libraries in folders that hold nothing, as an interrupted copy leaves them
    pub empty: Vec<PathBuf>,
}

/// Device and inode: what a file is, by whichever name.
pub type Identity = (u64, u64);

/// Scans files and folders. In a folder every `*.so` and `*.so.*` below it is scanned, once; symbolic links in it are
/// followed to files but not to folders, files without CUDA code are left out, and so is what is no ELF file of this
/// machine. One file's error does not stop the others.
pub fn scan_all(paths: &[PathBuf], reading: &Reading) -> Scanned {
    let mut jobs = Vec::new();
    let mut scanned = Scanned::default();
    for path in paths {
        // Follows a symbolic link: it was named. What cannot be examined fails when it is opened, with its error.
        if path.metadata().is_ok_and(|m| m.is_dir()) {
            let found = list(path, &mut scanned, reading);
            jobs.extend(found.into_iter().map(|path| Job { path, named: false }));
        } else {
            jobs.push(Job {
                path: path.clone(),
                named: true,
            });
        }
    }
    let mut seen = HashSet::new();
    for outcome in run_jobs(&jobs, reading) {
        match outcome {
            Outcome::Table(identity, table) => {
                if seen.insert(identity) {
                    scanned.tables.push(table);
                }
            }
            Outcome::Failed(error) => scanned.errors.push(error),
            Outcome::LeftOut => {}
        }
    }
    scanned
}

struct Job {
    path: PathBuf,
    named: bool,
}

enum Outcome {
    Table(Identity, KernelTable),
    Failed(KernelsError),
    LeftOut,
}

/// The outcomes in the order of the jobs.
fn run_jobs(jobs: &[Job], reading: &Reading) -> Vec<Outcome> {
    if jobs.len() < 2 {
        return jobs.iter().map(|job| run_job(job, reading)).collect();
    }
    let next = Mutex::new(jobs.iter().enumerate());
    let outcomes = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            // The lock is only held to take a job; a thread that died with it took nothing.
            let job = next.lock().unwrap_or_else(|e| e.into_inner()).next();
            let Some((index, job)) = job else { return };
            let outcome = run_job(job, reading);
            outcomes
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .insert(index, outcome);
        }
    };
    threads::on_several(&work);
    let outcomes = outcomes.into_inner().unwrap_or_else(|e| e.into_inner());
    outcomes.into_values().collect()
}

fn run_job(job: &Job, reading: &Reading) -> Outcome {
    reading.at(&job.path);
    let _going = reading::begin(&job.path);
    let failed = |reason| {
        Outcome::Failed(KernelsError {
            path: job.path.clone(),
            reason,
        })
    };
    let file = match RandomFile::open(&job.path) {
        Ok(file) => file,
        Err(error) => return failed(error.into()),
    };
    match scan_source(&file) {
        Ok(table) if job.named || table.has_cuda_code() => Outcome::Table(
            file.identity(),
            KernelTable {
                path: job.path.clone(),
                ..table
            },
        ),
        Ok(_) => Outcome::LeftOut,
        // Linker scripts are called libc.so, and tools bring libraries for other machines.
        Err(Reason::Elf(ElfError::NotElf | ElfError::Foreign(..))) if !job.named => Outcome::LeftOut,
        Err(reason) => failed(reason),
    }
}

/// The libraries below `root`, each once, by its own name rather than a link's. Links to folders are not followed.
fn list(root: &Path, scanned: &mut Scanned, reading: &Reading) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(root, &mut found, scanned, reading);
    order::sort(&mut found);
    let mut seen = HashSet::new();
    found.retain(|library| seen.insert(library.identity));
    let mut paths: Vec<_> = found.into_iter().map(|library| library.path).collect();
    order::sort(&mut paths);
    paths
}

/// A library in a folder. The order puts files before the links to them.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Library {
    is_link: bool,
    path: PathBuf,
    identity: Identity,
}

fn walk(root: &Path, found: &mut Vec<Library>, scanned: &mut Scanned, reading: &Reading) {
    let mut folders = vec![(root.to_path_buf(), 0)];
    let mut listed = 0;
    while let Some((folder, depth)) = folders.pop() {
        let mut fail = |reason: Reason| {
            scanned.errors.push(KernelsError {
                path: folder.clone(),
                reason,
            });
        };
        reading.at(&folder);
        let _going = reading::begin(&folder);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                fail(error.into());
                continue;
            }
        };
        for entry in entries {
            let (entry, kind) = match entry.and_then(|e| Ok((e.file_type()?, e))) {
                Ok((kind, entry)) => (entry, kind),
                Err(error) => {
                    fail(error.into());
                    break;
                }
            };
            listed += 1;
            if listed > MAX_LISTED {
                return fail(Reason::TooMany("5,000,000 files"));
            }
            if kind.is_dir() {
                if depth >= MAX_DEPTH {
                    fail(Reason::TooMany("64 folders inside one another"));
                } else {
                    folders.push((entry.path(), depth + 1));
                }
                continue;
            }
            let name = entry.file_name();
            let other = other_kind(&name);
            if other.is_none() && !is_library(&name) {
                continue;
            }
            // Of a link, what it leads to; one that leads nowhere is nothing that could be loaded.
            let path = entry.path();
            let Some(metadata) = path.metadata().ok().filter(Metadata::is_file) else {
                continue;
            };
            let identity = (metadata.dev(), metadata.ino());
            if let Some(other) = other {
                scanned.unread.entry(other).or_default().insert(identity);
                continue;
            }
            if metadata.len() == 0 {
                scanned.empty.push(path);
                continue;
            }
            if found.len() >= MAX_LIBRARIES {
                return fail(Reason::TooMany("100,000 libraries"));
            }
            found.push(Library {
                is_link: kind.is_symlink(),
                path,
                identity,
            });
        }
    }
}

/// The ending of a name that stands for CUDA code in something else than a library.
fn other_kind(name: &OsStr) -> Option<&'static str> {
    let name = name.as_bytes();
    OTHER_KINDS
        .into_iter()
        .find(|ending| name.ends_with(ending.as_bytes()))
}

/// `*.so` or `*.so.*`
pub(crate) fn is_library(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".so") || name.windows(4).any(|w| w == b".so.")
}

#[cfg(test)]
mod tests;
