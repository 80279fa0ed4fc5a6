//! The libraries with CUDA code in the folders of an environment, and which distribution brought each.
//!
//! Every folder but those of headers and bytecode is listed and every `*.so` is opened, since a CUDA extension may have
//! any name; but of a library only the headers are read.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};

use super::bytes::{RandomFile, Source};
use super::elf::ElfError;
use super::extensions::{self, Object};
use super::fatbin::{CodeKind, Fatbins, Target, Variant};
use super::kernels::{self, CudaSection, KernelTable, Reason};
use super::reading::{self, Reading};
use super::requirement::normalize_name;
use super::{installed, record, threads, wheels};
use crate::facts::extensions::{Extension, Extensions};
use crate::facts::kernels::{PtxIsa, Served};
use crate::facts::{ComputeCapability, Distribution, ModuleKernels, Python};
use crate::order;
use crate::packages::{PACKAGES, untagged};
use crate::processor::OWN;

/// Deepest folder below a folder of `sys.path`. A full torch environment needs eleven.
const MAX_DEPTH: usize = 32;
/// Most entries that are listed in all folders together, at less than a second. A folder of `sys.path` that a `.pth`
/// names may hold a data set as well.
const MAX_LISTED: usize = 500_000;
/// Most libraries that are opened. A full torch environment has about a thousand.
const MAX_LIBRARIES: usize = 50_000;

/// Names with which NVIDIA's own libraries begin, where another wheel bundles them (torch/lib, tensorrt_libs).
const VENDOR_NAMES: [&str; 20] = [
    "libcublas",
    "libcudart",
    "libcudnn",
    "libcudss",
    "libcufft",
    "libcupti",
    "libcurand",
    "libcusolver",
    "libcusparse",
    "libcutensor",
    "libnccl",
    "libnpp",
    "libnvinfer",
    "libnvjitlink",
    "libnvjpeg",
    "libnvonnxparser",
    "libnvrtc",
    "libnvshmem",
    "libnvtoolsext",
    "libnvvm",
];

/// Every library with CUDA code in the folders of `python`, each file once, in the order of their paths. Libraries that are
/// damaged come along with their error, since nobody can tell what they hold. Links to libraries are followed, as
/// installers leave them, and links to folders where a package itself is one; others may lead to data without end.
/// `listed` are the capabilities that are counted.
///
/// With `named`, also of these files, whose names may be any.
///
/// With `symbols`, likewise what each library asks of others; `library_path` is LD_LIBRARY_PATH.
pub fn scan(
    python: &Python,
    named: &[PathBuf],
    listed: &[ComputeCapability],
    reading: &Reading,
    symbols: bool,
    library_path: Option<&str>,
) -> Scanned {
    let State {
        mut found,
        mut objects,
        mut unscanned,
        ..
    } = find(&python.site_packages, named, reading);
    // Of several names of one file one is shown, rather its own than a link's.
    order::sort_by(&mut unscanned, |a, b| {
        (!a.named, a.linked, &a.path).cmp(&(!b.named, b.linked, &b.path))
    });
    let mut seen = HashSet::new();
    unscanned.retain(|library| seen.insert(library.identity));
    order::sort_by(&mut objects, |a, b| a.path.cmp(&b.path));
    let with_code: HashSet<&Path> = unscanned
        .iter()
        .filter(|library| !library.vendor && !library.sections.is_empty())
        .map(|library| library.path.as_path())
        .collect();
    let search = symbols.then(|| extensions::Search::new(&objects, python, library_path, &with_code));
    let asked = search.as_ref().map_or(&[][..], extensions::Search::asked);
    // Kernels before symbols and large libraries first: spconv's kernels take as long as all small libraries together.
    let size_of = |at: &usize| objects.get(*at).map_or(0, |object| object.size);
    let kernels = unscanned
        .iter()
        .map(|library| (Job::Kernels(library), library.size));
    let symbols = asked.iter().map(|at| (Job::Symbols(*at), size_of(at)));
    let mut jobs: Vec<(Job, u64)> = kernels.chain(symbols).collect();
    order::sort_by(&mut jobs, |(a, large), (b, small)| {
        let is_symbols = |job: &Job| matches!(job, Job::Symbols(_));
        (is_symbols(a), small).cmp(&(is_symbols(b), large))
    });
    let mut looked = Vec::new();
    let search_ref = search.as_ref();
    let outcomes = threads::each(&jobs, |(job, _)| match job {
        Job::Kernels(library) => Outcome::Kernels(library.scan(listed, reading)),
        Job::Symbols(at) => Outcome::Symbols(*at, search_ref.and_then(|search| search.look(*at))),
    });
    for outcome in outcomes {
        match outcome {
            Outcome::Kernels(module) => found.push(module),
            Outcome::Symbols(at, extension) => looked.push((at, extension)),
        }
    }
    order::sort_by(&mut found, |a, b| a.path.cmp(&b.path));
    Scanned {
        kernels: found,
        extensions: search.map(|search| search.conclude(looked)),
    }
}

/// Lists the folders and opens each library.
fn find(site_packages: &[String], named: &[PathBuf], reading: &Reading) -> State {
    let search = Search {
        reading,
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
    };
    for folder in site_packages {
        let root = PathBuf::from(folder);
        search.lock().work.push(Work::Folder(Folder {
            vendor: false,
            cpu_builds: false,
            linked: false,
            depth: 0,
            path: root,
        }));
    }
    for path in named {
        let name = path.file_name().unwrap_or_default();
        search.lock().work.push(Work::Library(Library {
            path: path.clone(),
            linked: false,
            vendor: is_vendors(name),
            cpu_builds: false,
            named: true,
        }));
    }
    threads::on_several(&|| search.run());
    search.state.into_inner().unwrap_or_else(|e| e.into_inner())
}

/// What the libraries of an environment say of themselves, in the order of their paths.
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    /// those with CUDA code
    pub kernels: Vec<ModuleKernels>,
    /// what they ask of others
    pub extensions: Option<Extensions>,
}

/// What is done with a library once all are known.
enum Job<'a> {
    Kernels(&'a Unscanned),
    Symbols(usize),
}

enum Outcome {
    Kernels(ModuleKernels),
    Symbols(usize, Option<Extension>),
}

/// A library with CUDA code that was not read yet.
struct Unscanned {
    identity: Identity,
    /// by way of a symbolic link
    linked: bool,
    path: PathBuf,
    /// length of the file, in bytes
    size: u64,
    /// NVIDIA's own, which are not read
    vendor: bool,
    named: bool,
    sections: Vec<CudaSection>,
}

impl Unscanned {
    fn scan(&self, listed: &[ComputeCapability], reading: &Reading) -> ModuleKernels {
        let path = self.path.to_string_lossy().into_owned();
        if self.vendor {
            return ModuleKernels {
                path,
                vendor: true,
                named: self.named,
                ..ModuleKernels::default()
            };
        }
        reading.at(&self.path);
        let _going = reading::begin(&self.path);
        let file = RandomFile::open(&self.path).map_err(Reason::from);
        match file.and_then(|file| kernels::scan_sections(&file, &self.sections)) {
            Ok(table) => ModuleKernels {
                path,
                named: self.named,
                ..module_of(&table, listed)
            },
            Err(reason) => ModuleKernels {
                named: self.named,
                ..unreadable(&self.path, &reason)
            },
        }
    }
}

/// A module that could not be read.
fn unreadable(path: &Path, reason: &Reason) -> ModuleKernels {
    ModuleKernels {
        path: path.to_string_lossy().into_owned(),
        error: Some(reason.to_string()),
        errno: reason.errno(),
        ..ModuleKernels::default()
    }
}

struct Folder {
    path: PathBuf,
    depth: usize,
    /// below `site-packages/nvidia`
    vendor: bool,
    /// in a package of which a source build without nvcc is for the CPU alone and does not say so: its libraries are
    /// facts even without CUDA code, so that it can be told
    cpu_builds: bool,
    linked: bool,
}

struct Library {
    path: PathBuf,
    linked: bool,
    vendor: bool,
    cpu_builds: bool,
    /// by the manifest, so that what it is not is an error
    named: bool,
}

enum Work {
    Folder(Folder),
    Library(Library),
}

/// A file by its device and inode.
type Identity = (u64, u64);

#[derive(Default)]
struct State {
    work: Vec<Work>,
    /// threads that may still add work
    busy: usize,
    listed: usize,
    libraries: usize,
    /// what could not be read
    found: Vec<ModuleKernels>,
    objects: Vec<Object>,
    unscanned: Vec<Unscanned>,
    full: bool,
}

struct Search<'a> {
    reading: &'a Reading,
    state: Mutex<State>,
    changed: Condvar,
}

impl Search<'_> {
    /// A thread that died with the lock left whole entries alone.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Works until there is no more, and nobody who could find more.
    fn run(&self) {
        let mut state = self.lock();
        loop {
            let Some(work) = state.work.pop() else {
                if state.busy == 0 {
                    self.changed.notify_all();
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
                continue;
            };
            state.busy += 1;
            drop(state);
            let done = match work {
                Work::Folder(folder) => self.list(&folder),
                Work::Library(library) => self.open(&library),
            };
            state = self.lock();
            state.busy -= 1;
            state.found.extend(done.found);
            state.objects.extend(done.object);
            state.unscanned.extend(done.unscanned);
            let more = !done.work.is_empty();
            state.work.extend(done.work);
            if more || state.busy == 0 {
                self.changed.notify_all();
            }
        }
    }

    fn list(&self, folder: &Folder) -> Done {
        let wrong = |reason: Reason| Done::error(&folder.path, &reason);
        self.reading.at(&folder.path);
        let _going = reading::begin(&folder.path);
        let entries = match std::fs::read_dir(&folder.path) {
            Ok(entries) => entries,
            // A folder of `sys.path` need not exist.
            Err(e) if folder.depth == 0 && e.kind() == io::ErrorKind::NotFound => return Done::default(),
            Err(e) => return wrong(e.into()),
        };
        let mut done = Done::default();
        let mut libraries = Vec::new();
        let mut count = 0;
        for entry in entries {
            let (kind, entry) = match entry.and_then(|e| Ok((e.file_type()?, e))) {
                Ok(known) => known,
                // It vanished meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return wrong(e.into()),
            };
            count += 1;
            if count > MAX_LISTED {
                break;
            }
            let name = entry.file_name();
            let is_folder =
                kind.is_dir() || (kind.is_symlink() && folder.depth == 0 && entry.path().is_dir());
            if is_folder {
                if !holds_no_library(&name, folder.depth) {
                    done.work.push(Work::Folder(Folder {
                        path: entry.path(),
                        depth: folder.depth + 1,
                        vendor: folder.vendor
                            || (folder.depth == 0 && name.as_bytes().starts_with(b"nvidia")),
                        linked: folder.linked || kind.is_symlink(),
                        cpu_builds: folder.cpu_builds || may_be_for_the_cpu(&name),
                    }));
                }
            } else if (kind.is_file() || kind.is_symlink()) && kernels::is_library(&name) {
                libraries.push(Work::Library(Library {
                    path: entry.path(),
                    linked: folder.linked || kind.is_symlink(),
                    vendor: folder.vendor || is_vendors(&name),
                    cpu_builds: folder.cpu_builds,
                    named: false,
                }));
            }
        }
        if folder.depth >= MAX_DEPTH && !done.work.is_empty() {
            done = wrong(Reason::TooMany("32 folders inside one another"));
        }
        let mut state = self.lock();
        state.listed = state.listed.saturating_add(count);
        state.libraries = state.libraries.saturating_add(libraries.len());
        if state.listed > MAX_LISTED || state.libraries > MAX_LIBRARIES {
            let first = !std::mem::replace(&mut state.full, true);
            state.work.clear();
            return match first {
                true => wrong(Reason::TooMany("500,000 files or 50,000 libraries")),
                false => Done::default(),
            };
        }
        drop(state);
        done.work.extend(libraries);
        done
    }

    fn open(&self, library: &Library) -> Done {
        let wrong = |reason: Reason| {
            let mut done = Done::error(&library.path, &reason);
            if let Some(found) = &mut done.found {
                found.named = library.named;
            }
            done
        };
        self.reading.at(&library.path);
        let _going = reading::begin(&library.path);
        let file = match RandomFile::open(&library.path) {
            Ok(file) => file,
            // A link that leads nowhere, or to something else than a file.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                return Done::default();
            }
            Err(e) => return wrong(e.into()),
        };
        let object = Object::read(&library.path, &file);
        let unscanned = match kernels::cuda_sections(&file) {
            Ok(sections) if !sections.is_empty() || (library.cpu_builds && !library.vendor) => {
                Some(Unscanned {
                    identity: file.identity(),
                    linked: library.linked,
                    path: library.path.clone(),
                    size: file.size(),
                    vendor: library.vendor,
                    named: library.named,
                    sections,
                })
            }
            Ok(_) => None,
            Err(reason) if !library.named && is_other_file(&reason, &library.path) => return Done::default(),
            // Its dynamic section may be whole all the same.
            Err(reason) => {
                return Done {
                    object,
                    ..wrong(reason)
                };
            }
        };
        Done {
            object,
            unscanned,
            ..Done::default()
        }
    }
}

/// What one piece of work came to.
#[derive(Default)]
struct Done {
    found: Option<ModuleKernels>,
    object: Option<Object>,
    unscanned: Option<Unscanned>,
    work: Vec<Work>,
}

impl Done {
    fn error(path: &Path, reason: &Reason) -> Self {
        Self {
            found: Some(unreadable(path, reason)),
            ..Self::default()
        }
    }
}

/// Folders that nothing loads a library from, and that have three quarters of all entries: torch/include alone has
/// 9,000. A package may be called anything, so that `include` counts below one alone.
pub(super) fn holds_no_library(name: &OsStr, depth: usize) -> bool {
    let name = name.as_bytes();
    name == b"__pycache__"
        || (depth > 0 && name == b"include")
        || name.ends_with(b".dist-info")
        || name.ends_with(b".egg-info")
}

fn may_be_for_the_cpu(folder: &OsStr) -> bool {
    let mut packages = PACKAGES.iter();
    packages.any(|p| folder == p.folder && p.silent_cpu_build.get().is_some())
}

pub(super) fn is_vendors(name: &OsStr) -> bool {
    let name = name.as_bytes();
    VENDOR_NAMES.iter().any(|vendor| {
        name.get(..vendor.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(vendor.as_bytes()))
    })
}

/// Linker scripts are called `libc.so`, and tools bring libraries for other machines. But an extension of CPython is
/// this machine's ELF file.
fn is_other_file(reason: &Reason, path: &Path) -> bool {
    let name = path.file_name().map_or(&b""[..], |n| n.as_bytes());
    let extension = name
        .strip_suffix(b".so")
        .is_some_and(|stem| stem.ends_with(OWN.triplet.as_bytes()))
        || name.ends_with(b".abi3.so");
    match reason {
        Reason::Elf(ElfError::NotElf | ElfError::Foreign(..)) => !extension,
        _ => false,
    }
}

fn module_of(table: &KernelTable, listed: &[ComputeCapability]) -> ModuleKernels {
    let (loadable, parts) = (&table.loadable, &table.relocatable);
    // What is linked at build time lies in `loadable`; only where nothing does, the driver links the parts.
    if loadable.with_kernels > 0 || parts.count == 0 {
        return ModuleKernels {
            fatbins: loadable.count,
            with_kernels: loadable.with_kernels,
            sass: loadable.sass(),
            ptx: loadable.ptx(),
            ptx_isa: loadable.ptx_isa(),
            served: order::map(listed.iter().map(|&cc| (cc, loadable.served(cc)))),
            ..ModuleKernels::default()
        };
    }
    let linked = |cc| linked(parts, cc);
    let (mut sass, mut ptx, mut ptx_isa) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let targets = order::set(parts.sass().into_keys().chain(parts.ptx().into_keys()));
    for target in targets {
        match linked(target.capability) {
            Some(CodeKind::Sass) => drop(sass.insert(target, parts.count)),
            Some(CodeKind::Ptx) => {
                let plain = Target {
                    variant: Variant::Plain,
                    ..target
                };
                ptx.insert(plain, parts.count);
                ptx_isa.extend(parts.needed_isa(target.capability).map(|version| PtxIsa {
                    arch: plain,
                    version,
                    fatbins: parts.count,
                }));
            }
            None => {}
        }
    }
    let count = |cc| match linked(cc) {
        Some(CodeKind::Sass) => Served {
            sass: parts.count,
            ptx: 0,
        },
        Some(CodeKind::Ptx) => Served {
            sass: 0,
            ptx: parts.count,
        },
        None => Served::default(),
    };
    ModuleKernels {
        fatbins: loadable.count.saturating_add(parts.count),
        with_kernels: parts.count,
        sass,
        ptx,
        ptx_isa,
        served: order::map(listed.iter().map(|&cc| (cc, count(cc)))),
        ..ModuleKernels::default()
    }
}

/// What the driver can make of parts for a device: it needs every one of them.
fn linked(parts: &Fatbins, device: ComputeCapability) -> Option<CodeKind> {
    let served = parts.served(device);
    if served.sass == parts.count {
        Some(CodeKind::Sass)
    } else if served.sass.saturating_add(served.ptx) == parts.count {
        Some(CodeKind::Ptx)
    } else {
        None
    }
}

/// Says of each module which distribution brought it, by the name of its folder or file in site-packages: `spconv` and
/// `spconv_cu124.libs` are spconv-cu124's, `torch_scatter` is torch-scatter's, `nvidia/cublas` is nvidia-cublas-cu12's.
/// Where no name fits, the distributions' `top_level.txt` are asked, and at last RECORD, which has a line for each file
/// and takes its time to read: `lib/mscclpp.so` is sgl-kernel's.
pub fn attribute(
    modules: &mut [ModuleKernels],
    extensions: Option<&mut Extensions>,
    site_packages: &[String],
    distributions: &[Distribution],
) {
    let mut owners = Owners {
        distributions,
        known: BTreeMap::new(),
        top_levels: None,
        records: Vec::new(),
    };
    for module in modules {
        // NVIDIA's own are not judged, whoever brought them.
        module.package = owners.of_path(&module.path, site_packages, !module.vendor);
    }
    for extension in extensions.map(|all| &mut all.unresolved).into_iter().flatten() {
        extension.package = owners.of_path(&extension.path, site_packages, true);
    }
}

/// The folder of `sys.path` that a path lies in, and the path below it.
pub(super) fn below_site<'a, 'p>(path: &'p str, site_packages: &'a [String]) -> Option<(&'a str, &'p str)> {
    let below = site_packages.iter().filter_map(|folder| {
        let rest = path
            .strip_prefix(folder.trim_end_matches('/'))?
            .strip_prefix('/')?;
        Some((folder.as_str(), rest))
    });
    below.min_by_key(|(_, rest)| rest.len())
}

/// The folder of `sys.path` that a path lies in, the path below it, and the first name in that without what wheels add
/// to it.
fn top_name<'a, 'p>(path: &'p str, site_packages: &'a [String]) -> Option<(&'a str, &'p str, String)> {
    let (folder, rest) = below_site(path, site_packages)?;
    let mut parts = rest.split('/');
    let first = parts.next()?;
    let second = parts.next();
    let base = match (first, second) {
        ("nvidia", Some(second)) => format!("nvidia-{second}"),
        (name, Some(_)) => name.strip_suffix(".libs").unwrap_or(name).to_string(),
        // pointops_cuda.cpython-311-x86_64-linux-gnu.so
        (name, None) => name.split('.').next().unwrap_or(name).to_string(),
    };
    Some((folder, rest, base))
}

struct Owners<'a> {
    distributions: &'a [Distribution],
    known: BTreeMap<(String, String), Option<String>>,
    /// names in the `top_level.txt` of each distribution; read when a name asks for it first
    top_levels: Option<Vec<(String, &'a Distribution)>>,
    /// by folder, whose each library is; read when no name fits
    records: Vec<(String, Vec<(String, String)>)>,
}

impl<'a> Owners<'a> {
    fn of_path(&mut self, path: &str, site_packages: &[String], by_record: bool) -> Option<String> {
        let (folder, rest, base) = top_name(path, site_packages)?;
        let named = self.of(folder, &base);
        named.or_else(|| by_record.then(|| self.by_record(folder, rest)).flatten())
    }

    fn of(&mut self, folder: &str, base: &str) -> Option<String> {
        let key = (folder.to_string(), base.to_string());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let owner = self
            .by_name(folder, base)
            .or_else(|| self.by_top_level(folder, base))
            .or_else(|| {
                // flash_attn_2_cuda, pointops_ext
                let stem = base.trim_end_matches("_cuda").trim_end_matches("_ext");
                let stem = stem.trim_end_matches(|c: char| c == '_' || c.is_ascii_digit());
                (stem != base).then(|| self.by_name(folder, stem))?
            })
            .map(|dist| dist.name.clone());
        self.known.insert(key, owner.clone());
        owner
    }

    /// Distributions of the same folder first: a second folder may hold another build.
    fn in_order(&self, folder: &str) -> impl Iterator<Item = &'a Distribution> {
        let here = move |dist: &&Distribution, folder: &str| {
            Path::new(&dist.path).parent() == Some(Path::new(folder))
        };
        let own = folder.to_string();
        let others = folder.to_string();
        let first = self.distributions.iter().filter(move |d| here(d, &own));
        let then = self.distributions.iter().filter(move |d| !here(d, &others));
        first.chain(then)
    }

    fn by_name(&self, folder: &str, base: &str) -> Option<&'a Distribution> {
        let wanted = normalize_name(base);
        let wanted = wanted.trim_matches('-');
        let same = |dist: &&Distribution| dist.name == wanted;
        let tagged = |dist: &&Distribution| untagged(&dist.name) == Some(wanted);
        // Those of CUDA 13, which have no tag, lie in nvidia/cu13.
        if wanted.starts_with("nvidia-")
            && let Some(dist) = self.in_order(folder).find(tagged)
        {
            return Some(dist);
        }
        (self.in_order(folder).find(same)).or_else(|| self.in_order(folder).find(tagged))
    }

    /// By the RECORDs of one folder that are not those of pure Python.
    fn by_record(&mut self, folder: &str, rest: &str) -> Option<String> {
        if !self.records.iter().any(|(known, _)| known == folder) {
            let mut libraries = Vec::new();
            for dist in self.distributions {
                let path = Path::new(&dist.path);
                let is_pure = |tag: &String| tag.ends_with("-any");
                if path.parent() != Some(Path::new(folder))
                    || (!dist.tags.is_empty() && dist.tags.iter().all(is_pure))
                {
                    continue;
                }
                let text = installed::record_text(path);
                let found = record::parse(&text).libraries.into_iter();
                libraries.extend(found.map(|library| (library.into_owned(), dist.name.clone())));
            }
            self.records.push((folder.to_string(), libraries));
        }
        let (_, libraries) = self.records.iter().find(|(known, _)| known == folder)?;
        let (_, owner) = libraries.iter().find(|(library, _)| library == rest)?;
        Some(owner.clone())
    }

    fn by_top_level(&mut self, folder: &str, base: &str) -> Option<&'a Distribution> {
        let distributions = self.distributions;
        let names = self.top_levels.get_or_insert_with(|| {
            let mut names = Vec::new();
            for dist in distributions {
                names.extend(wheels::top_level(dist).into_iter().map(|name| (name, dist)));
            }
            names
        });
        let here = |dist: &Distribution| Path::new(&dist.path).parent() == Some(Path::new(folder));
        names
            .iter()
            .find(|(name, dist)| name == base && here(dist))
            .map(|(_, dist)| *dist)
    }
}

#[cfg(test)]
mod tests;
