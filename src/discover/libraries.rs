//! The copies of CUDA's libraries that programs of this image may load.
//!
//! Wheels carry them in a few known places, so no tree is walked: `nvidia/cuda_runtime/lib` and `nvidia/cu13/lib`
//! (NVIDIA's wheels), `NAME.libs` (what auditwheel repaired), `torch/lib` (builds that bundle them), and a conda
//! environment's `lib`. Only where none of these has a copy does the system's loader decide.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::files;
use super::links::Links;
use crate::facts::{CudaVersion, Library, LibraryKind, LibraryOrigin, Python};
use crate::hidden::is_hidden;
use crate::order;
use crate::packages::untagged;
use crate::processor::OWN;
use crate::stack::{CudaRule, Stack};

/// A library to look for.
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted {
    /// which one
    pub kind: LibraryKind,
    /// the CUDA major versions whose SONAMEs the loader is asked for where no wheel has a copy; newest first
    pub majors: Vec<u16>,
}

impl Wanted {
    /// What a manifest asks for: a library with a rule, or one whose wheel the manifest or a package of it pins. Of those the
    /// loader is not asked, since none has to be there.
    pub fn by(stack: &Stack) -> Vec<Self> {
        LibraryKind::ALL
            .iter()
            .filter_map(|&kind| {
                let majors = match stack.cuda.of(kind) {
                    Some(rule) => majors(rule),
                    None if may_be_pinned(kind, stack) => Vec::new(),
                    // Which driver they need is told by the libcudart that they are linked to.
                    None if kind == LibraryKind::Cudart && !stack.libraries.is_empty() => Vec::new(),
                    None => return None,
                };
                Some(Self { kind, majors })
            })
            .collect()
    }
}

fn may_be_pinned(kind: LibraryKind, stack: &Stack) -> bool {
    let row = kind.row();
    row.pinned_by.is_some_and(|package| {
        let mut names = stack.packages.iter().map(|rule| rule.normalized.as_str());
        names.any(|name| name == package || untagged(name) == Some(row.wheel))
    })
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

/// The copies that a manifest asks for in an interpreter's environment.
pub fn of_environment(stack: &Stack, python: &Python) -> Vec<Library> {
    let places = Places {
        site_packages: &python.site_packages,
        prefix: python.prefix.as_deref().map(Path::new),
        toolkits: Path::new("/usr/local"),
    };
    runtime_copies(&places, &Wanted::by(stack))
}

/// Every copy of the wanted libraries, each file once: wheels' copies in the order of the folders; and for a kind
/// that has none, what the loader is to be asked for and the copies of toolkits. Answers are left open.
pub fn runtime_copies(places: &Places<'_>, wanted: &[Wanted]) -> Vec<Library> {
    let mut search = Search {
        wanted,
        links: Links::default(),
        seen: BTreeSet::new(),
        found: Vec::new(),
    };
    for folder in places.site_packages {
        search.site_packages(Path::new(folder));
    }
    if let Some(prefix) = places.prefix.filter(|p| p.join("conda-meta").is_dir()) {
        search.folder(&prefix.join("lib"), LibraryOrigin::Wheel);
    }
    // Where a package needs another copy than that of NVIDIA's wheel, no wheel pins which. And one that is packed with a
    // package of its own may not find its sub-libraries, which ends the process that asks it. Two of one name would answer for
    // each other, so the one that an import finds first is asked.
    let mut pinned = BTreeSet::new();
    search.found.retain(|library| {
        let mut path = Path::new(&library.path).iter().rev();
        let (name, is_nvidias) = (path.next(), path.nth(2).is_some_and(|folder| folder == "nvidia"));
        library.kind.row().rule.is_some() || is_nvidias && pinned.insert(name.map(OsStr::to_os_string))
    });
    let orphans: Vec<Wanted> = wanted
        .iter()
        .filter(|w| !w.majors.is_empty() && search.found.iter().all(|l| l.kind != w.kind))
        .cloned()
        .collect();
    let mut found = search.found;
    for orphan in &orphans {
        found.extend(orphan.majors.iter().map(|&major| Library {
            kind: orphan.kind,
            path: orphan.kind.soname(major),
            origin: LibraryOrigin::Loader,
            answer: None,
        }));
    }
    if !orphans.is_empty() {
        found.extend(toolkit_copies(places.toolkits, &orphans));
    }
    // One kind after the other, and within a kind the order in which they were found.
    order::sort_by_key(&mut found, |l| l.kind);
    found
}

fn toolkit_copies(parent: &Path, wanted: &[Wanted]) -> Vec<Library> {
    let mut search = Search {
        wanted,
        links: Links::default(),
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
            for lib in OWN.toolkit {
                search.folder(&root.join(lib), LibraryOrigin::Toolkit);
            }
        }
    }
    search.found
}

struct Search<'a> {
    wanted: &'a [Wanted],
    links: Links,
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
            let Some(kind) = entry.text().and_then(LibraryKind::of_file) else {
                continue;
            };
            if self.wanted.iter().all(|w| w.kind != kind) {
                continue;
            }
            let path = folder.join(&entry.name);
            if is_hidden(&path) {
                continue;
            }
            // A broken link is passed over, as the loader does; a folder of that name, or a link to itself, ends its
            // search with an error, so it is a copy that the helper has to be told of.
            let real = self.links.follow(&path);
            let real = match real.map_or_else(|| path.canonicalize(), Ok) {
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
    fn of_a_pinned_library_nvidias_own_copy_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for path in [
            "sp/a/lib/libcudnn.so.9",
            "sp/ctranslate2.libs/libcudnn-74a4c495.so.9.1.0",
            "sp/nvidia/cudnn/lib/libcudnn.so.9",
            "sp/nvidia/cudnn/lib/libcudnn_graph.so.9",
            "sp/nvidia/cudnn_old/lib/libcudnn.so.9",
            "usr/local/cuda/lib64/libcudnn.so.9",
        ] {
            touch(root, path);
        }
        let stack = |packages: &str| {
            Stack::parse(&format!(
                r#"{{"schema": 1, "name": "t", "packages": {{{packages}}}}}"#
            ))
            .unwrap()
        };
        for packages in [r#""torch": "*""#, r#""nvidia-cudnn-cu12": "*""#] {
            let wanted = Wanted::by(&stack(packages));
            let expected = ["W /sp/nvidia/cudnn/lib/libcudnn.so.9"];
            assert_eq!(seen(root, "sp", None, &wanted), expected, "{packages}");
            fs::create_dir_all(root.join("empty")).unwrap();
            assert_eq!(seen(root, "empty", None, &wanted), [""; 0], "{packages}");
        }
        assert_eq!(Wanted::by(&stack(r#""nvidia-cuda-runtime-cu12": "*""#)), []);
    }

    #[test]
    fn majors_are_those_that_the_rule_accepts() {
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
