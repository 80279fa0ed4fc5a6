//! The copies of libcudart and libnvrtc that programs of this image may load.
//!
//! Wheels carry them in a few known places, so no tree is walked: `nvidia/cuda_runtime/lib` and `nvidia/cu13/lib`
//! (NVIDIA's wheels), `NAME.libs` (what auditwheel repaired), `torch/lib` (builds that bundle them), and a conda
//! environment's `lib`. Only where none of these has a copy does the system's loader decide.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::files;
use crate::facts::{CudaVersion, Library, LibraryKind, LibraryOrigin};
use crate::stack::{CudaRule, CudaRules};

/// A library to look for.
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted {
    /// which one
    pub kind: LibraryKind,
    /// the CUDA major versions whose SONAMEs the loader is asked for where no wheel has a copy; newest first
    pub majors: Vec<u16>,
}

impl Wanted {
    /// What a manifest asks for; a library without a rule is not looked for.
    pub fn by(rules: &CudaRules) -> Vec<Self> {
        [
            (LibraryKind::Cudart, &rules.runtime),
            (LibraryKind::Nvrtc, &rules.nvrtc),
        ]
        .into_iter()
        .filter_map(|(kind, rule)| {
            rule.as_ref().map(|rule| Self {
                kind,
                majors: majors(rule),
            })
        })
        .collect()
    }
}

/// The majors of the known releases that a rule accepts; its own where that is newer than all known ones.
fn majors(rule: &CudaRule) -> Vec<u16> {
    let known: Vec<u16> = (10..=14)
        .rev()
        .filter(|&major| (0..=9).any(|minor| rule.matches(CudaVersion { major, minor })))
        .collect();
    if known.is_empty() {
        rule.major().into_iter().collect()
    } else {
        known
    }
}

/// The SONAME of a library. Up to CUDA 11 it held a minor version, and 11 froze at the first one that kept its ABI.
///
/// Source: CUDA C++ Best Practices Guide, "CUDA Compatibility and Upgrades"; NVRTC User Guide, "Versioning Scheme".
fn soname(kind: LibraryKind, major: u16) -> String {
    match (kind, major) {
        (LibraryKind::Cudart, 11) => "libcudart.so.11.0".into(),
        (LibraryKind::Nvrtc, 11) => "libnvrtc.so.11.2".into(),
        (kind, 10) => format!("{}.so.10.2", stem(kind)),
        (kind, major) => format!("{}.so.{major}", stem(kind)),
    }
}

fn stem(kind: LibraryKind) -> &'static str {
    match kind {
        LibraryKind::Cudart => "libcudart",
        LibraryKind::Nvrtc => "libnvrtc",
    }
}

/// Which library a file's name says that it is: `libcudart.so.12`, auditwheel's `libcudart-8774224f.so.12.4.127` and
/// torchvision's `libcudart.41118559.so.12`, but not `libnvrtc-builtins` nor `libcudart_static.a`.
pub fn kind_of(name: &str) -> Option<LibraryKind> {
    let kind = [LibraryKind::Cudart, LibraryKind::Nvrtc]
        .into_iter()
        .find(|&kind| name.starts_with(stem(kind)))?;
    let rest = name.strip_prefix(stem(kind))?;
    if rest.starts_with("-builtins") || !rest.starts_with(['.', '-']) {
        return None;
    }
    let (_, version) = rest.split_once(".so")?;
    (version.is_empty() || version.starts_with('.')).then_some(kind)
}

/// Where to look.
#[derive(Clone, PartialEq, Debug)]
pub struct Places<'a> {
    /// the folders of `sys.path` that can hold distributions, in order
    pub site_packages: &'a [String],
    /// `sys.prefix`; its `lib` counts where it is a conda environment
    pub prefix: Option<&'a Path>,
    /// the folder that holds CUDA toolkits as `cuda` and `cuda-12.4`: `/usr/local`
    pub toolkits: &'a Path,
}

/// Every copy of the wanted libraries, each file once: wheels' copies in the order of the folders; and for a kind
/// that has none, what the loader is to be asked for and the copies of toolkits. Answers are left open.
pub fn runtime_copies(places: &Places<'_>, wanted: &[Wanted]) -> Vec<Library> {
    let mut search = Search {
        wanted,
        seen: BTreeSet::new(),
        found: Vec::new(),
    };
    for folder in places.site_packages {
        search.site_packages(Path::new(folder));
    }
    if let Some(prefix) = places.prefix.filter(|p| p.join("conda-meta").is_dir()) {
        search.folder(&prefix.join("lib"), LibraryOrigin::Wheel);
    }
    let orphans: Vec<Wanted> = wanted
        .iter()
        .filter(|w| search.found.iter().all(|l| l.kind != w.kind))
        .cloned()
        .collect();
    let mut found = search.found;
    for orphan in &orphans {
        found.extend(orphan.majors.iter().map(|&major| Library {
            kind: orphan.kind,
            path: soname(orphan.kind, major),
            origin: LibraryOrigin::Loader,
            answer: None,
        }));
    }
    if !orphans.is_empty() {
        found.extend(toolkit_copies(places.toolkits, &orphans));
    }
    // One kind after the other, and within a kind the order in which they were found.
    found.sort_by_key(|l| l.kind);
    found
}

fn toolkit_copies(parent: &Path, wanted: &[Wanted]) -> Vec<Library> {
    let mut search = Search {
        wanted,
        seen: BTreeSet::new(),
        found: Vec::new(),
    };
    for entry in files::list(parent).unwrap_or_default() {
        if entry.may_be_dir()
            && entry
                .text()
                .is_some_and(|n| n == "cuda" || n.starts_with("cuda-"))
        {
            let root = parent.join(&entry.name);
            for lib in ["lib64", "targets/x86_64-linux/lib"] {
                search.folder(&root.join(lib), LibraryOrigin::Toolkit);
            }
        }
    }
    search.found
}

struct Search<'a> {
    wanted: &'a [Wanted],
    /// canonical paths: `libcudart.so` and `libcudart.so.12` are often links to one file
    seen: BTreeSet<PathBuf>,
    found: Vec<Library>,
}

impl Search<'_> {
    fn site_packages(&mut self, folder: &Path) {
        self.folder(folder, LibraryOrigin::Wheel);
        for entry in files::list(folder).unwrap_or_default() {
            let Some(name) = entry.text() else { continue };
            if !entry.may_be_dir() || name.ends_with("-info") || name == "__pycache__" {
                continue;
            }
            let path = folder.join(name);
            if name.ends_with(".libs") {
                self.folder(&path, LibraryOrigin::Wheel);
                continue;
            }
            self.folder(&path.join("lib"), LibraryOrigin::Wheel);
            if name == "nvidia" {
                for part in files::list(&path).unwrap_or_default() {
                    if part.may_be_dir() {
                        self.folder(&path.join(part.name).join("lib"), LibraryOrigin::Wheel);
                    }
                }
            }
        }
    }

    /// Takes the copies that lie in a folder itself.
    fn folder(&mut self, folder: &Path, origin: LibraryOrigin) {
        let Ok(entries) = files::list(folder) else { return };
        for entry in entries {
            // Only the helper's dlopen could say more about a name that is not text; none of these libraries has one.
            let Some(kind) = entry.text().and_then(kind_of) else {
                continue;
            };
            if self.wanted.iter().all(|w| w.kind != kind) {
                continue;
            }
            let path = folder.join(&entry.name);
            // A broken link is passed over, as the loader does; a folder of that name, or a link to itself, ends its
            // search with an error, so it is a copy that the helper has to be told of.
            let real = match path.canonicalize() {
                Ok(real) => real,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(_) => path.clone(),
            };
            let Some(text) = path.to_str() else { continue };
            if self.seen.insert(real) {
                self.found.push(Library {
                    kind,
                    path: text.to_string(),
                    origin,
                    answer: None,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn touch(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    fn both(majors: &[u16]) -> Vec<Wanted> {
        [LibraryKind::Cudart, LibraryKind::Nvrtc]
            .map(|kind| Wanted {
                kind,
                majors: majors.to_vec(),
            })
            .to_vec()
    }

    /// Paths below `root`, with the origin's first letter.
    fn seen(root: &Path, site: &str, prefix: Option<&str>, wanted: &[Wanted]) -> Vec<String> {
        let folders = [root.join(site).to_str().unwrap().to_string()];
        let prefix = prefix.map(|p| root.join(p));
        let places = Places {
            site_packages: &folders,
            prefix: prefix.as_deref(),
            toolkits: &root.join("usr/local"),
        };
        let strip = |l: Library| {
            let path = l.path.strip_prefix(root.to_str().unwrap()).unwrap_or(&l.path);
            let origin = format!("{:?}", l.origin);
            format!("{} {path}", &origin[..1])
        };
        runtime_copies(&places, wanted).into_iter().map(strip).collect()
    }

    #[test]
    fn names_of_copies() {
        for (name, kind) in [
            ("libcudart.so", Some(LibraryKind::Cudart)),
            ("libcudart.so.12", Some(LibraryKind::Cudart)),
            ("libcudart.so.11.0", Some(LibraryKind::Cudart)),
            ("libcudart-8774224f.so.12.4.127", Some(LibraryKind::Cudart)),
            ("libcudart.41118559.so.12", Some(LibraryKind::Cudart)),
            ("libnvrtc-6d168ef8.so.12.4.127", Some(LibraryKind::Nvrtc)),
            ("libnvrtc.alt.so.12", Some(LibraryKind::Nvrtc)),
            ("libnvrtc-builtins.so.12.4", None),
            ("libnvrtc-builtins-4425561a.so.12.4.127", None),
            ("libcudart_static.a", None),
            ("libcudart.so_old", None),
            ("libcudart", None),
            ("libcuda.so.1", None),
            ("", None),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
        }
    }

    #[test]
    fn wheels_bring_copies_in_many_places() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for path in [
            "sp/nvidia/cuda_runtime/lib/libcudart.so.12",
            "sp/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
            "sp/nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.4",
            "sp/nvidia/cu13/lib/libcudart.so.13",
            "sp/spconv_cu124.libs/libcudart-8774224f.so.12.4.127",
            "sp/torch/lib/libcudart-e409450e.so.11.0",
            "sp/libcudart.so.10.2",
            "sp/a/b/lib/libcudart.so.9",
            "usr/local/cuda-12.4/lib64/libcudart.so.12",
        ] {
            touch(root, path);
        }
        let expected = [
            "W /sp/libcudart.so.10.2",
            "W /sp/nvidia/cu13/lib/libcudart.so.13",
            "W /sp/nvidia/cuda_runtime/lib/libcudart.so.12",
            "W /sp/spconv_cu124.libs/libcudart-8774224f.so.12.4.127",
            "W /sp/torch/lib/libcudart-e409450e.so.11.0",
            "W /sp/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
        ];
        assert_eq!(seen(root, "sp", None, &both(&[12])), expected);
        assert_eq!(seen(root, "sp", None, &both(&[12])[1..]), expected[5..]);
    }

    #[test]
    fn without_a_wheel_the_loader_is_asked_and_toolkits_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        touch(
            root,
            "usr/local/cuda-12.4/targets/x86_64-linux/lib/libcudart.so.12.4.127",
        );
        let lib = root.join("usr/local/cuda-12.4/targets/x86_64-linux/lib");
        symlink("libcudart.so.12.4.127", lib.join("libcudart.so.12")).unwrap();
        symlink("targets/x86_64-linux/lib", root.join("usr/local/cuda-12.4/lib64")).unwrap();
        symlink("cuda-12.4", root.join("usr/local/cuda")).unwrap();
        fs::create_dir(root.join("sp")).unwrap();
        let expected = [
            "L libcudart.so.12",
            "T /usr/local/cuda/lib64/libcudart.so.12",
            "L libnvrtc.so.12",
        ];
        assert_eq!(seen(root, "sp", None, &both(&[12])), expected);
        touch(root, "sp/nvidia/cuda_runtime/lib/libcudart.so.12");
        let mixed = [
            "W /sp/nvidia/cuda_runtime/lib/libcudart.so.12",
            "L libnvrtc.so.12",
        ];
        assert_eq!(seen(root, "sp", None, &both(&[12])), mixed);
    }

    #[test]
    fn a_conda_environment_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        touch(root, "env/lib/libcudart.so.12.4.127");
        symlink("libcudart.so.12.4.127", root.join("env/lib/libcudart.so")).unwrap();
        let wanted = &both(&[12])[..1];
        assert_eq!(seen(root, "env/sp", Some("env"), wanted), ["L libcudart.so.12"]);
        touch(root, "env/conda-meta/history");
        assert_eq!(
            seen(root, "env/sp", Some("env"), wanted),
            ["W /env/lib/libcudart.so"]
        );
    }

    #[test]
    fn sonames_of_every_major() {
        let names = |major| [LibraryKind::Cudart, LibraryKind::Nvrtc].map(|kind| soname(kind, major));
        assert_eq!(names(10), ["libcudart.so.10.2", "libnvrtc.so.10.2"]);
        assert_eq!(names(11), ["libcudart.so.11.0", "libnvrtc.so.11.2"]);
        assert_eq!(names(12), ["libcudart.so.12", "libnvrtc.so.12"]);
        assert_eq!(names(13), ["libcudart.so.13", "libnvrtc.so.13"]);
        assert_eq!(majors(&"12.4".parse().unwrap()), [12]);
        assert_eq!(majors(&">=11.8".parse().unwrap()), [14, 13, 12, 11]);
    }

    #[test]
    fn what_ends_the_loaders_search_is_a_copy_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("sp/x/lib/libcudart.so.1")).unwrap();
        let fifo = root.join("sp/x/lib/libcudart.so.2");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("libcudart.so.3", root.join("sp/x/lib/libcudart.so.3")).unwrap();
        symlink("/nowhere", root.join("sp/x/lib/libcudart.so.4")).unwrap();
        symlink(".", root.join("sp/loop")).unwrap();
        let expected = ["1", "2", "3"].map(|n| format!("W /sp/x/lib/libcudart.so.{n}"));
        assert_eq!(seen(root, "sp", None, &both(&[])), expected);
    }
}
